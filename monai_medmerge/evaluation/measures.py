"""Measures as statistics: functions from how often each case counts to a value, for the bootstrap.

Every function here returns a `Statistic`, from weights (sample, case) to values (sample,). A value is NaN where no
case counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from monai_medmerge.evaluation.bootstrap import Statistic, count_cells, mean_f1_of_counts


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
    counts = count_cells(predictions, labels, classes)
    return lambda weights: mean_f1_of_counts(counts(weights), over)


def balanced_accuracy(predictions: np.ndarray, labels: np.ndarray, classes: int) -> Statistic:
    """Mean of the recall over the classes that occur.

    Args:
        predictions: class numbers, int (case,).
        labels: class numbers, int (case,).
        classes: how many there are.

    Example:
        >>> balanced_accuracy(np.array([0, 0, 0]), np.array([0, 0, 1]), 3)(np.ones((1, 3))).tolist()
        [0.5]
    """
    counts = count_cells(predictions, labels, classes)

    def measure(weights: np.ndarray) -> np.ndarray:
        found = counts(weights)
        recall = _divide(np.diagonal(found, axis1=1, axis2=2), found.sum(2))
        known = ~np.isnan(recall)
        return _divide(np.where(known, recall, 0).sum(1), known.sum(1).astype(np.float64))

    return measure


def weighted_kappa(predictions: np.ndarray, labels: np.ndarray, classes: int) -> Statistic:
    """Cohen's kappa with quadratic weights, ``1 - sum(w O) / sum(w E)`` with ``w[i, j] = (i - j) ** 2``, for grades.

    Cohen, Psychological Bulletin 70 (1968), doi 10.1037/h0026256.

    Args:
        predictions: grades, int (case,).
        labels: grades, int (case,).
        classes: how many there are.

    Example:
        >>> weighted_kappa(np.array([0, 1, 2]), np.array([0, 1, 2]), 3)(np.ones((1, 3))).tolist()
        [1.0]
    """
    counts = count_cells(predictions, labels, classes)
    distances = (np.arange(classes)[:, None] - np.arange(classes)) ** 2.0

    def measure(weights: np.ndarray) -> np.ndarray:
        found = counts(weights)
        expected = found.sum(2)[:, :, None] * found.sum(1)[:, None, :]
        disagreed = (expected * distances).sum((1, 2))
        return 1 - _divide((found * distances).sum((1, 2)) * found.sum((1, 2)), disagreed)

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
    ranked = _ranked(scores, positive)

    def measure(weights: np.ndarray) -> np.ndarray:
        positives, negatives = ranked(weights)
        beaten = np.cumsum(negatives, axis=1)
        total = positives.sum(1) * beaten[:, -1]
        # Of its own tie, a positive case beats half.
        beaten -= negatives / 2
        return _divide(np.einsum("sg,sg->s", positives, beaten), total)

    return measure


def average_precision(scores: np.ndarray, positive: np.ndarray) -> Statistic:
    """Average precision: ``sum over thresholds of (R_n - R_(n-1)) P_n``, from the highest score down.

    Args:
        scores: float (case,).
        positive: bool (case,).

    Example:
        >>> average_precision(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))(np.ones((1, 4)))
        array([0.83333333])
    """
    ranked = _ranked(-scores, positive)

    def measure(weights: np.ndarray) -> np.ndarray:
        positives, negatives = ranked(weights)
        hits = np.cumsum(positives, axis=1)
        said = np.cumsum(negatives, axis=1)
        said += hits
        precision = np.divide(hits, said, out=np.zeros_like(hits), where=said > 0)
        return _divide(np.einsum("sg,sg->s", positives, precision), hits[:, -1])

    return measure


def _ranked(scores: np.ndarray, positive: np.ndarray) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """From weights (sample, case) to those of positive and of negative cases, (sample, score), by rising score."""
    order = np.argsort(scores, kind="stable")
    ordered, is_positive = scores[order], positive[order].astype(np.float64)
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    tied = len(starts) < len(order)

    def rank(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        every = weights[:, order]
        positives = every * is_positive
        every -= positives
        if not tied:
            return positives, every
        return np.add.reduceat(positives, starts, axis=1), np.add.reduceat(every, starts, axis=1)

    return rank


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
