"""One line of the log an epoch: loss, rate, what is taken from whom, seconds."""

from __future__ import annotations

import logging
import time
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import nn

from monai_medmerge.networks import coefficients, merge_record

logger = logging.getLogger(__name__)


class EpochLine:
    """Logs each epoch in one line.

    Args:
        phase: its name.
        merged: the merged network while its coefficients are learned, for each source's mean share.

    Example:
        >>> engine = Engine(lambda engine, batch: {"loss": torch.tensor(batch)})
        >>> line = EpochLine("finetune")
        >>> line.attach(engine)
        >>> _ = engine.run([1.0, 2.0], max_epochs=1)
        >>> line.text(engine, seconds=0.2)
        'finetune, epoch 1 of 1: mean loss 1.5000, 0.2 s'
    """

    def __init__(self, phase: str, merged: nn.Module | None = None) -> None:
        self.phase, self.merged = phase, merged
        self._losses: list[float] = []
        self._start = 0.0

    def attach(self, engine: Engine) -> None:
        """Register with a trainer whose output has a `loss`."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._see)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def _begin(self, engine: Engine) -> None:
        self._losses.clear()
        self._start = time.monotonic()

    def _see(self, engine: Any) -> None:
        self._losses.append(float(engine.state.output["loss"].item()))

    def __call__(self, engine: Engine) -> None:
        """Log the epoch that ends."""
        logger.info("%s", self.text(engine, time.monotonic() - self._start))

    def text(self, engine: Any, seconds: float) -> str:
        """The line.

        Args:
            engine: after an epoch.
            seconds: that it took.
        """
        parts = [f"mean loss {sum(self._losses) / len(self._losses):.4f}"]
        optimizer = getattr(engine, "optimizer", None)
        if optimizer is not None:
            rates = dict.fromkeys(f"{group['lr']:.2e}" for group in optimizer.param_groups)
            parts.append(f"rate {' and '.join(rates)}")
        if self.merged is not None:
            rows = torch.cat([table.detach().flatten(1) for table in coefficients(self.merged).values()], dim=1)
            names = merge_record(self.merged).sources
            shares = [f"{name} {row.mean().item():.3f}" for name, row in zip(names, rows, strict=True)]
            parts.append(f"shares {', '.join(shares)}")
        state = engine.state
        return f"{self.phase}, epoch {state.epoch} of {state.max_epochs}: {', '.join(parts)}, {seconds:.1f} s"
