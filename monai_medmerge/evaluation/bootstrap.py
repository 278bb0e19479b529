"""Macro F1 and the interval within which it may lie: a bootstrap over test cases."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


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


def macro_f1_of_counts(counts: Float[np.ndarray, "*sample label prediction"]) -> np.ndarray:
    """Mean over classes of ``2 TP / (2 TP + FP + FN)``; a class that neither occurs nor is predicted counts as 0.

    Args:
        counts: one or many confusion matrices (..., label, prediction).

    Example:
        >>> round(float(macro_f1_of_counts(np.array([[1, 1], [0, 1]]))), 4)
        0.6667
    """
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    total = counts.sum(-1) + counts.sum(-2)
    return np.divide(2.0 * hits, total, out=np.zeros(hits.shape), where=total > 0).mean(-1)


def macro_f1(predictions: Int[np.ndarray, " case"], labels: Int[np.ndarray, " case"], classes: int) -> float:
    """Macro F1 of class predictions.

    Args:
        predictions: class numbers, int (case,).
        labels: class numbers, int (case,).
        classes: how many there are.

    Example:
        >>> macro_f1(np.array([0, 1, 2]), np.array([0, 1, 2]), 3)
        1.0
    """
    return float(macro_f1_of_counts(confusion(predictions, labels, classes)))


def bootstrap_interval(
    predictions: Int[np.ndarray, " case"],
    labels: Int[np.ndarray, " case"],
    classes: int,
    reference: Int[np.ndarray, " case"] | None = None,
    level: float = 0.95,
    samples: int = 2000,
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
        Lower and upper bound. Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.

    Example:
        >>> bootstrap_interval(np.array([0, 1, 0, 1]), np.array([0, 1, 0, 1]), 2, reference=np.array([0, 1, 0, 1]))
        (0.0, 0.0)
    """
    cases = len(labels)
    # Resampling cases is drawing how often each occurs; a matrix product then counts all samples at once.
    draws = np.random.default_rng(seed).multinomial(cases, np.full(cases, 1 / cases), size=samples).astype(np.float64)

    def scores(predicted: np.ndarray) -> np.ndarray:
        cells = np.zeros((cases, classes**2))
        cells[np.arange(cases), labels * classes + predicted] = 1
        return macro_f1_of_counts((draws @ cells).reshape(samples, classes, classes))

    values = scores(predictions) - (scores(reference) if reference is not None else 0)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
