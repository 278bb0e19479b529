"""Any measure of a set of cases, and the interval within which it may lie: a bootstrap over cases or patients."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from monai_medmerge.errors import SettingError

# What is measured, as a function of how often each case counts: weights (sample, case) to values (sample,). Resampling
# cases is drawing how often each occurs, so one call measures all resamples at once.
Statistic = Callable[[np.ndarray], np.ndarray]

SAMPLES = 2000
# Weights of many resamples and cases are drawn in pieces of about this many numbers.
_PIECE = 8_000_000


@dataclass(frozen=True)
class Estimate:
    """A measured value and its interval; NaN where it cannot be measured.

    Example:
        >>> print(Estimate(0.8123, 0.75, 0.861))
        0.812 (0.750 to 0.861)
    """

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float | None]:
        """The numbers for JSON, which knows no NaN."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        return {name: None if np.isnan(number) else number for name, number in numbers.items()}

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Paired:
    """What a reference and a candidate reach on the same cases, and the candidate's gain."""

    reference: Estimate
    candidate: Estimate
    difference: Estimate

    def as_dict(self) -> dict[str, Any]:
        """The numbers for JSON."""
        parts = {"reference": self.reference, "candidate": self.candidate, "difference": self.difference}
        return {name: part.as_dict() for name, part in parts.items()}


