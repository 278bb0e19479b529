"""What a network reaches whose classes are grades: near misses count less."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from monai_medmerge.evaluation.bootstrap import Resampling
from monai_medmerge.evaluation.measures import mean, weighted_kappa
from monai_medmerge.evaluation.results.classes import class_results
from monai_medmerge.evaluation.results.parts import SENSITIVITIES, measured


def grade_results(
    probabilities: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    resampling: Resampling | None = None,
    sensitivities: Sequence[float] = SENSITIVITIES,
) -> dict[str, Any]:
    """As `class_results`, with quadratic kappa, mean distance in grades, and the share within one grade.

    Args:
        probabilities: float (case, grade).
        labels: grades, int (case,).
        class_names: one per grade, in their order.
        resampling: for the intervals.
        sensitivities: that thresholds are looked for.

    Raises:
        DatasetError: as `class_results`.

    Example:
        >>> found = grade_results(np.eye(3)[[0, 1, 2, 1]], np.array([0, 1, 2, 2]), ["none", "mild", "severe"])
        >>> found["grade_distance"]["value"], found["within_one_grade"]["value"]
        (0.25, 1.0)
    """
    found = class_results(probabilities, labels, class_names, resampling, sensitivities)
    said = probabilities.argmax(1)
    away = np.abs(said - labels).astype(np.float64)
    statistics = {
        "quadratic_kappa": weighted_kappa(said, labels, len(class_names)),
        "grade_distance": mean(away),
        "within_one_grade": mean(away <= 1),
    }
    return {**found, "task": "ordinal", **measured(statistics, len(labels), resampling)}
