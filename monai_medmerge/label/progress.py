"""What a training through MONAI Label leaves: weights for the next inference, and how the loss went."""

from __future__ import annotations

import json
import logging
import math
import signal
import threading
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events

from monai_medmerge.errors import UnsafeCheckpointError
from monai_medmerge.files import save_state, write_text
from monai_medmerge.sources.checkpoint.values import all_finite

logger = logging.getLogger(__name__)


class TrainingRecord:
    """Writes a trainer's weights when it ends, and its mean losses after every epoch.

    A training that is cancelled, fails or diverges leaves the weights of the one before it. One that gets SIGTERM, as
    from a server that ends, stops after the step at hand and writes what it has.

    Args:
        weights: file for the weights, whole or not at all.
        stats: file for the losses, as JSON.
        start: what the training started from, for the record.

    Raises:
        UnsafeCheckpointError: from the trainer's end, if weights are not finite.
    """

    def __init__(self, weights: str, stats: str, start: str) -> None:
        self.weights = Path(weights)
        self.stats = Path(stats)
        self.start = start
        self.losses: list[float] = []
        self._epoch: list[float] = []

    def attach(self, engine: Engine) -> None:
        """Register with a trainer whose output has a `loss`."""
        engine.add_event_handler(Events.STARTED, self._listen)
        engine.add_event_handler(Events.EPOCH_STARTED, self._epoch.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._see)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.note)
        engine.add_event_handler(Events.COMPLETED, self.save)

    def _listen(self, engine: Engine) -> None:
        # Python lets its main thread alone set handlers; a training elsewhere ends with its process.
        if threading.current_thread() is not threading.main_thread():
            return
        usual = signal.signal(signal.SIGTERM, lambda number, frame: engine.terminate())
        engine.add_event_handler(Events.COMPLETED, lambda: signal.signal(signal.SIGTERM, usual) and None)

    def _see(self, engine: Engine) -> None:
        output: Any = engine.state.output
        # MONAI splits an output into the items of its batch, unless a trainer is told not to; each has the loss of all.
        loss = (output[0] if isinstance(output, list) else output)["loss"]
        self._epoch.append(torch.as_tensor(loss).item())

    def note(self, engine: Engine) -> None:
        """Write the losses so far, and tell the last."""
        state = engine.state
        self.losses.append(sum(self._epoch) / len(self._epoch))
        logger.info("Epoch %d of %s: mean loss %.4f", state.epoch, state.max_epochs, self.losses[-1])
        # MONAI Label answers in JSON, which knows no NaN.
        losses = [loss if math.isfinite(loss) else None for loss in self.losses]
        record = {"start": self.start, "epoch": state.epoch, "max_epochs": state.max_epochs, "loss": losses}
        self._write(self.stats, json.dumps(record))

    def save(self, engine: Any) -> None:
        """Write the weights."""
        network = getattr(engine.network, "module", engine.network)
        weights = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
        if diverged := [name for name, tensor in weights.items() if not all_finite(tensor)]:
            found = f"NaN or infinite ones in {diverged[0]}: the training diverged"
            raise UnsafeCheckpointError("finite weights", found, self.weights.name)
        self._write(self.weights, weights)
        logger.info("Wrote %s", self.weights.name)

    def _write(self, path: Path, content: Any) -> None:
        if idist.get_rank() > 0:
            return
        if isinstance(content, str):
            write_text(path, content)
        else:
            save_state(path, content)
