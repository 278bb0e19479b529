"""Save a trainer's whole state every epoch, and go on from the newest whole file."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events

from monai_medmerge.errors import ResumeError
from monai_medmerge.files import save_state, sweep
from monai_medmerge.sources.checkpoint import check_archive

logger = logging.getLogger(__name__)


class ResumeHandler:
    """Save each epoch, in the form of MONAI's `CheckpointSaver`, and restore at the start what was saved last.

    Two checkpoints are kept, also of a run that was killed and goes on. A file whose bytes do not agree with their
    checksums is put aside, never loaded. In a distributed run the first rank saves, and all load.

    Args:
        save_dir: folder of this phase's checkpoints.
        name: what they are called: `<name>_checkpoint_epoch=N.pt`.
        save_dict: objects with a state; by default the `resumable` of the trainer that the handler is attached to.
        beside: further objects with a state, such as handlers that keep what they saw.

    Raises:
        ResumeError: (when the run starts) the checkpoint belongs to another run: other sources, rates or epochs.
    """

    def __init__(
        self,
        save_dir: str | Path,
        name: str,
        save_dict: Mapping[str, Any] | None = None,
        beside: Mapping[str, Any] | None = None,
    ) -> None:
        self.save_dir = Path(save_dir)
        self.name = name
        self.save_dict = save_dict
        self.beside = dict(beside or {})

    def attach(self, engine: Any) -> None:
        """Register with a trainer.

        Args:
            engine: a `PhaseTrainer`, or any MONAI trainer if `save_dict` was given.
        """
        engine.add_event_handler(Events.STARTED, self.load)
        # The rest waits until the trainer has built all that is to be saved.
        engine.add_event_handler(Events.STARTED, self._save_last)

    def load(self, engine: Any) -> None:
        """Restore the newest whole checkpoint, if there is one."""
        if idist.get_rank() == 0:
            sweep(self.save_dir)
        path = self._newest()
        if path is None:
            return
        state = torch.load(path, map_location="cpu", weights_only=True)
        for key, value in self._objects(engine).items():
            if key not in state:
                raise ResumeError(f"an entry {key!r}", f"{', '.join(state)}", path.name)
            value.load_state_dict(state[key])
        text = "Resumed from %s, epoch %d of %d"
        if engine.state.epoch == engine.state.max_epochs:
            text += ": finished before, not trained again"
        logger.info(text, path.name, engine.state.epoch, engine.state.max_epochs)

    def save(self, engine: Engine) -> None:
        """Save the epoch, then let go of all checkpoints but the newest two."""
        if idist.get_rank() > 0:
            return
        path = self.save_dir / f"{self.name}_checkpoint_epoch={engine.state.epoch}.pt"
        save_state(path, {key: value.state_dict() for key, value in self._objects(engine).items()})
        for old in self._found()[2:]:
            old.unlink(missing_ok=True)

    def _save_last(self, engine: Engine) -> None:
        if not engine.has_event_handler(self.save, Events.EPOCH_COMPLETED):
            engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def _objects(self, engine: Any) -> Mapping[str, Any]:
        return {**(self.save_dict if self.save_dict is not None else engine.resumable), **self.beside}

    def _found(self) -> list[Path]:
        """This phase's checkpoints, the newest first."""
        pattern = re.compile(re.escape(self.name) + r"_checkpoint_epoch=(\d+)\.pt")
        found = [(int(hit[1]), p) for p in self.save_dir.glob("*.pt") if (hit := pattern.fullmatch(p.name))]
        return [path for _, path in sorted(found, reverse=True)]

    def _newest(self) -> Path | None:
        for path in self._found():
            try:
                check_archive(path)
            except ValueError as error:
                logger.warning("Put aside a partial checkpoint: %s", error)
                if idist.get_rank() == 0:
                    path.rename(path.with_suffix(".pt.damaged"))
            else:
                return path
        return None
