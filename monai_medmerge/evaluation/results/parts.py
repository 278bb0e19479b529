"""What results of every kind share: measures of one class against the rest, thresholds, estimates in plain types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest

from monai_medmerge.evaluation.bootstrap import Estimate, Resampling, Statistic, estimate
from monai_medmerge.evaluation.measures import area_under_curve, average_precision, calibration_error, mean

# Sensitivities that thresholds are looked for.
SENSITIVITIES = (0.9, 0.95)


def binary_statistics(scores: np.ndarray, said: np.ndarray, positive: np.ndarray) -> dict[str, Statistic]:
    """Measures of one class against the rest.

    Args:
        scores: probabilities of the class, float (case,).
        said: whether the network says it, bool (case,).
        positive: whether it is the truth, bool (case,).
    """
    known = np.ones(len(scores), bool)
    return {
        "recall": mean(said, positive),
        "specificity": mean(~said, ~positive),
        "precision": mean(positive, said),
        "f1": _f1(said, positive),
        "auroc": area_under_curve(scores, positive),
        "average_precision": average_precision(scores, positive),
        "calibration_error": calibration_error(scores, positive & known),
    }


def _f1(said: np.ndarray, positive: np.ndarray) -> Statistic:
    hits, named = (said & positive).astype(np.float64), said.astype(np.float64) + positive

    def measure(weights: np.ndarray) -> np.ndarray:
        total = weights @ named
        return np.divide(2 * (weights @ hits), total, out=np.full(len(total), np.nan), where=total > 0)

    return measure


def measured(
    statistics: Mapping[str, Statistic], cases: int, resampling: Resampling | None
) -> dict[str, dict[str, float | None]]:
    """Every statistic with its interval, in plain types.

    Args:
        statistics: name to statistic.
        cases: how many there are.
        resampling: how they are drawn.
    """
    found = estimate(list(statistics.values()), cases, resampling)
    return {name: value.as_dict() for name, value in zip(statistics, found, strict=True)}


def widened(found: dict[str, Any], hits: int, cases: int) -> dict[str, Any]:
    """A share whose bootstrap has no width, because it is 0 or 1, with the interval of Wilson.

    Wilson, JASA 22 (1927), doi 10.1080/01621459.1927.10502953.

    Args:
        found: the share, in plain types.
        hits: how often it happened.
        cases: of how many independent ones.

    Example:
        >>> widened({"value": 1.0, "low": 1.0, "high": 1.0}, 5, 5)["low"].__round__(3)
        0.566
    """
    if cases and hits in (0, cases):
        interval = binomtest(hits, cases).proportion_ci(0.95, "wilson")
        return {**found, "low": float(interval.low), "high": float(interval.high)}
    return found


def thresholds(scores: np.ndarray, positive: np.ndarray, wanted: Sequence[float] = SENSITIVITIES) -> list[Any]:
    """For each wanted sensitivity the highest threshold that reaches it, and what it costs.

    Found on the very cases that it is measured on: choose it on others than those that it is judged on.

    Args:
        scores: probabilities of the class, float (case,).
        positive: bool (case,).
        wanted: sensitivities, from 0 to 1.

    Returns:
        Dictionaries with `wanted`, `threshold` (a case with at least this score is called positive), `sensitivity`,
        `specificity` and `precision`; none where there is no positive case.

    Example:
        >>> thresholds(np.array([0.9, 0.6, 0.4, 0.2]), np.array([True, False, True, False]), [0.9])[0]["threshold"]
        0.4
    """
    ranked = np.sort(scores[positive])[::-1]
    found = []
    for share in wanted if len(ranked) else ():
        at = float(ranked[max(int(np.ceil(share * len(ranked) - 1e-9)), 1) - 1])
        said = scores >= at
        shares = (said[positive], ~said[~positive], positive[said])
        values = [float(part.mean()) if len(part) else None for part in shares]
        names = ("sensitivity", "specificity", "precision")
        found.append({"wanted": float(share), "threshold": at, **dict(zip(names, values, strict=True))})
    return found


def one_line(name: str, found: Mapping[str, Any], measures: Sequence[str]) -> str:
    """A class in one line of a log.

    Args:
        name: of the class.
        found: its measures, in plain types.
        measures: which to show.

    Example:
        >>> one_line("cyst", {"support": 3, "recall": {"value": 0.5, "low": 0.1, "high": 0.9}}, ["recall"])
        'cyst: recall 0.500 (0.100 to 0.900), 3 cases'
    """
    parts = []
    for measure in measures:
        value = found.get(measure) or {}
        if value.get("value") is not None:
            bounds = [float("nan") if value[key] is None else value[key] for key in ("value", "low", "high")]
            parts.append(f"{measure.replace('_', ' ')} {Estimate(*bounds)}")
    return f"{name}: {', '.join(parts)}, {found.get('support', found.get('cases'))} cases"
