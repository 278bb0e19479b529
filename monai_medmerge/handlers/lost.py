"""Say when a network finds nothing of a class."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.handlers import from_engine
from torch import Tensor

logger = logging.getLogger(__name__)

NOTHING = 0.01
"""Recall, or Dice, below which a class is lost."""


class LostClassWarner:
    """Warn, in one line, of the classes of which an evaluator's network finds less than one case or voxel in a hundred.

    A mean over classes hides that one of them is at nothing. What was said is not said again until it changes.

    Args:
        class_names: one per class.
        background: whether the first one is the background, which is not looked at.

    Example:
        >>> warner = LostClassWarner(["cyst", "tumour"])
        >>> evaluator = Engine(lambda engine, batch: batch)
        >>> warner.attach(evaluator)
        >>> _ = evaluator.run([{"pred": torch.tensor([[2.0, 1.0], [3.0, 0.0]]), "label": torch.tensor([0, 1])}])
        >>> warner.lost
        ['tumour']
    """

    def __init__(self, class_names: Sequence[str], background: bool = False) -> None:
        self.names = list(class_names)
        self.first = int(background)
        self.lost: list[str] = []
        self._pairs = from_engine(["pred", "label"])
        self._hits = self._cases = torch.zeros(len(self.names))

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator whose output has `pred` and `label`, as MONAI's have."""
        engine.add_event_handler(Events.STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._see)
        engine.add_event_handler(Events.COMPLETED, self)

    def _begin(self) -> None:
        self._hits, self._cases = torch.zeros(len(self.names)), torch.zeros(len(self.names))

    def _see(self, engine: Any) -> None:
        scores, labels = self._pairs(engine.state.output)
        # MONAI gives a list of cases, or a batch where it was told not to.
        batches = [(scores, labels)] if isinstance(scores, Tensor) else zip(scores, labels, strict=True)
        axis = 1 if isinstance(scores, Tensor) else 0
        for score, label in batches:
            said, true = (_numbers(part.as_subclass(Tensor).cpu(), axis) for part in (score, label))
            count = len(self.names)
            self._cases = self._cases + torch.bincount(true, minlength=count)[:count]
            self._hits = self._hits + torch.bincount(true[said == true], minlength=count)[:count]

    def __call__(self, engine: Engine) -> None:
        """Warn if there is something new to warn of."""
        lost = [
            name
            for name, hits, cases in list(zip(self.names, self._hits, self._cases, strict=True))[self.first :]
            if cases and hits < NOTHING * cases
        ]
        if lost and lost != self.lost:
            logger.warning("%s", lost_line("validation", lost))
        self.lost = lost


def lost_line(where: str, lost: Sequence[str]) -> str:
    """The warning.

    Args:
        where: a stage or a section.
        lost: names of classes.

    Example:
        >>> lost_line("validation", ["front"])
        'validation: lost: front, of which less than 1 in 100 is found; a mean over classes hides that'
    """
    return f"{where}: lost: {', '.join(lost)}, of which less than 1 in 100 is found; a mean over classes hides that"


def _numbers(values: Tensor, axis: int) -> Tensor:
    """Class numbers (case or voxel,) from scores, one-hot maps, or numbers with or without a channel."""
    many = values.ndim > axis and values.shape[axis] > 1
    return (values.argmax(axis) if many else values).flatten().long()
