"""What a segmentation reaches: per label, per case, by overlap, surface, volume and lesions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from monai.networks import one_hot
from scipy.ndimage import label as connected
from torch import Tensor

from monai_medmerge.errors import DatasetError
from monai_medmerge.evaluation.bootstrap import Resampling, Statistic
from monai_medmerge.evaluation.comparison.volumes import dice
from monai_medmerge.evaluation.measures import mean
from monai_medmerge.evaluation.results.parts import measured

# What is measured of each case and label, and its unit.
MEASURES = {
    "dice": "",
    "surface_distance_95": "mm",
    "normalised_surface_dice": "",
    "volume_error": "ml",
    "lesions": "",
    "lesions_found": "",
    "lesions_invented": "",
}
# Surfaces that lie no further apart agree, in millimetres.
TOLERANCE = 1.0


def segment_measures(
    prediction: Tensor,
    label: Tensor,
    classes: int,
    spacing: Sequence[float] | None = None,
    tolerance: float = TOLERANCE,
) -> dict[str, np.ndarray]:
    """Measures of every case and label but the background, of MONAI's metrics.

    Args:
        prediction: label maps, int (case, 1, *space).
        label: the truth, int (case, 1, *space).
        classes: how many there are, with the background as number 0.
        spacing: of voxels, in millimetres; 1 each if not given.
        tolerance: distance at which surfaces agree, in millimetres.

    Returns:
        Name to float (case, class - 1), NaN where it is not defined: `dice`; `surface_distance_95`, the 95th percentile
        of distances between surfaces, where both have the label; `normalised_surface_dice`; `volume_error`, prediction
        minus truth; `lesions`, connected parts of the truth, `lesions_found`, those that the prediction touches, and
        `lesions_invented`, parts of the prediction that touch none.

    Raises:
        DatasetError: as `dice`.

    Example:
        >>> import torch
        >>> truth = torch.zeros(1, 1, 8, 8); truth[..., 1:3, 1:3] = 1; truth[..., 6, 6] = 1
        >>> said = torch.zeros(1, 1, 8, 8); said[..., 1:3, 1:3] = 1; said[..., 1, 6] = 1
        >>> found = segment_measures(said, truth, 2)
        >>> [found[name].item() for name in ("lesions", "lesions_found", "lesions_invented")]
        [2.0, 1.0, 1.0]
    """
    axes = prediction.ndim - 2
    spacing = tuple(float(step) for step in (spacing or (1.0,) * axes))
    if len(spacing) != axes or min(spacing) <= 0:
        raise DatasetError(f"{axes} positive spacings", str(spacing), "spacing")
    found = {"dice": dice(prediction, label, classes)}
    maps = [one_hot(part.as_subclass(Tensor).long().cpu(), classes) for part in (prediction, label)]
    present = [part[:, 1:].flatten(2).any(2).numpy() for part in maps]
    both = present[0] & present[1]
    shape = both.shape
    distances, surfaces = np.full(shape, np.nan), np.full(shape, np.nan)
    # MONAI warns of every label that is absent; only those that both have are measured.
    for case, k in zip(*np.nonzero(both), strict=True):
        pair = [part[case : case + 1, k + 1 : k + 2] for part in maps]
        options = {"include_background": True, "spacing": list(spacing)}
        distances[case, k] = compute_hausdorff_distance(*pair, percentile=95, **options).item()
        surfaces[case, k] = compute_surface_dice(*pair, class_thresholds=[tolerance], **options).item()
    surfaces[present[0] ^ present[1]] = 0
    found["surface_distance_95"], found["normalised_surface_dice"] = distances, surfaces
    voxel = float(np.prod(spacing)) / 1000
    volumes = [part[:, 1:].flatten(2).sum(2).double().numpy() * voxel for part in maps]
    found["volume_error"] = np.where(present[0] | present[1], volumes[0] - volumes[1], np.nan)
    counts = np.stack([[_lesions(maps[0][n, k], maps[1][n, k]) for k in range(1, classes)] for n in range(len(label))])
    for n, name in enumerate(("lesions", "lesions_found", "lesions_invented")):
        found[name] = counts[..., n].astype(np.float64)
    return found


def segment_results(
    measures: dict[str, np.ndarray],
    class_names: Sequence[str],
    names: Sequence[str] | None = None,
    resampling: Resampling | None = None,
) -> dict[str, Any]:
    """Means over cases with 95 % intervals, of all labels and of each; and every case by itself.

    Args:
        measures: from `segment_measures`, of all cases.
        class_names: without the background.
        names: what to call the cases; `case 0`, ... if not given.
        resampling: for the intervals.

    Raises:
        DatasetError: names and measures do not fit one another.

    Example:
        >>> found = segment_results({"dice": np.array([[0.8, np.nan], [0.6, np.nan]])}, ["liver", "spleen"])
        >>> found["dice"]["value"], found["absent"]
        (0.7, ['spleen'])
    """
    cases, count = measures["dice"].shape
    if count != len(class_names):
        raise DatasetError(f"{count} class names without the background", f"{len(class_names)}", "class_names")
    overlap = measures["dice"]
    known = ~np.isnan(overlap)
    means = np.divide(np.where(known, overlap, 0).sum(1), known.sum(1), out=np.full(cases, np.nan), where=known.any(1))
    statistics: dict[str, Statistic] = {"dice": mean(means)}
    present = [k for k in range(count) if known[:, k].any()]
    for k in present:
        for name, values in measures.items():
            statistics[f"{k}/{name}"] = mean(values[:, k])
    found = measured(statistics, cases, resampling)
    classes = {}
    for k in present:
        own = {name.partition("/")[2]: value for name, value in found.items() if name.startswith(f"{k}/")}
        totals = {f"total_{n}": int(measures[n][:, k].sum()) for n in measures if n.startswith("lesions")}
        classes[class_names[k]] = {"support": int(known[:, k].sum()), **own, **totals}
    names = names or [f"case {n}" for n in range(cases)]
    return {
        "task": "segmentation",
        "cases": cases,
        "absent": [name for k, name in enumerate(class_names) if k not in present],
        "dice": found["dice"],
        "classes": classes,
        "by_case": [
            {
                "name": names[n],
                "labels": {
                    class_names[k]: {name: _number(values[n, k]) for name, values in measures.items()} for k in present
                },
            }
            for n in range(cases)
        ],
    }


def _lesions(said: Tensor, truth: Tensor) -> tuple[int, int, int]:
    """Connected parts of the truth, those that are touched, and parts of the prediction that touch none."""
    said_parts, invented = connected(said.numpy() > 0, np.ones((3,) * said.ndim))
    true_parts, count = connected(truth.numpy() > 0, np.ones((3,) * truth.ndim))
    meeting = (said_parts > 0) & (true_parts > 0)
    return count, len(np.unique(true_parts[meeting])), invented - len(np.unique(said_parts[meeting]))


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def stacked(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Measures of several batches as those of one.

    Args:
        parts: from `segment_measures`.
    """
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
