"""Is the candidate better than what is in use, where is it worse, and for whom?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from monai_medmerge.errors import DatasetError
from monai_medmerge.evaluation.bootstrap import Estimate, Paired, Resampling, Statistic, estimate, paired_estimate
from monai_medmerge.evaluation.comparison.cases import ALL, CLASS, check_groups
from monai_medmerge.evaluation.comparison.novelty import Distance
from monai_medmerge.evaluation.comparison.perturbation import Stability
from monai_medmerge.evaluation.measures import calibration_error, mean, mean_area_under_curve, mean_f1, within
from monai_medmerge.evaluation.reliability import Calibration, calibration, confident_errors

CLASSIFICATION, SEGMENTATION = "classification", "segmentation"
CALIBRATION, CONFIDENT_ERRORS = "calibration error", "confident errors"

# A row that is wanted: scope, group, measure and the cases that it rests on (bool), with what to measure of both.
Wanted = tuple[tuple[str, str, str, np.ndarray], tuple[Statistic, Statistic]]


@dataclass(frozen=True)
class Row:
    """One measure of one group of cases.

    Args:
        scope: `all cases`, `class`, or the column that divides the cases (site, scanner, sex).
        group: the class or the column's value; empty for all cases.
        measure: `macro F1`, `accuracy`, `AUC`, `F1`, `recall`, `precision` or `Dice`; `calibration error` and
            `confident errors`, of which less is better.
        cases: how many it rests on.
        units: how many of these are independent: patients where they are known, else all.
        found: reference, candidate and their difference.
    """

    scope: str
    group: str
    measure: str
    cases: int
    units: int
    found: Paired

    def as_dict(self) -> dict[str, Any]:
        """In plain types, for JSON."""
        facts = {"scope": self.scope, "group": self.group, "measure": self.measure, "cases": self.cases}
        facts["units"] = self.units
        return {**facts, **self.found.as_dict()}

    @property
    def name(self) -> str:
        """What was measured, for people."""
        return f"{self.scope} {self.group}: {self.measure}" if self.group else self.measure


@dataclass(frozen=True)
class Case:
    """One case of which there is something to say.

    Args:
        name: from `Naming`.
        label: its class, or empty for a segmentation.
        reference: what the reference says: a class, or a Dice value.
        candidate: what the candidate says.
        confidence: the candidate's, from 0 to 1; NaN for a segmentation.
    """

    name: str
    label: str
    reference: str
    candidate: str
    confidence: float

    def as_dict(self) -> dict[str, Any]:
        """In plain types, for JSON."""
        return {**asdict(self), "confidence": None if np.isnan(self.confidence) else self.confidence}


@dataclass(frozen=True)
class Comparison:
    """A candidate beside the reference on the same cases.

    Args:
        task: `classification` or `segmentation`.
        class_names: in the networks' order.
        cases: how many.
        units: how many of these are independent: patients where they are known, else all.
        rows: measures of all cases, of each class and of each group.
        negative_flips: share of cases that the reference had right and the candidate has wrong.
        positive_flips: share of cases the other way round.
        agreement: share of cases with equal predictions; for segmentations, mean Dice of one to the other.
        kappa: Cohen's kappa of the two; NaN for segmentations.
        flipped: the cases of the negative flips.
        confident_errors: cases that the candidate has wrong with at least 0.9 confidence.
        calibration: of `reference` and `candidate`; empty for segmentations.
        stability: under small changes of the images.
        distance: inputs far from the training data.
    """

    task: str
    class_names: tuple[str, ...]
    cases: int
    units: int
    rows: tuple[Row, ...]
    negative_flips: Estimate
    positive_flips: Estimate
    agreement: Estimate
    kappa: float
    flipped: tuple[Case, ...]
    confident_errors: tuple[Case, ...] = ()
    calibration: Mapping[str, Calibration] = field(default_factory=dict)
    stability: tuple[Stability, ...] = ()
    distance: Distance | None = None

    def select(self, scope: str, measure: str) -> list[Row]:
        """The rows of one scope and measure.

        Args:
            scope: `all cases`, `class` or a column.
            measure: its name.
        """
        return [row for row in self.rows if row.scope == scope and row.measure == measure]

    @property
    def columns(self) -> list[str]:
        """The columns that the cases were divided by."""
        return [scope for scope in dict.fromkeys(row.scope for row in self.rows) if scope not in (ALL, CLASS)]

    def as_dict(self) -> dict[str, Any]:
        """The comparison in plain types, for JSON."""
        return {
            "task": self.task,
            "class_names": list(self.class_names),
            "cases": self.cases,
            "units": self.units,
            "rows": [row.as_dict() for row in self.rows],
            "negative_flips": self.negative_flips.as_dict(),
            "positive_flips": self.positive_flips.as_dict(),
            "agreement": self.agreement.as_dict(),
            "kappa": None if np.isnan(self.kappa) else self.kappa,
            "flipped": [case.as_dict() for case in self.flipped],
            "confident_errors": [case.as_dict() for case in self.confident_errors],
            "calibration": {name: found.as_dict() for name, found in self.calibration.items()},
            "stability": [found.as_dict() for found in self.stability],
            "distance": self.distance.as_dict() if self.distance else None,
        }

    def __str__(self) -> str:
        width = max(len(row.name) for row in self.rows)
        lines = [f"{'':<{width}}  cases  reference  candidate  difference"]
        for row in self.rows:
            found, difference = row.found, row.found.difference
            interval = f"{difference.value:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})"
            lines.append(
                f"{row.name:<{width}}  {row.cases:>5}  {found.reference.value:9.3f}  {found.candidate.value:9.3f}  "
                + interval
            )
        return "\n".join([*lines, f"negative flips: {self.negative_flips}", f"positive flips: {self.positive_flips}"])


def compare_predictions(
    reference: np.ndarray,
    candidate: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    columns: Mapping[str, Sequence[str]] | None = None,
    names: Sequence[str] | None = None,
    resampling: Resampling | None = None,
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
        rows=_rows((reference, candidate), labels, class_names, columns, resampling),
        negative_flips=negative,
        positive_flips=positive,
        agreement=agreement,
        kappa=cohens_kappa(before, now, len(class_names)),
        flipped=describe(flips),
        confident_errors=describe(confident_errors(candidate, labels)),
        calibration={
            name: calibration(found, labels, resampling)
            for name, found in (("reference", reference), ("candidate", candidate))
        },
    )


def with_checks(
    comparison: Comparison, stability: Sequence[Stability] = (), distance: Distance | None = None
) -> Comparison:
    """The comparison with what needs the networks themselves."""
    return replace(comparison, stability=tuple(stability), distance=distance)


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


def group_rows(
    pairs: Mapping[str, tuple[Statistic, Statistic]], columns: Mapping[str, Sequence[str]], known: np.ndarray
) -> list[Wanted]:
    """Measures of every group of every column.

    Args:
        pairs: measure to (reference, candidate), of all cases.
        columns: as of `compare_predictions`.
        known: bool (case,), those of which there is something to measure.
    """
    found: list[Wanted] = []
    for column, values in columns.items():
        groups = np.array([str(value) for value in values])
        for value in sorted(set(groups.tolist())):
            chosen = (groups == value) & known
            for measure, (a, b) in pairs.items():
                found.append(((column, value, measure, chosen), (within(a, chosen), within(b, chosen))))
    return found


def make_rows(wanted: Sequence[Wanted], cases: int, resampling: Resampling) -> tuple[Row, ...]:
    """Measure everything on the same resamples.

    Args:
        wanted: rows and their statistics.
        cases: how many there are.
        resampling: how they are drawn.
    """
    found = paired_estimate([pair for _, pair in wanted], cases, resampling)
    return tuple(
        Row(scope, group, measure, int(chosen.sum()), resampling.count(chosen), paired)
        for ((scope, group, measure, chosen), _), paired in zip(wanted, found, strict=True)
    )


def _rows(
    both: tuple[np.ndarray, np.ndarray],
    labels: np.ndarray,
    class_names: Sequence[str],
    columns: Mapping[str, Sequence[str]],
    resampling: Resampling,
) -> tuple[Row, ...]:
    everything, classes = np.ones(len(labels), bool), len(class_names)
    first, second = (found.argmax(1) for found in both)

    def pair(function: Any, *arguments: Any, **options: Any) -> tuple[Statistic, Statistic]:
        return function(first, *arguments, **options), function(second, *arguments, **options)

    right = (mean(first == labels), mean(second == labels))
    wanted: list[Wanted] = [
        ((ALL, "", "macro F1", everything), pair(mean_f1, labels, classes)),
        ((ALL, "", "accuracy", everything), right),
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
    for k, name in enumerate(class_names):
        among = labels == k
        wanted += [
            ((CLASS, name, "recall", among), (mean(first == k, among), mean(second == k, among))),
            ((CLASS, name, "precision", among), (mean(among, first == k), mean(among, second == k))),
            ((CLASS, name, "F1", among), pair(mean_f1, labels, classes, over=[k])),
        ]
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
