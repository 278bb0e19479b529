"""The loss barrier: how much worse networks become on the straight line between two of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_medmerge.errors import SettingError
from monai_medmerge.evaluation.prediction import predict
from monai_medmerge.inspection import copy_network
from monai_medmerge.networks.alignment.aligning import align, filled_state
from monai_medmerge.networks.batchnorm import recalibrate
from monai_medmerge.sources.checkpoint.source import Source
from monai_medmerge.sources.matching import check_compatible, resolve


@dataclass(frozen=True)
class LossLine:
    """Networks on the line between two: their loss and accuracy.

    Args:
        name: what was done to them (`raw`, `aligned`, ...).
        positions: from 0, the first network, to 1, the second.
        loss: mean cross-entropy at each position.
        accuracy: share of right answers at each position.
    """

    name: str
    positions: tuple[float, ...]
    loss: tuple[float, ...]
    accuracy: tuple[float, ...]

    @property
    def barrier(self) -> float:
        """Loss at the midpoint above the mean loss of the two ends; below zero where the midpoint is better."""
        return self._midpoint(self.loss)

    @property
    def accuracy_barrier(self) -> float:
        """Accuracy that the midpoint lacks to the mean of the two ends."""
        return -self._midpoint(self.accuracy)

    def _midpoint(self, values: Sequence[float]) -> float:
        return values[self.positions.index(0.5)] - (values[0] + values[-1]) / 2

    def as_dict(self) -> dict[str, Any]:
        """The line in plain types, for JSON."""
        return {**asdict(self), "barrier": self.barrier, "accuracy_barrier": self.accuracy_barrier}

    def __str__(self) -> str:
        return f"{self.name}: barrier {self.barrier:.4f} in loss, {100 * self.accuracy_barrier:.1f} points of accuracy"


def barrier(
    network: nn.Module,
    first: Source,
    second: Source,
    batches: Iterable[dict[str, Any]],
    example_input: Tensor,
    alignment_batches: Iterable[Any] | None = None,
    recalibration_batches: Iterable[Any] | None = None,
    points: int = 5,
) -> list[LossLine]:
    """Walk from one network to another: as they are, aligned, and each with batch-norm statistics measured anew.

    A low barrier says that two networks can be averaged without loss. Batch-norm statistics of an interpolated network
    are interpolated too, and wrong: REPAIR (Jordan et al., arXiv:2211.08403) shows that most of the barrier that
    alignment (Git Re-Basin, Ainsworth et al., arXiv:2209.04836) leaves comes from them.

    Args:
        network: of the sources' architecture, with a classifier's scores (batch, class) as output. Stays untouched.
        first: at position 0, and the anchor of the alignment.
        second: at position 1.
        batches: dictionaries with `image` and `label` to measure on; gone through many times.
        example_input: a batch that the network takes.
        alignment_batches: as of `align`; matching is by weights without them.
        recalibration_batches: as of `recalibrate`, gone through many times; without them nothing is recalibrated.
            The two ends are recalibrated as well.
        points: positions on the line, an odd number, so that the midpoint is one.

    Returns:
        The lines `raw`, `aligned` and, where there are batches for it, `recalibrated` and `aligned, recalibrated`.

    Raises:
        IncompatibleSourcesError: a source does not fit.
        SettingError: the midpoint is not among the points.

    Example:
        >>> build = lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> a, b = (Source.from_network(build(), name) for name in "ab")
        >>> batches = [{"image": torch.rand(6, 4), "label": torch.tensor([0, 1, 0, 1, 0, 1])}]
        >>> [line.name for line in barrier(build(), a, b, batches, torch.zeros(1, 4), points=3)]
        ['raw', 'aligned']
    """
    if points < 3 or points % 2 == 0:
        raise SettingError("an odd number of points, 3 or more", repr(points), "points")
    check_compatible(network, [first, second])
    aligned = align(network, [first, second], example_input, alignment_batches)[1]
    positions = tuple(i / (points - 1) for i in range(points))
    ends = {"raw": second, "aligned": aligned}
    lines = [_line(name, network, first, end, positions, batches, None) for name, end in ends.items()]
    if recalibration_batches is not None:
        names = {"recalibrated": second, "aligned, recalibrated": aligned}
        lines += [
            _line(name, network, first, end, positions, batches, recalibration_batches) for name, end in names.items()
        ]
    return lines


def _line(
    name: str,
    network: nn.Module,
    first: Source,
    second: Source,
    positions: Sequence[float],
    batches: Iterable[dict[str, Any]],
    recalibration: Iterable[Any] | None,
) -> LossLine:
    walker = copy_network(network)
    start, stop = (filled_state(network, resolve(network, source)) for source in (first, second))
    measured = []
    for position in positions:
        walker.load_state_dict(interpolate(start, stop, position))
        if recalibration is not None:
            recalibrate(walker, recalibration)
        measured.append(_loss_and_accuracy(walker, batches))
    loss, accuracy = zip(*measured, strict=True)
    return LossLine(name, tuple(positions), loss, accuracy)


def interpolate(first: dict[str, Tensor], second: dict[str, Tensor], position: float) -> dict[str, Tensor]:
    """``(1 - t) * first + t * second`` for every tensor of two state dicts; integers are the first's.

    Example:
        >>> interpolate({"w": torch.zeros(1)}, {"w": torch.ones(1)}, 0.25)
        {'w': tensor([0.2500])}
    """
    return {
        name: torch.lerp(tensor, second[name].to(tensor), position) if tensor.is_floating_point() else tensor
        for name, tensor in first.items()
    }


def _loss_and_accuracy(network: nn.Module, batches: Iterable[dict[str, Any]]) -> tuple[float, float]:
    probabilities, labels = predict(network, batches)
    logarithms = probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log()
    accuracy = (probabilities.argmax(1) == labels).double().mean()
    return float(functional.nll_loss(logarithms, labels)), float(accuracy)
