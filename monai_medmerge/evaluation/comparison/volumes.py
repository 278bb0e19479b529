"""Two networks' label maps beside the truth: Dice per case and class, and the cases that became clearly worse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from monai.metrics import compute_dice
from monai.networks import one_hot
from torch import Tensor

from monai_medmerge.errors import DatasetError
from monai_medmerge.evaluation.bootstrap import Resampling, estimate
from monai_medmerge.evaluation.comparison.cases import ALL, CLASS, check_groups
from monai_medmerge.evaluation.comparison.paired import paired_tests
from monai_medmerge.evaluation.comparison.rows import (
    SEGMENTATION,
    Case,
    Comparison,
    Wanted,
    group_rows,
    make_rows,
    small_groups,
)
from monai_medmerge.evaluation.measures import mean

# A case whose mean Dice changes by more than this has become worse, or better.
DROP = 0.05


def dice(prediction: Tensor, label: Tensor, classes: int) -> np.ndarray:
    """Dice of each case and class but the background, by MONAI's `compute_dice`.

    Args:
        prediction: label maps, int (case, 1, *space).
        label: the truth, int (case, 1, *space).
        classes: how many there are, with the background as number 0.

    Returns:
        Float (case, class - 1); NaN where the truth has nothing of the class and neither has the prediction, 0 where
        the prediction has.

    Raises:
        DatasetError: the truth has a number that is no class, such as 255 for voxels to be ignored.

    Example:
        >>> truth = torch.tensor([[[[0, 1, 1, 2]]]])
        >>> dice(torch.tensor([[[[0, 1, 2, 2]]]]), truth, 3).round(3).tolist()
        [[0.667, 0.667]]
    """
    label = label.as_subclass(Tensor)
    if len(strange := label[~((label >= 0) & (label < classes))]):
        raise DatasetError(f"labels from 0 to {classes - 1}", f"{strange[0].item():g} among them", "label")
    maps = [one_hot(found.long(), classes) for found in (prediction, label)]
    found = compute_dice(*maps, include_background=False, ignore_empty=False)
    empty = torch.stack([encoded[:, 1:].flatten(2).sum(2) == 0 for encoded in maps]).all(0)
    return np.where(empty.cpu().numpy(), np.nan, found.cpu().double().numpy())


def compare_dice(
    reference: np.ndarray,
    candidate: np.ndarray,
    agreement: np.ndarray,
    class_names: Sequence[str],
    columns: Mapping[str, Sequence[str]] | None = None,
    names: Sequence[str] | None = None,
    resampling: Resampling | None = None,
    drop: float = DROP,
    more: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
) -> Comparison:
    """Compare the Dice values of two networks for the same cases.

    Both are measured on the same cases and classes. Where the truth has nothing of a class and only one of the two
    finds something, the other is right and has Dice 1, so that inventing a lesion is a loss; where neither does, there
    is nothing to measure. A negative flip is a case whose Dice, averaged over these classes, falls by more than `drop`.

    Args:
        reference: of the network in use, float (case, class), NaN where a class is absent.
        candidate: of the network that may replace it.
        agreement: Dice of one prediction to the other, float (case, class).
        class_names: without the background.
        columns: name of a division of the cases to the group that each is in.
        names: what to call the cases.
        resampling: for the intervals.
        drop: in Dice.
        more: other measures of each case and class, of reference and candidate, float (case, class).

    Raises:
        DatasetError: arrays do not fit one another or the classes.
        SettingError: there is no case, or a column has too many groups.

    Example:
        >>> before = np.full((50, 1), 0.8)
        >>> compare_dice(before, before - 0.1, before, ["tumour"]).negative_flips.value
        1.0
    """
    for name, found in (("reference", reference), ("candidate", candidate), ("agreement", agreement)):
        if found.shape != (len(reference), len(class_names)):
            raise DatasetError(f"Dice values {(len(reference), len(class_names))}", f"{found.shape}", name)
    columns, resampling = columns or {}, resampling or Resampling()
    check_groups(columns)
    names = names or [f"case {n}" for n in range(len(reference))]
    equal = np.array_equal(reference, candidate, equal_nan=True) and bool(
        (np.isnan(agreement) | (agreement == 1)).all()
    )
    reference, candidate = _paired(reference, candidate)
    before, now, alike = (_row_means(found) for found in (reference, candidate, agreement))
    overall, known = (mean(before), mean(now)), ~np.isnan(before)
    wanted: list[Wanted] = [((ALL, "", "Dice", known), overall)]
    for k, name in enumerate(class_names):
        pair = mean(reference[:, k]), mean(candidate[:, k])
        if not np.isnan(reference[:, k]).all():
            wanted.append(((CLASS, name, "Dice", ~np.isnan(reference[:, k])), pair))
    for measure, both in (more or {}).items():
        for k, name in enumerate(class_names):
            # Only where it is defined of both is it one measure of the same cases.
            among = ~np.isnan(both[0][:, k]) & ~np.isnan(both[1][:, k])
            if among.any():
                pair = mean(both[0][:, k], among), mean(both[1][:, k], among)
                wanted.append(((CLASS, name, measure, among), pair))
    wanted += group_rows({"Dice": overall}, columns, known)
    # Nothing to find and nothing found by either: no change.
    change = np.nan_to_num(now - before)
    flips = change < -drop
    shares = [mean(flips), mean(change > drop), mean(alike)]
    negative, positive, agreed = estimate(shares, len(before), resampling)
    own = {
        name: candidate[:, k] - reference[:, k]
        for k, name in enumerate(class_names)
        if not np.isnan(reference[:, k]).all()
    }

    def describe(chosen: np.ndarray) -> tuple[Case, ...]:
        told = np.flatnonzero(chosen).tolist()
        return tuple(Case(names[n], "", f"{before[n]:.3f}", f"{now[n]:.3f}", float("nan")) for n in told)

    return Comparison(
        task=SEGMENTATION,
        class_names=tuple(class_names),
        cases=len(before),
        units=resampling.count(np.ones(len(before), bool)),
        rows=make_rows(wanted, len(before), resampling),
        negative_flips=negative,
        positive_flips=positive,
        agreement=agreed,
        kappa=float("nan"),
        flipped=describe(flips),
        gained=describe(change > drop),
        tests=paired_tests({"": now - before, **own}, resampling, ranked=True),
        equal=equal,
        absent=tuple(name for k, name in enumerate(class_names) if np.isnan(reference[:, k]).all()),
        hidden=small_groups(columns),
    )


def _paired(reference: np.ndarray, candidate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Dice 1 for the one that rightly finds nothing where the other finds something."""
    absent = np.isnan(reference), np.isnan(candidate)
    return np.where(absent[0] & ~absent[1], 1.0, reference), np.where(absent[1] & ~absent[0], 1.0, candidate)


def _row_means(values: np.ndarray) -> np.ndarray:
    """Mean over the classes that a case has; NaN where it has none."""
    known = ~np.isnan(values)
    return np.divide(
        np.where(known, values, 0).sum(1), known.sum(1), out=np.full(len(values), np.nan), where=known.any(1)
    )
