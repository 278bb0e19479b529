"""What a classifier reaches, class by class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from monai_medmerge.errors import DatasetError
from monai_medmerge.evaluation.bootstrap import Resampling, confusion
from monai_medmerge.evaluation.measures import (
    balanced_accuracy,
    calibration_error,
    mean,
    mean_area_under_curve,
    mean_f1,
)
from monai_medmerge.evaluation.results.parts import SENSITIVITIES, binary_statistics, measured, thresholds, widened


def class_results(
    probabilities: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    resampling: Resampling | None = None,
    sensitivities: Sequence[float] = SENSITIVITIES,
) -> dict[str, Any]:
    """Measures of all cases and of each class that occurs, with 95 % intervals, in plain types.

    Of each class against the rest: recall, specificity, precision, F1, area under the ROC curve, average precision,
    calibration error (15 bins), thresholds for wanted sensitivities and support. A class without a case is named under
    `absent` and takes part in no mean.

    Args:
        probabilities: float (case, class).
        labels: class numbers, int (case,).
        class_names: one per class.
        resampling: for the intervals.
        sensitivities: that thresholds are looked for.

    Raises:
        DatasetError: the arrays do not fit one another or the names.

    Example:
        >>> found = class_results(np.eye(3)[[0, 0, 1, 0]], np.array([0, 0, 1, 1]), ["a", "b", "c"])
        >>> found["absent"], found["classes"]["b"]["recall"]["value"], found["confusion"][1]
        (['c'], 0.5, [1, 1, 0])
    """
    count = len(class_names)
    if probabilities.shape != (len(labels), count) or not len(labels):
        raise DatasetError(
            f"probabilities {(len(labels), count)} of at least one case", f"{probabilities.shape}", "results"
        )
    said, resampling = probabilities.argmax(1), resampling or Resampling()
    present = [k for k in range(count) if (labels == k).any()]
    statistics = {
        "macro_f1": mean_f1(said, labels, count),
        "accuracy": mean(said == labels),
        "balanced_accuracy": balanced_accuracy(said, labels, count),
        "auroc": mean_area_under_curve(probabilities, labels),
        "calibration_error": calibration_error(probabilities.max(1), said == labels),
    }
    of_class = {
        f"{k}/{name}": statistic
        for k in present
        for name, statistic in binary_statistics(probabilities[:, k], said == k, labels == k).items()
    }
    found = measured({**statistics, **of_class}, len(labels), resampling)
    classes = {}
    for k in present:
        positive = labels == k
        own = {name.partition("/")[2]: value for name, value in found.items() if name.startswith(f"{k}/")}
        if resampling.groups is None:
            own["recall"] = widened(own["recall"], int((said[positive] == k).sum()), int(positive.sum()))
        chosen = thresholds(probabilities[:, k], positive, sensitivities)
        classes[class_names[k]] = {"support": int(positive.sum()), **own, "thresholds": chosen}
    return {
        "task": "classification",
        "cases": len(labels),
        "absent": [name for k, name in enumerate(class_names) if k not in present],
        **{name: found[name] for name in statistics},
        "classes": classes,
        "confusion": confusion(said, labels, count).tolist(),
    }
