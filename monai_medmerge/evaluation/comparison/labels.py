"""Two networks whose labels do not exclude one another, on the same cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from monai_medmerge.errors import DatasetError
from monai_medmerge.evaluation.bootstrap import Resampling, Statistic, estimate
from monai_medmerge.evaluation.comparison.cases import ALL, CLASS, check_groups
from monai_medmerge.evaluation.comparison.paired import paired_tests
from monai_medmerge.evaluation.comparison.predictions import OF_CLASS
from monai_medmerge.evaluation.comparison.rows import (
    EQUAL,
    MULTILABEL,
    Case,
    Comparison,
    Wanted,
    group_rows,
    make_rows,
    small_groups,
)
from monai_medmerge.evaluation.measures import mean, within
from monai_medmerge.evaluation.results.labels import mean_of
from monai_medmerge.evaluation.results.parts import binary_statistics, thresholds

_MEANS = {"macro F1": "f1", "mean average precision": "average_precision", "AUC": "auroc"}


def compare_labels(
    reference: np.ndarray,
    candidate: np.ndarray,
    truth: np.ndarray,
    class_names: Sequence[str],
    columns: Mapping[str, Sequence[str]] | None = None,
    names: Sequence[str] | None = None,
    resampling: Resampling | None = None,
    threshold: float = 0.5,
) -> Comparison:
    """Compare the probabilities of two networks that say any number of labels of each case.

    A negative flip is a case of which more labels are wrong than before.

    Args:
        reference: of the network in use, float (case, label), from 0 to 1.
        candidate: of the network that may replace it, likewise.
        truth: 0 or 1, or NaN where nobody knows, (case, label).
        class_names: one per label.
        columns: as of `compare_predictions`.
        names: as of `compare_predictions`.
        resampling: as of `compare_predictions`.
        threshold: from which on a label is said.

    Raises:
        DatasetError: arrays do not fit one another or the labels.
        SettingError: there is no case, or a column has too many groups.

    Example:
        >>> truth = np.array([[1, 0], [0, 1]] * 10)
        >>> found = compare_labels(truth * 0.8, 1 - truth * 0.8, truth, ["effusion", "nodule"])
        >>> found.negative_flips.value, found.tests[0].worse
        (1.0, 20)
    """
    truth = np.asarray(truth, np.float64)
    for name, given in (("reference", reference), ("candidate", candidate)):
        if given.shape != truth.shape or truth.shape[1:] != (len(class_names),):
            raise DatasetError(f"probabilities and truth (case, {len(class_names)})", f"{given.shape}", name)
        if not ((given >= 0) & (given <= 1)).all():
            raise DatasetError("probabilities from 0 to 1", "other numbers", name)
    known = ~np.isnan(truth)
    if not np.isin(truth[known], (0, 1)).all():
        raise DatasetError("a truth of 0, 1 or nothing", "other numbers", "labels")
    columns, resampling = columns or {}, resampling or Resampling()
    check_groups(columns)
    names = names or [f"case {n}" for n in range(len(truth))]
    positive, said = truth == 1, [given >= threshold for given in (reference, candidate)]
    right = [(found == positive) & known for found in said]
    gain = (right[1].sum(1) - right[0].sum(1)).astype(np.float64)
    negative, positive_flips, agreement = estimate(
        [mean(gain < 0), mean(gain > 0), mean((said[0] == said[1]).all(1))], len(truth), resampling
    )
    present = [k for k in range(len(class_names)) if positive[:, k].any()]

    def describe(chosen: np.ndarray) -> tuple[Case, ...]:
        told = [[_told(found[n], class_names) for found in (positive, *said)] for n in np.flatnonzero(chosen)]
        return tuple(
            Case(names[n], label, before, now, float("nan"))
            for n, (label, before, now) in zip(np.flatnonzero(chosen).tolist(), told, strict=True)
        )

    changes = {"": np.sign(gain)}
    changes |= {
        class_names[k]: np.where(known[:, k], right[1][:, k].astype(float) - right[0][:, k], np.nan) for k in present
    }
    return Comparison(
        task=MULTILABEL,
        class_names=tuple(class_names),
        cases=len(truth),
        units=resampling.count(np.ones(len(truth), bool)),
        rows=make_rows(_wanted((reference, candidate), said, positive, known, class_names, columns), len(truth),
                       resampling),
        negative_flips=negative,
        positive_flips=positive_flips,
        agreement=agreement,
        kappa=float("nan"),
        flipped=describe(gain < 0),
        gained=describe(gain > 0),
        tests=paired_tests(changes, resampling),
        thresholds={
            class_names[k]: thresholds(candidate[known[:, k], k], positive[known[:, k], k]) for k in present
        },
        absent=tuple(name for k, name in enumerate(class_names) if k not in present),
        hidden=small_groups(columns),
        equal=bool(np.allclose(reference, candidate, rtol=0, atol=EQUAL)),
    )  # fmt: skip


def _wanted(
    both: tuple[np.ndarray, np.ndarray],
    said: Sequence[np.ndarray],
    positive: np.ndarray,
    known: np.ndarray,
    class_names: Sequence[str],
    columns: Mapping[str, Sequence[str]],
) -> list[Wanted]:
    everything = np.ones(len(positive), bool)
    present = [k for k in range(len(class_names)) if positive[:, k].any()]
    parts: list[list[dict[str, Statistic]]] = [
        [
            {
                key: within(statistic, known[:, k])
                for key, statistic in binary_statistics(scores[:, k], answers[:, k], positive[:, k]).items()
            }
            for k in present
        ]
        for scores, answers in zip(both, said, strict=True)
    ]
    means = {
        name: (mean_of([own[key] for own in parts[0]]), mean_of([own[key] for own in parts[1]]))
        for name, key in _MEANS.items()
    }
    wanted: list[Wanted] = [((ALL, "", name, everything), pair) for name, pair in means.items()]
    for n, k in enumerate(present):
        among = positive[:, k]
        wanted += [((CLASS, class_names[k], name, among), (parts[0][n][key], parts[1][n][key]))
                   for key, name in OF_CLASS.items()]  # fmt: skip
    for column, values in columns.items():
        groups = np.array([str(value) for value in values])
        for value in sorted(set(groups.tolist())):
            # A label that a group has no case of would count as 0 in its mean.
            occurring = [n for n, k in enumerate(present) if positive[groups == value, k].any()]
            pair = mean_of([parts[0][n]["f1"] for n in occurring]), mean_of([parts[1][n]["f1"] for n in occurring])
            wanted += [
                row for row in group_rows({"macro F1": pair}, {column: values}, everything) if row[0][1] == value
            ]
    return wanted


def _told(said: np.ndarray, class_names: Sequence[str]) -> str:
    return " + ".join(name for name, one in zip(class_names, said.tolist(), strict=True) if one) or "none"