@dataclass(frozen=True)
class Resampling:
    """How cases are drawn again, and how wide intervals are.

    Args:
        groups: which patient each case is of, where there are several images of one: whole groups are drawn, because
            cases of one patient are not independent.
        level: probability of the intervals.
        samples: how many resamples.
        seed: of the drawing.
    """

    groups: Sequence[Hashable] | None = None
    level: float = 0.95
    samples: int = SAMPLES
    seed: int = 0

    def weights(self, cases: int) -> Iterator[np.ndarray]:
        """How often each case is drawn, (sample, case), in pieces.

        Args:
            cases: how many there are.

        Raises:
            SettingError: there is none, or there is not a group for each.
        """
        if cases < 1:
            raise SettingError("at least one case", "none", "bootstrap")
        member = self._members(cases)
        units = cases if member is None else int(member.max()) + 1
        generator, step = np.random.default_rng(self.seed), max(1, _PIECE // cases)
        for first in range(0, self.samples, step):
            drawn = generator.multinomial(units, np.full(units, 1 / units), size=min(step, self.samples - first))
            yield (drawn if member is None else drawn[:, member]).astype(np.float64)

    def count(self, chosen: np.ndarray) -> int:
        """How many independent units some cases are: groups where these are known, else the cases themselves.

        Args:
            chosen: bool (case,).

        Raises:
            SettingError: there is not a group for each case.

        Example:
            >>> Resampling(groups=["a", "a", "b"]).count(np.array([True, True, False]))
            1
        """
        member = self._members(len(chosen))
        return int(chosen.sum()) if member is None else len(np.unique(member[chosen]))

    def _members(self, cases: int) -> np.ndarray | None:
        """Number of each case's group, int (case,)."""
        if self.groups is None:
            return None
        if len(self.groups) != cases:
            raise SettingError(f"a group for each of {cases} cases", f"{len(self.groups)}", "bootstrap, groups")
        # The first sight of each group numbers it, so that any hashable value will do.
        numbers = {group: number for number, group in enumerate(dict.fromkeys(self.groups))}
        return np.array([numbers[group] for group in self.groups])


def estimate(statistics: Sequence[Statistic], cases: int, resampling: Resampling | None = None) -> list[Estimate]:
    """Measure on all cases, with percentile intervals over resampled cases; every statistic sees the same resamples.

    Args:
        statistics: each from weights (sample, case) to values (sample,).
        cases: how many there are.
        resampling: how they are drawn.

    Returns:
        One estimate per statistic. Resamples on which it is undefined (NaN) are left out. Efron and Tibshirani, An
        Introduction to the Bootstrap (1993), chapter 13.

    Raises:
        SettingError: there is no case, or there is not a group for each.

    Example:
        >>> hits = np.array([1.0, 1.0, 0.0, 1.0] * 25)
        >>> print(estimate([lambda weights: weights @ hits / weights.sum(1)], 100)[0])
        0.750 (0.660 to 0.830)
    """
    resampling = resampling or Resampling()
    values, drawn = _measure(statistics, cases, resampling)
    return [_estimate(value, found, resampling.level) for value, found in zip(values, drawn, strict=True)]


def paired_estimate(
    pairs: Sequence[tuple[Statistic, Statistic]],
    cases: int,
    resampling: Resampling | None = None,
    levels: Sequence[float] | None = None,
) -> list[Paired]:
    """Measure a reference and a candidate on the same cases; the interval of their difference is paired.

    Args:
        pairs: (reference, candidate), each as of `estimate`.
        cases: how many there are.
        resampling: how they are drawn.
        levels: of the intervals of the differences, one for each pair; that of `resampling` if not given.

    Raises:
        SettingError: as `estimate`.

    Example:
        >>> hits = np.array([1.0, 1.0, 0.0, 1.0] * 25)
        >>> share = lambda weights: weights @ hits / weights.sum(1)
        >>> print(paired_estimate([(share, share)], 100)[0].difference)
        0.000 (0.000 to 0.000)
    """
    resampling, found = resampling or Resampling(), []
    values, drawn = _measure([statistic for pair in pairs for statistic in pair], cases, resampling)
    for n in range(0, len(values), 2):
        (a, b), (x, y) = values[n : n + 2], drawn[n : n + 2]
        of_difference = resampling.level if levels is None else levels[n // 2]
        triple = ((a, x, resampling.level), (b, y, resampling.level), (b - a, y - x, of_difference))
        found.append(Paired(*(_estimate(value, sampled, level) for value, sampled, level in triple)))
    return found


def _measure(
    statistics: Sequence[Statistic], cases: int, resampling: Resampling
) -> tuple[list[float], list[np.ndarray]]:
    """Each statistic on all cases, and on every resample."""
    pieces: list[list[np.ndarray]] = [[] for _ in statistics]
    for weights in resampling.weights(cases):
        for statistic, kept in zip(statistics, pieces, strict=True):
            kept.append(statistic(weights))
    everything = np.ones((1, cases))
    return [float(statistic(everything)[0]) for statistic in statistics], [np.concatenate(kept) for kept in pieces]


def _estimate(value: float, drawn: np.ndarray, level: float) -> Estimate:
    known = drawn[~np.isnan(drawn)]
    if not len(known):
        return Estimate(value, float("nan"), float("nan"))
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, float(low), float(high))


def confusion(predictions: Int[np.ndarray, " case"], labels: Int[np.ndarray, " case"], classes: int) -> np.ndarray:
    """Counts (label, prediction).

    Args:
        predictions: class numbers, int (case,).
        labels: class numbers, int (case,).
        classes: how many there are.

    Example:
        >>> confusion(np.array([0, 1, 1]), np.array([0, 0, 1]), 2).tolist()
        [[1, 1], [0, 1]]
    """
    return np.bincount(labels * classes + predictions, minlength=classes**2).reshape(classes, classes)


def f1_of_counts(counts: Float[np.ndarray, "*sample label prediction"]) -> np.ndarray:
    """``2 TP / (2 TP + FP + FN)`` per class; 0 for a class that neither occurs nor is predicted.

    Args:
        counts: one or many confusion matrices (..., label, prediction).

    Example:
        >>> f1_of_counts(np.array([[1.0, 1.0], [0.0, 1.0]])).round(4).tolist()
        [0.6667, 0.6667]
    """
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    total = counts.sum(-1) + counts.sum(-2)
    return np.divide(2.0 * hits, total, out=np.zeros(hits.shape), where=total > 0)


def mean_f1_of_counts(counts: np.ndarray, over: Sequence[int] | None = None) -> np.ndarray:
    """Mean of F1 over the classes that occur; NaN where none does. A class without a case is left out, never 0.

    Args:
        counts: confusion matrices (sample, label, prediction).
        over: the classes to average over; all that occur if not given.

    Example:
        >>> mean_f1_of_counts(np.array([[[2.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 0.0, 0.0]]])).round(4).tolist()
        [0.8333]
    """
    chosen = list(range(counts.shape[-1]) if over is None else over)
    occurs = counts.sum(-1)[:, chosen] > 0
    total = (f1_of_counts(counts)[:, chosen] * occurs).sum(1)
    return np.divide(total, occurs.sum(1), out=np.full(len(counts), np.nan), where=occurs.any(1))


def macro_f1(predictions: Int[np.ndarray, " case"], labels: Int[np.ndarray, " case"], classes: int) -> float:
    """Macro F1 of class predictions: the mean of F1 over the classes that occur among the labels.

    Args:
        predictions: class numbers, int (case,).
        labels: class numbers, int (case,).
        classes: how many there are.

    Example:
        >>> macro_f1(np.array([0, 1, 2]), np.array([0, 1, 2]), 3)
        1.0
    """
    return float(mean_f1_of_counts(confusion(predictions, labels, classes).astype(np.float64)[None])[0])


def count_cells(
    predictions: Int[np.ndarray, " case"], labels: Int[np.ndarray, " case"], classes: int
) -> Callable[[np.ndarray], np.ndarray]:
    """A function from weights (sample, case) to confusion matrices (sample, label, prediction).

    Args:
        predictions: class numbers, int (case,).
        labels: class numbers, int (case,).
        classes: how many there are.

    Example:
        >>> count_cells(np.array([0, 1]), np.array([0, 0]), 2)(np.array([[3.0, 1.0]])).tolist()
        [[[3.0, 1.0], [0.0, 0.0]]]
    """
    cells = np.zeros((len(labels), classes**2))
    cells[np.arange(len(labels)), labels * classes + predictions] = 1
    return lambda weights: (weights @ cells).reshape(len(weights), classes, classes)


def bootstrap_interval(
    predictions: Int[np.ndarray, " case"],
    labels: Int[np.ndarray, " case"],
    classes: int,
    reference: Int[np.ndarray, " case"] | None = None,
    level: float = 0.95,
    samples: int = SAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of macro F1, or of its paired difference to a reference, over resampled cases.

    Args:
        predictions: class numbers of the candidate, int (case,).
        labels: class numbers, int (case,).
        classes: how many there are.
        reference: class numbers of another network on the same cases; its macro F1 is taken off in every sample.
        level: probability of the interval.
        samples: how many resamples.
        seed: of the resampling.

    Returns:
        Lower and upper bound; see `estimate`.

    Example:
        >>> bootstrap_interval(np.array([0, 1, 0, 1]), np.array([0, 1, 0, 1]), 2, reference=np.array([0, 1, 0, 1]))
        (0.0, 0.0)
    """
    counts = count_cells(predictions, labels, classes)
    others = None if reference is None else count_cells(reference, labels, classes)

    def measure(weights: np.ndarray) -> np.ndarray:
        taken_off = 0.0 if others is None else mean_f1_of_counts(others(weights))
        return np.asarray(mean_f1_of_counts(counts(weights)) - taken_off)

    found = estimate([measure], len(labels), Resampling(level=level, samples=samples, seed=seed))[0]
    return found.low, found.high
