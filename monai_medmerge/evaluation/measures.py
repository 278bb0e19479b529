"""Measures as statistics: functions from how often each case counts to a value, for the bootstrap.

Every function here returns a `Statistic`, from weights (sample, case) to values (sample,). A value is NaN where no
case counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from monai_medmerge.evaluation.bootstrap import Statistic, count_cells, f1_of_counts


def mean(values: np.ndarray, among: np.ndarray | None = None) -> Statistic:
    """Mean of one value per case; of truths, their share.

    Args:
        values: bool or float (case,); cases whose value is NaN do not count.
        among: bool (case,), the cases that count; all if not given.

    Example:
        >>> mean(np.array([True, False, True]), np.array([True, True, False]))(np.ones((1, 3))).tolist()
        [0.5]
    """
    known = ~np.isnan(values) if values.dtype.kind == "f" else np.ones(len(values), bool)
    counted = (known if among is None else known & among).astype(np.float64)
    numbers = np.where(known, values, 0).astype(np.float64) * counted
    return lambda weights: _divide(weights @ numbers, weights @ counted)


def mean_f1(predictions: np.ndarray, labels: np.ndarray, classes: int, over: Sequence[int] | None = None) -> Statistic:
    """Macro F1.

    Args:
        predictions: class numbers, int (case,).
        labels: class numbers, int (case,).
        classes: how many there are.
        over: the classes to average over; all if not given.
    """
    counts, chosen = count_cells(predictions, labels, classes), list(range(classes) if over is None else over)

    def measure(weights: np.ndarray) -> np.ndarray:
        found = f1_of_counts(counts(weights))[:, chosen].mean(1)
        return np.where(weights.sum(1) > 0, found, np.nan)

    return measure


def area_under_curve(scores: np.ndarray, positive: np.ndarray) -> Statistic:
    """Area under the ROC curve: how often a positive case scores above a negative one, ties counting half.

    Args:
        scores: float (case,).
        positive: bool (case,).

    Example:
        >>> area_under_curve(np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, False, True, True]))(np.ones((1, 4)))
        array([0.875])
    """
    order = np.argsort(scores, kind="stable")
    ordered, is_positive = scores[order], positive[order].astype(np.float64)
    below = np.searchsorted(ordered, ordered, side="left")
    up_to = np.searchsorted(ordered, ordered, side="right")

    def measure(weights: np.ndarray) -> np.ndarray:
        sorted_weights = weights[:, order]
        negatives = np.zeros((len(weights), len(order) + 1))
        np.cumsum(sorted_weights * (1 - is_positive), axis=1, out=negatives[:, 1:])
        positives = sorted_weights * is_positive
        wins = (positives * (negatives[:, below] + negatives[:, up_to])).sum(1) / 2
        return _divide(wins, positives.sum(1) * negatives[:, -1])

    return measure


def mean_area_under_curve(probabilities: np.ndarray, labels: np.ndarray) -> Statistic:
    """Mean area under the ROC curve of each class against the rest, over the classes that have both.

    Args:
        probabilities: float (case, class); of two classes only the second is measured, because both are equal.
        labels: class numbers, int (case,).
    """
    classes = [1] if probabilities.shape[1] == 2 else range(probabilities.shape[1])
    parts = [area_under_curve(probabilities[:, k], labels == k) for k in classes]

    def measure(weights: np.ndarray) -> np.ndarray:
        found = np.stack([part(weights) for part in parts])
        known = ~np.isnan(found)
        return _divide(np.where(known, found, 0).sum(0), known.sum(0).astype(np.float64))

    return measure


def calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = 15) -> Statistic:
    """Expected calibration error: ``sum over bins of |sum of right - sum of confidence| / cases``.

    Guo et al., arXiv:1706.04599, with bins of equal width.

    Args:
        confidence: float (case,), the probability of the predicted class.
        right: bool (case,), whether it is the label.
        bins: how many.

    Example:
        >>> calibration_error(np.array([0.9, 0.9]), np.array([True, False]))(np.ones((1, 2))).round(6).tolist()
        [0.4]
    """
    gaps = np.zeros((len(confidence), bins))
    gaps[np.arange(len(confidence)), bin_of(confidence, bins)] = right - confidence
    return lambda weights: _divide(np.abs(weights @ gaps).sum(1), weights.sum(1))


def bin_of(confidence: np.ndarray, bins: int) -> np.ndarray:
    """Number of the bin of equal width in [0, 1] that each confidence is in; upper edges belong to their bin."""
    return np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)


def within(statistic: Statistic, chosen: np.ndarray) -> Statistic:
    """The statistic of some cases alone.

    Args:
        statistic: of all cases.
        chosen: bool (case,).
    """
    counted = chosen.astype(np.float64)
    return lambda weights: statistic(weights * counted)


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.full(np.shape(b), np.nan), where=b > 0)
