"""What a comparison holds: measures of all cases, of each class and of each group, and single cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from monai_medmerge.evaluation.bootstrap import Estimate, Paired, Resampling, Statistic, paired_estimate
from monai_medmerge.evaluation.comparison.cases import ALL, CLASS
from monai_medmerge.evaluation.comparison.novelty import Distance
from monai_medmerge.evaluation.comparison.paired import PairedTest
from monai_medmerge.evaluation.comparison.perturbation import Stability
from monai_medmerge.evaluation.comparison.pictures import CasePicture
from monai_medmerge.evaluation.measures import within
from monai_medmerge.evaluation.reliability import Calibration

CLASSIFICATION, SEGMENTATION, MULTILABEL = "classification", "segmentation", "multi-label"
CALIBRATION, CONFIDENT_ERRORS = "calibration error", "confident errors"
GRADE_DISTANCE = "grade distance"

# Probabilities that differ by no more are equal: another order of adding makes this much.
EQUAL = 1e-6

# Of these, less is better.
LESS_IS_BETTER = {
    CALIBRATION,
    CONFIDENT_ERRORS,
    GRADE_DISTANCE,
    "surface distance 95 %",
    "lesions invented",
    "lesions missed",
}
# Numbers of a group of fewer cases are shown nowhere: they say too little, and too much of a few people.
FEWEST = 10

# A row that is wanted: scope, group, measure and the cases that it rests on (bool), with what to measure of both.
Wanted = tuple[tuple[str, str, str, np.ndarray], tuple[Statistic, Statistic]]


@dataclass(frozen=True)
class Row:
    """One measure of one group of cases.

    Args:
        scope: `all cases`, `class`, or the column that divides the cases (site, scanner, sex).
        group: the class or the column's value; empty for all cases.
        measure: such as `macro F1`, `accuracy`, `balanced accuracy`, `AUC`, `recall`, `AUROC` or `Dice`, of which more
            is better, or one of `LESS_IS_BETTER`.
        cases: how many it rests on.
        units: how many of these are independent: patients where they are known, else all.
        found: reference, candidate and their difference.
        level: of the interval of the difference; that of groups is corrected for how many are looked at.
    """

    scope: str
    group: str
    measure: str
    cases: int
    units: int
    found: Paired
    level: float = 0.95

    def as_dict(self) -> dict[str, Any]:
        """In plain types, for JSON."""
        facts = {"scope": self.scope, "group": self.group, "measure": self.measure, "cases": self.cases}
        facts |= {"units": self.units, "level": self.level, "less_is_better": self.measure in LESS_IS_BETTER}
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
        task: `classification`, `segmentation` or `multi-label`.
        class_names: in the networks' order.
        cases: how many.
        units: how many of these are independent: patients where they are known, else all.
        rows: measures of all cases, of each class and of each group.
        negative_flips: share of cases that the reference had right and the candidate has wrong.
        positive_flips: share of cases the other way round.
        agreement: share of cases with equal predictions; for segmentations, mean Dice of one to the other.
        kappa: Cohen's kappa of the two; NaN for segmentations.
        flipped: the cases of the negative flips.
        gained: those of the positive flips.
        tests: of the difference, for all cases and each class.
        confident_errors: cases that the candidate has wrong with at least 0.9 confidence.
        calibration: of `reference` and `candidate`; empty for segmentations.
        stability: under small changes of the images.
        distance: inputs far from the training data.
        equal: whether both give the same answer in every case: probabilities to 1e-6, or label maps voxel for voxel.
        absent: classes without a case, which take part in no measure.
        hidden: groups of fewer than 10 cases, as (column, group), whose numbers are not shown.
        confusion: of reference and candidate, counts (label, prediction).
        thresholds: class to what the candidate needs for wanted sensitivities, see `thresholds`.
        scores: probabilities of reference and candidate, and labels, for curves; in no file.
        pictures: of the worst and the most changed cases.
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
    gained: tuple[Case, ...] = ()
    tests: tuple[PairedTest, ...] = ()
    confident_errors: tuple[Case, ...] = ()
    calibration: Mapping[str, Calibration] = field(default_factory=dict)
    stability: tuple[Stability, ...] = ()
    distance: Distance | None = None
    equal: bool = False
    absent: tuple[str, ...] = ()
    hidden: tuple[tuple[str, str], ...] = ()
    confusion: Mapping[str, list[list[int]]] = field(default_factory=dict)
    thresholds: Mapping[str, list[Any]] = field(default_factory=dict)
    scores: tuple[np.ndarray, np.ndarray, np.ndarray] | None = field(default=None, repr=False, compare=False)
    pictures: tuple[CasePicture, ...] = field(default=(), repr=False, compare=False)

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
            "equal": self.equal,
            "absent": list(self.absent),
            "hidden": [list(group) for group in self.hidden],
            "confusion": dict(self.confusion),
            "thresholds": dict(self.thresholds),
            "rows": [row.as_dict() for row in self.rows],
            "negative_flips": self.negative_flips.as_dict(),
            "positive_flips": self.positive_flips.as_dict(),
            "agreement": self.agreement.as_dict(),
            "kappa": None if np.isnan(self.kappa) else self.kappa,
            "flipped": [case.as_dict() for case in self.flipped],
            "gained": [case.as_dict() for case in self.gained],
            "tests": [test.as_dict() for test in self.tests],
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
        lines += [f"negative flips: {self.negative_flips}", f"positive flips: {self.positive_flips}"]
        for test in self.tests:
            of = f" of {test.of}" if test.of else ""
            lines.append(f"{test.test}{of}: {test.worse} worse, {test.better} better, p {test.p:.3g}")
        return "\n".join(lines)


def with_checks(
    comparison: Comparison,
    stability: Sequence[Stability] = (),
    distance: Distance | None = None,
    pictures: Sequence[CasePicture] = (),
) -> Comparison:
    """The comparison with what needs the networks themselves.

    Args:
        comparison: of predictions alone.
        stability: under small changes of the images.
        distance: inputs far from the training data.
        pictures: of single cases.
    """
    return replace(comparison, stability=tuple(stability), distance=distance, pictures=tuple(pictures))


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


def small_groups(columns: Mapping[str, Sequence[str]]) -> tuple[tuple[str, str], ...]:
    """The groups of fewer than 10 cases, as (column, group).

    Args:
        columns: as of `compare_predictions`.

    Example:
        >>> small_groups({"site": ["north"] * 12 + ["south"] * 3})
        (('site', 'south'),)
    """
    counts = {
        (column, group): sum(str(value) == group for value in values)
        for column, values in columns.items()
        for group in sorted({str(value) for value in values})
    }
    return tuple(group for group, count in counts.items() if count < FEWEST)


def make_rows(wanted: Sequence[Wanted], cases: int, resampling: Resampling) -> tuple[Row, ...]:
    """Measure everything on the same resamples; groups of fewer than 10 cases are left out.

    Intervals of differences of groups are corrected after Bonferroni for how many groups are looked at.

    Args:
        wanted: rows and their statistics.
        cases: how many there are.
        resampling: how they are drawn.
    """
    shown = [row for row in wanted if row[0][0] in (ALL, CLASS) or row[0][3].sum() >= FEWEST]
    groups = {(scope, group) for (scope, group, *_), _ in shown if scope not in (ALL, CLASS)}
    corrected = 1 - (1 - resampling.level) / max(len(groups), 1)
    levels = [resampling.level if scope in (ALL, CLASS) else corrected for (scope, *_), _ in shown]
    found = paired_estimate([pair for _, pair in shown], cases, resampling, levels)
    return tuple(
        Row(scope, group, measure, int(chosen.sum()), resampling.count(chosen), paired, level)
        for ((scope, group, measure, chosen), _), paired, level in zip(shown, found, levels, strict=True)
    )
