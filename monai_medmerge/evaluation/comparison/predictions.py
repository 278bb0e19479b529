"""Is the candidate better than what is in use, where is it worse, and for whom? From the probabilities of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from monai_medmerge.errors import DatasetError
from monai_medmerge.evaluation.bootstrap import Resampling, Statistic, confusion, estimate
from monai_medmerge.evaluation.comparison.cases import ALL, CLASS, check_groups
from monai_medmerge.evaluation.comparison.paired import paired_tests
from monai_medmerge.evaluation.comparison.rows import (
    CALIBRATION,
    CLASSIFICATION,
    CONFIDENT_ERRORS,
    EQUAL,
    GRADE_DISTANCE,
    Case,
    Comparison,
    Row,
    Wanted,
    group_rows,
    make_rows,
    small_groups,
)
from monai_medmerge.evaluation.measures import (
    balanced_accuracy,
    calibration_error,
    mean,
    mean_area_under_curve,
    mean_f1,
    weighted_kappa,
)
from monai_medmerge.evaluation.reliability import calibration, confident_errors
from monai_medmerge.evaluation.results.parts import binary_statistics, thresholds

# What is measured of each class, as rows call it.
OF_CLASS = {
    "recall": "recall",
    "precision": "precision",
    "f1": "F1",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "calibration_error": CALIBRATION,
}


def compare_predictions(
    reference: np.ndarray,
    candidate: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    columns: Mapping[str, Sequence[str]] | None = None,
    names: Sequence[str] | None = None,
    resampling: Resampling | None = None,
    ordinal: bool = False,
) -> Comparison:
    """Compare the class probabilities of two networks for the same cases.

    Args:
        reference: of the network in use, float (case, class).
        candidate: of the network that may replace it, float (case, class).
        labels: class numbers, int (case,).
        class_names: one per class.
        columns: name of a division of the cases to the group that each is in.
        names: what to call the cases; `case 0`, ... if not given.
        resampling: for the intervals; give it patients as groups where there are several images of one.
        ordinal: whether classes are grades in their order, whose near misses count less.

    Raises:
        DatasetError: arrays do not fit one another or the classes, or are no probabilities.
        SettingError: there is no case, or a column has too many groups.

    Example:
        >>> labels = np.array([0, 1] * 50)
        >>> good = np.where(labels[:, None] == [0, 1], 0.8, 0.2)
        >>> worse = good.copy()
        >>> worse[:6] = worse[:6, ::-1]
        >>> found = compare_predictions(good, worse, labels, ["benign", "malignant"])
        >>> found.negative_flips.value, [case.name for case in found.flipped][:2]
        (0.06, ['case 0', 'case 1'])
    """
    _check(reference, candidate, labels, len(class_names))
    columns, resampling = columns or {}, resampling or Resampling()
    check_groups(columns)
    names = names or [f"case {n}" for n in range(len(labels))]
    before, now = reference.argmax(1), candidate.argmax(1)
    flips = (before == labels) & (now != labels)
    shares = [mean(flips), mean((before != labels) & (now == labels)), mean(before == now)]
    negative, positive, agreement = estimate(shares, len(labels), resampling)

    def describe(chosen: np.ndarray) -> tuple[Case, ...]:
        return tuple(
            Case(
                name=names[n],
                label=class_names[labels[n]],
                reference=class_names[before[n]],
                candidate=class_names[now[n]],
                confidence=float(candidate[n].max()),
            )
            for n in np.flatnonzero(chosen).tolist()
        )

    return Comparison(
        task=CLASSIFICATION,
        class_names=tuple(class_names),
        cases=len(labels),
        units=resampling.count(np.ones(len(labels), bool)),
        rows=_rows((reference, candidate), labels, class_names, columns, resampling, ordinal),
        negative_flips=negative,
        positive_flips=positive,
        agreement=agreement,
        kappa=cohens_kappa(before, now, len(class_names)),
        flipped=describe(flips),
        gained=describe((before != labels) & (now == labels)),
        tests=paired_tests(_changes(before == labels, now == labels, labels, class_names), resampling),
        confident_errors=describe(confident_errors(candidate, labels)),
        confusion={"reference": _table(before, labels, class_names), "candidate": _table(now, labels, class_names)},
        thresholds={
            name: thresholds(candidate[:, k], labels == k) for k, name in enumerate(class_names) if (labels == k).any()
        },
        absent=tuple(name for k, name in enumerate(class_names) if not (labels == k).any()),
        hidden=small_groups(columns),
        scores=(reference, candidate, labels),
        calibration={
            name: calibration(found, labels, resampling)
            for name, found in (("reference", reference), ("candidate", candidate))
        },
        equal=bool(np.allclose(reference, candidate, rtol=0, atol=EQUAL)),
    )


def _changes(
    before: np.ndarray, now: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> dict[str, np.ndarray]:
    """Candidate minus reference, of all cases and of those of each class."""
    change = now.astype(np.float64) - before
    own = {name: np.where(labels == k, change, np.nan) for k, name in enumerate(class_names) if (labels == k).any()}
    return {"": change, **own}


def _table(said: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> list[list[int]]:
    found: list[list[int]] = confusion(said, labels, len(class_names)).tolist()
    return found


def cohens_kappa(first: np.ndarray, second: np.ndarray, classes: int) -> float:
    """Agreement beyond chance, ``(p - e) / (1 - e)``; 1 where both always say the same one class.

    Args:
        first: class numbers, int (case,).
        second: class numbers, int (case,).
        classes: how many there are.

    Example:
        >>> cohens_kappa(np.array([0, 1, 0, 1]), np.array([0, 1, 1, 0]), 2)
        0.0
    """
    observed = float((first == second).mean())
    shares = [np.bincount(found, minlength=classes) / len(found) for found in (first, second)]
    expected = float(shares[0] @ shares[1])
    return 1.0 if expected == 1 else (observed - expected) / (1 - expected)


def _rows(
    both: tuple[np.ndarray, np.ndarray],
    labels: np.ndarray,
    class_names: Sequence[str],
    columns: Mapping[str, Sequence[str]],
    resampling: Resampling,
    ordinal: bool = False,
) -> tuple[Row, ...]:
    everything, classes = np.ones(len(labels), bool), len(class_names)
    first, second = (found.argmax(1) for found in both)

    def pair(function: Any, *arguments: Any, **options: Any) -> tuple[Statistic, Statistic]:
        return function(first, *arguments, **options), function(second, *arguments, **options)

    right = (mean(first == labels), mean(second == labels))
    wanted: list[Wanted] = [
        ((ALL, "", "macro F1", everything), pair(mean_f1, labels, classes)),
        ((ALL, "", "accuracy", everything), right),
        ((ALL, "", "balanced accuracy", everything), pair(balanced_accuracy, labels, classes)),
        (
            (ALL, "", "AUC", everything),
            (mean_area_under_curve(both[0], labels), mean_area_under_curve(both[1], labels)),
        ),
    ]
    sure = [(found.max(1), found.argmax(1) == labels) for found in both]
    errors = [confident_errors(found, labels) for found in both]
    wanted += [
        ((ALL, "", CALIBRATION, everything), (calibration_error(*sure[0]), calibration_error(*sure[1]))),
        ((ALL, "", CONFIDENT_ERRORS, everything), (mean(errors[0]), mean(errors[1]))),
    ]
    if ordinal:
        away = [np.abs(found - labels).astype(np.float64) for found in (first, second)]
        wanted += [
            ((ALL, "", "quadratic kappa", everything), pair(weighted_kappa, labels, classes)),
            ((ALL, "", GRADE_DISTANCE, everything), (mean(away[0]), mean(away[1]))),
        ]
    for k, name in enumerate(class_names):
        among = labels == k
        if not among.any():
            continue
        parts = [binary_statistics(scores[:, k], scores.argmax(1) == k, among) for scores in both]
        wanted += [((CLASS, name, shown, among), (parts[0][key], parts[1][key])) for key, shown in OF_CLASS.items()]
    for column, values in columns.items():
        groups = np.array([str(value) for value in values])
        for value in sorted(set(groups.tolist())):
            # A class that a group has no case of would count as 0 in its mean.
            occurring = np.unique(labels[groups == value]).tolist()
            measures = {"macro F1": pair(mean_f1, labels, classes, over=occurring), "accuracy": right}
            wanted += [row for row in group_rows(measures, {column: values}, everything) if row[0][1] == value]
    return make_rows(wanted, len(labels), resampling)


def _check(reference: np.ndarray, candidate: np.ndarray, labels: np.ndarray, classes: int) -> None:
    expected = (len(labels), classes)
    for name, found in (("reference", reference), ("candidate", candidate)):
        if found.shape != expected:
            raise DatasetError(f"probabilities {expected}", f"{found.shape}", name)
        if not (np.isfinite(found).all() and (found >= 0).all() and np.allclose(found.sum(1), 1, atol=1e-3)):
            raise DatasetError("probabilities that sum to one", "other numbers", name)
    if len(labels) and not (labels.min() >= 0 and labels.max() < classes):
        raise DatasetError(f"labels from 0 to {classes - 1}", f"labels from {labels.min()} to {labels.max()}", "labels")
