"""MONAI's saver of checkpoints, that never leaves half of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ignite.handlers import DiskSaver
from monai.handlers import CheckpointSaver

from monai_medmerge.files import save_state


class WholeCheckpointSaver(CheckpointSaver):
    """MONAI's `CheckpointSaver`, with every file whole or not at all.

    Of MONAI's own, a run that is killed or meets a full disk while it saves leaves a truncated file under the final
    name; and a better network's file takes the place of one that is removed before.

    Args:
        arguments: of `CheckpointSaver`.
        keywords: of `CheckpointSaver`.

    Example:
        >>> import tempfile, torch
        >>> from ignite.engine import Engine
        >>> folder, engine = tempfile.mkdtemp(), Engine(lambda engine, batch: None)
        >>> weights = {"model": torch.nn.Linear(1, 1)}
        >>> saver = WholeCheckpointSaver(folder, weights, save_final=True, final_filename="a.pt")
        >>> saver.attach(engine)
        >>> _ = engine.run([0])
        >>> [path.name for path in Path(folder).iterdir()]
        ['a.pt']
    """

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        for checkpoint in (self._final_checkpoint, self._key_metric_checkpoint, self._interval_checkpoint):
            if checkpoint is not None:
                checkpoint.save_handler = _WholeSaver(checkpoint.save_handler)


class _WholeSaver(DiskSaver):
    """What a `Checkpoint` of MONAI's saves with."""

    def __init__(self, other: Any) -> None:
        super().__init__(other.dirname, atomic=False, require_empty=False)
        self.filename: str | None = other.filename
        self._leaving: list[Path] = []

    def __call__(self, checkpoint: Mapping[str, Any], filename: str, metadata: Mapping[str, Any] | None = None) -> None:
        super().__call__(checkpoint, self.filename or filename, metadata)

    def remove(self, filename: str) -> None:
        # Ignite removes the old one before it saves the new one: it goes once that is there.
        self._leaving.append(self.dirname / (self.filename or filename))

    def _save_func(self, checkpoint: Mapping[str, Any], path: Path, func: Callable[..., None]) -> None:
        save_state(path, checkpoint)
        for old in self._leaving:
            if old != path:
                old.unlink(missing_ok=True)
        self._leaving.clear()
