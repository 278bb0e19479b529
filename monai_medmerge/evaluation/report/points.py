"""Points of the curves that results are shown as: ROC, precision and recall, calibration, net benefit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from monai.utils import optional_import

metrics, _ = optional_import("sklearn.metrics", descriptor="pip install 'monai_medmerge[report]': {}")

# A curve of thousands of steps looks the same with so many points.
_MOST = 300
# Threshold probabilities that a decision may rest on.
_CHOICES = np.linspace(0.01, 0.99, 99)
_BINS = 10

Curve = tuple[np.ndarray, np.ndarray]


def roc_points(scores: np.ndarray, positive: np.ndarray) -> Curve:
    """False positive rate and sensitivity, from scikit-learn's `roc_curve`.

    Args:
        scores: probabilities of the class, float (case,).
        positive: bool (case,), with cases of both kinds.

    Example:
        >>> [axis.tolist() for axis in roc_points(np.array([0.1, 0.9]), np.array([False, True]))]
        [[0.0, 0.0, 1.0], [0.0, 1.0, 1.0]]
    """
    false, true, _ = metrics.roc_curve(positive, scores)
    return _thinned(false, true)


def precision_points(scores: np.ndarray, positive: np.ndarray) -> Curve:
    """Recall and precision, from scikit-learn's `precision_recall_curve`.

    Args:
        scores: probabilities of the class, float (case,).
        positive: bool (case,), with a positive case.
    """
    precision, recall, _ = metrics.precision_recall_curve(positive, scores)
    return _thinned(recall[::-1], precision[::-1])


def calibration_points(scores: np.ndarray, positive: np.ndarray, bins: int = _BINS) -> Curve:
    """Mean probability and share of positive cases, in bins of equally many cases.

    Args:
        scores: probabilities of the class, float (case,).
        positive: bool (case,).
        bins: at most.

    Example:
        >>> found = calibration_points(np.array([0.1, 0.1, 0.9, 0.9]), np.array([False, False, False, True]), 2)
        >>> [axis.tolist() for axis in found]
        [[0.1, 0.9], [0.0, 0.5]]
    """
    parts = np.array_split(np.argsort(scores, kind="stable"), min(bins, len(scores)))
    return np.array([scores[part].mean() for part in parts]), np.array([positive[part].mean() for part in parts])


def net_benefit(scores: np.ndarray, positive: np.ndarray) -> Mapping[str, Curve]:
    """What acting on a probability gains: ``TP / n - FP / n * t / (1 - t)``, beside acting on everybody.

    Vickers and Elkin, "Decision curve analysis", Medical Decision Making 26 (2006), doi 10.1177/0272989X06295361.

    Args:
        scores: probabilities of the class, float (case,).
        positive: bool (case,).

    Returns:
        `network` and `everybody`, each threshold probabilities t and net benefit; acting on nobody gains 0.

    Example:
        >>> found = net_benefit(np.array([0.1, 0.9]), np.array([False, True]))["network"]
        >>> found[1][49].item()
        0.5
    """
    odds = _CHOICES / (1 - _CHOICES)
    ranks = np.sort(scores)
    hits = np.sort(scores[positive])
    said = len(ranks) - np.searchsorted(ranks, _CHOICES, side="left")
    true = len(hits) - np.searchsorted(hits, _CHOICES, side="left")
    cases = len(scores)
    share = positive.mean()
    return {
        "network": (_CHOICES, true / cases - (said - true) / cases * odds),
        "everybody": (_CHOICES, share - (1 - share) * odds),
    }


def _thinned(x: np.ndarray, y: np.ndarray) -> Curve:
    if len(x) <= _MOST:
        return x, y
    kept = np.unique(np.linspace(0, len(x) - 1, _MOST).round().astype(int))
    return x[kept], y[kept]
