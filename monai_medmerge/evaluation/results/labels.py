"""What a network reaches whose labels do not exclude one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from monai_medmerge.errors import DatasetError
from monai_medmerge.evaluation.bootstrap import Resampling, Statistic
from monai_medmerge.evaluation.measures import mean, within
from monai_medmerge.evaluation.results.parts import SENSITIVITIES, binary_statistics, measured, thresholds


def label_results(
    probabilities: np.ndarray,
    truth: np.ndarray,
    names: Sequence[str],
    resampling: Resampling | None = None,
    threshold: float = 0.5,
    sensitivities: Sequence[float] = SENSITIVITIES,
) -> dict[str, Any]:
    """Measures of each label against its absence, and their means (mAP, mean AUROC, macro F1), with 95 % intervals.

    Args:
        probabilities: one sigmoid a label, float (case, label).
        truth: 0 or 1, or NaN where nobody knows, (case, label).
        names: one per label.
        resampling: for the intervals.
        threshold: from which on a label is said.
        sensitivities: that thresholds are looked for.

    Raises:
        DatasetError: the arrays do not fit one another or the names, or the truth is something else.

    Example:
        >>> found = label_results(np.array([[0.9, 0.1], [0.2, 0.3]]), np.array([[1, 0], [0, 0]]), ["a", "b"])
        >>> found["absent"], found["mean_average_precision"]["value"]
        (['b'], 1.0)
    """
    truth = np.asarray(truth, np.float64)
    if probabilities.shape != truth.shape or truth.shape[1:] != (len(names),) or not len(truth):
        raise DatasetError(f"probabilities and truth (case, {len(names)})", f"{probabilities.shape} and {truth.shape}",
                           "results")  # fmt: skip
    known = ~np.isnan(truth)
    if not np.isin(truth[known], (0, 1)).all():
        raise DatasetError("a truth of 0, 1 or NaN", "other numbers", "results")
    positive, said = truth == 1, probabilities >= threshold
    present = [k for k in range(len(names)) if positive[:, k].any()]
    parts: dict[str, Statistic] = {}
    for k in present:
        for name, statistic in binary_statistics(probabilities[:, k], said[:, k], positive[:, k]).items():
            parts[f"{k}/{name}"] = within(statistic, known[:, k])
    means = {
        total: mean_of([parts[f"{k}/{name}"] for k in present])
        for total, name in (("mean_average_precision", "average_precision"), ("auroc", "auroc"), ("macro_f1", "f1"))
    }
    means["exact_match"] = mean(np.where(known.all(1), (said == positive).all(1), np.nan).astype(np.float64))
    found = measured({**means, **parts}, len(truth), resampling)
    classes = {}
    for k in present:
        own = {name.partition("/")[2]: value for name, value in found.items() if name.startswith(f"{k}/")}
        chosen = thresholds(probabilities[known[:, k], k], positive[known[:, k], k], sensitivities)
        classes[names[k]] = {"support": int(positive[:, k].sum()), **own, "thresholds": chosen}
    return {
        "task": "multi-label",
        "cases": len(truth),
        "absent": [name for k, name in enumerate(names) if k not in present],
        **{name: found[name] for name in means},
        "classes": classes,
    }


def mean_of(statistics: Sequence[Statistic]) -> Statistic:
    """Mean of the statistics that are known.

    Args:
        statistics: of each label.
    """

    def measure(weights: np.ndarray) -> np.ndarray:
        if not statistics:
            return np.full(len(weights), np.nan)
        found = np.stack([statistic(weights) for statistic in statistics])
        known = ~np.isnan(found)
        total = np.where(known, found, 0).sum(0)
        return np.divide(total, known.sum(0), out=np.full(len(total), np.nan), where=known.any(0))

    return measure
