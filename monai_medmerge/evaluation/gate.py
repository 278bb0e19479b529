"""A gate: limits that a candidate must keep, each with a reason for its verdict.

What passes here has kept the limits that were set, on the cases that were given; it is no more than that, and no
medical device. The limits are the site's to set. `DEFAULT_LIMITS` are a beginning and are marked as defaults wherever
they are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from monai_medmerge.errors import SettingError
from monai_medmerge.evaluation.bootstrap import Estimate
from monai_medmerge.evaluation.comparison.cases import ALL, CLASS
from monai_medmerge.evaluation.comparison.rows import (
    CALIBRATION,
    CONFIDENT_ERRORS,
    FEWEST,
    SEGMENTATION,
    Comparison,
    Row,
)
from monai_medmerge.files import shown

PASSED, FAILED, UNDECIDED = "passed", "failed", "undecided"
# An absolute limit that the network in use misses as well: no reason to keep that one, and none to be content.
INHERITED = "missed by both"
# By how much of such a limit the candidate may be worse than the network in use.
_INHERITED_MARGIN = 0.1
EXIT_STATUS = {PASSED: 0, FAILED: 1, UNDECIDED: 3}
SITE, DEFAULT = "set by the site", "default, not chosen by the site"
# Whether a limit is held against the measured value, or against the whole interval.
ESTIMATE, INTERVAL = "estimate", "interval"

# Fewer cases than this say nothing of all cases, or of a class or group.
ALL_CASES, SOME_CASES = 100, 30
LARGEST_LIMIT = 1e9
# Largest value that is allowed, and the cases that it needs to say anything.
DEFAULT_LIMITS: dict[str, dict[str, float]] = {
    "overall_drop": {"limit": 0.01, "minimum_cases": ALL_CASES},
    "class_drop": {"limit": 0.02, "minimum_cases": SOME_CASES},
    "group_drop": {"limit": 0.03, "minimum_cases": SOME_CASES},
    "negative_flips": {"limit": 0.03, "minimum_cases": ALL_CASES},
    "calibration_error": {"limit": 0.1, "minimum_cases": ALL_CASES},
    "confident_errors": {"limit": 0.02, "minimum_cases": ALL_CASES},
    "instability": {"limit": 0.05, "minimum_cases": ALL_CASES},
    "ranking_drop": {"limit": 0.03, "minimum_cases": SOME_CASES},
    "invented_lesions": {"limit": 0.1, "minimum_cases": SOME_CASES},
    "missed_lesions": {"limit": 0.1, "minimum_cases": SOME_CASES},
}


@dataclass(frozen=True)
class Measured:
    """One value that a limit is held against.

    Args:
        what: in words.
        value: with its interval; more is worse.
        of: the row or comparison that it is from, which know how many cases and independent units it rests on.
        before: of an absolute limit, what the network in use reaches; None for what is itself a change.
    """

    what: str
    value: Estimate
    of: Row | Comparison
    before: Estimate | None = None

    @property
    def evidence(self) -> str:
        """How much it rests on, in words."""
        return f"{self.of.cases} cases" + (f" of {self.of.units} patients" if self.of.units < self.of.cases else "")


@dataclass(frozen=True)
class Verdict:
    """What became of one limit for one class, group or measure.

    Args:
        limit: its name.
        what: what was measured, in words.
        outcome: `passed`, `failed`, `undecided`, or `missed by both` of an absolute limit that the network in use
            misses too and the candidate misses by no more.
        reason: why, in words.
    """

    limit: str
    what: str
    outcome: str
    reason: str

    def as_dict(self) -> dict[str, str]:
        """In plain types, for JSON."""
        return {"limit": self.limit, "what": self.what, "outcome": self.outcome, "reason": self.reason}


EQUAL = "the candidate gives the answers of the network in use in every case"


@dataclass(frozen=True)
class GateResult:
    """Passed, failed or undecided, with a verdict and a reason per limit; `str()` is for reading.

    Args:
        verdicts: in the order of the limits.
        origin: who set the limits.
        limits: name to limit and minimum number of cases.
        evidence: what limits were held against.
        equal: whether the candidate gives the answers of the network in use, so that nothing can be worse.
    """

    verdicts: tuple[Verdict, ...]
    origin: str
    limits: Mapping[str, Mapping[str, float]]
    evidence: str
    equal: bool = False

    @property
    def outcome(self) -> str:
        """Passed if the candidate equals the network in use; else failed if any limit is broken; else undecided if any
        could not be decided, or none was set; else passed.
        """
        if self.equal:
            return PASSED
        outcomes = {verdict.outcome for verdict in self.verdicts}
        if FAILED in outcomes:
            return FAILED
        return PASSED if outcomes and outcomes <= {PASSED, INHERITED} else UNDECIDED

    @property
    def inherited(self) -> list[Verdict]:
        """The absolute limits that the network in use misses too."""
        return [verdict for verdict in self.verdicts if verdict.outcome == INHERITED]

    @property
    def exit_status(self) -> int:
        """0 passed, 1 failed, 3 undecided."""
        return EXIT_STATUS[self.outcome]

    def as_dict(self) -> dict[str, Any]:
        """In plain types, for JSON."""
        return {
            "outcome": self.outcome,
            "exit_status": self.exit_status,
            "origin": self.origin,
            "evidence": self.evidence,
            "equal": self.equal,
            "limits": {name: dict(limit) for name, limit in self.limits.items()},
            "verdicts": [verdict.as_dict() for verdict in self.verdicts],
        }

    def __str__(self) -> str:
        lines = [EQUAL] if self.equal else []
        lines += [f"{v.outcome:<9}  {v.limit}: {v.what}; {v.reason}" for v in self.verdicts]
        return "\n".join([*lines, f"{self.outcome.upper()} (limits: {self.origin})"])


def check(comparison: Comparison, gate: Mapping[str, Any] | None = None) -> GateResult:
    """Hold a comparison against limits.

    Limits, each the largest value allowed: `overall_drop` (macro F1, or Dice), `class_drop` (recall of each class, or
    its Dice), `group_drop` (macro F1, or Dice, of each group of every column), `negative_flips`, `calibration_error`,
    `confident_errors` (share of cases that are wrong with 0.9 confidence, above the reference's), `instability` (share
    of answers that one small change of the images changes, above the reference's), `ranking_drop` (area under the ROC
    curve of each class), `invented_lesions` and `missed_lesions` (more of them per case, of each label of a
    segmentation) and `far_inputs` (share of inputs far from the training data, which has no default: an overfitted
    network puts all new images far from its own). Recall and not F1, because the errors of one class also lower the F1
    of those that they fall upon.

    A candidate that gives the answers of the network in use in every case passes, whatever the limits. `far_inputs`
    and `calibration_error` are absolute: where the network in use misses one as well, and the candidate is worse by no
    more than a tenth of it, the verdict is `missed by both`, which does not fail the candidate.

    Args:
        comparison: from `compare`.
        gate: the content of a `gate.json`: `limits`, a mapping from names to a number or to `limit` and
            `minimum_cases` (of patients, where the comparison knows them); `evidence`, `estimate` (the value decides)
            or `interval` (passed only if the whole interval is within the limit, failed only if all of it is beyond,
            else undecided); and `origin`, `default` where nobody at the site chose the limits. None takes
            `DEFAULT_LIMITS`.

    Raises:
        SettingError: a limit is unknown or no number, or limits other than the defaults claim to be those.

    Example:
        >>> from monai_medmerge.evaluation.comparison.predictions import compare_predictions
        >>> labels = np.arange(400) % 2
        >>> good = np.where(labels[:, None] == [0, 1], 0.95, 0.05)
        >>> surer = np.where(labels[:, None] == [0, 1], 0.97, 0.03)
        >>> result = check(compare_predictions(good, surer, labels, ["a", "b"]), {"limits": {"class_drop": 0.02}})
        >>> print(result)
        passed     class_drop: drop in recall of a; 0.000 (0.000 to 0.000), limit 0.02, 200 cases
        passed     class_drop: drop in recall of b; 0.000 (0.000 to 0.000), limit 0.02, 200 cases
        PASSED (limits: set by the site)
    """
    gate = {"limits": DEFAULT_LIMITS, "origin": "default"} if gate is None else gate
    if unknown := set(gate) - {"limits", "evidence", "origin"}:
        raise SettingError("limits, evidence and origin", ", ".join(sorted(unknown)), "gate")
    evidence = gate.get("evidence", ESTIMATE)
    if evidence not in (ESTIMATE, INTERVAL):
        raise SettingError(f"{ESTIMATE} or {INTERVAL}", repr(evidence), "gate, evidence")
    given = gate.get("limits", {})
    if not isinstance(given, Mapping):
        raise SettingError("a mapping from names to limits", f"a {type(given).__name__}", "gate, limits")
    limits = {name: _limit(name, limit) for name, limit in given.items()}
    defaults = gate.get("origin") == "default"
    # Whoever changes a limit has chosen it, and the report must say so.
    if defaults and limits != DEFAULT_LIMITS:
        raise SettingError("the default limits, or no origin 'default' beside limits of your own", "others", "gate")
    verdicts: list[Verdict] = []
    for name, limit in limits.items():
        measured = _MEASURES[name](comparison)
        # What does not exist for a task, or was not asked for, cannot break a limit of the defaults.
        if not measured and defaults:
            continue
        decide = _equal if comparison.equal else _decide
        verdicts += [decide(name, limit, found, evidence) for found in measured] or [
            Verdict(name, "nothing", PASSED if comparison.equal else UNDECIDED, "this was not measured")
        ]
    return GateResult(tuple(verdicts), DEFAULT if defaults else SITE, limits, evidence, comparison.equal)


def _limit(name: str, given: Any) -> dict[str, float]:
    if name not in _MEASURES:
        raise SettingError(f"one of {', '.join(_MEASURES)}", shown(repr(name)), "gate, limits")
    cases = DEFAULT_LIMITS.get(name, {}).get("minimum_cases", ALL_CASES)
    found = {"minimum_cases": cases, **(given if isinstance(given, Mapping) else {"limit": given})}
    if "limit" not in found:
        raise SettingError("a limit", "none", f"gate, {name}")
    for key, value in found.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        # Python's integers may be larger than any float.
        if key not in ("limit", "minimum_cases") or not number or not 0 <= value <= LARGEST_LIMIT:
            wrong = f"{shown(str(key))}: {shown(repr(value))}"
            raise SettingError("limit and minimum_cases, numbers from 0 up", wrong, f"gate, {name}")
    return found


def _equal(name: str, limit: Mapping[str, float], measured: Measured, evidence: str) -> Verdict:
    """Of a candidate that is the network in use: nothing is worse, and an absolute limit may be missed by both."""
    found = _decide(name, limit, measured, evidence)
    outcome = INHERITED if found.outcome in (FAILED, INHERITED) else PASSED
    return Verdict(name, measured.what, outcome, found.reason)


def _decide(name: str, limit: Mapping[str, float], measured: Measured, evidence: str) -> Verdict:
    value, most, before = measured.value, limit["limit"], measured.before
    facts = f"{value}, limit {most:g}, {measured.evidence}"
    if before is not None:
        facts += f"; in use {before.value:.3f}"
    if np.isnan(value.value):
        return Verdict(name, measured.what, UNDECIDED, "not enough cases to measure it on")
    # Many cases of few patients are little evidence.
    if measured.of.units < limit["minimum_cases"]:
        found = f"not enough evidence: {facts}, at least {limit['minimum_cases']:g} needed"
        return Verdict(name, measured.what, UNDECIDED, found)
    # Differences of shares carry rounding, which must not decide.
    best, worst = (value.low, value.high) if evidence == INTERVAL else (value.value, value.value)
    if best > most + 1e-9:
        both = before is not None and before.value > most and value.value <= before.value + _INHERITED_MARGIN * most
        return Verdict(name, measured.what, INHERITED if both else FAILED, facts)
    if worst > most + 1e-9:
        return Verdict(name, measured.what, UNDECIDED, f"the interval holds the limit: {facts}")
    return Verdict(name, measured.what, PASSED, facts)


def _drop(row: Row, what: str) -> Measured:
    return _loss(row.found.difference, what, row)


def _loss(gain: Estimate, what: str, of: Row | Comparison) -> Measured:
    """A gain the other way round, so that more is worse."""
    # Adding nothing turns -0.0 into 0.0.
    return Measured(what, Estimate(-gain.value + 0.0, -gain.high + 0.0, -gain.low + 0.0), of)


def _overall(comparison: Comparison) -> list[Measured]:
    measure = _main_measure(comparison)
    return [_drop(row, f"drop in {measure}") for row in comparison.select(ALL, measure)]


def _classes(comparison: Comparison) -> list[Measured]:
    measure = "Dice" if comparison.task == SEGMENTATION else "recall"
    found = [_drop(row, f"drop in {measure} of {row.group}") for row in comparison.select(CLASS, measure)]
    # Of a class without a case nothing can be said, and that must be seen.
    unknown = Estimate(float("nan"), float("nan"), float("nan"))
    return found + [Measured(f"drop in {measure} of {name}", unknown, comparison) for name in comparison.absent]


def _groups(comparison: Comparison) -> list[Measured]:
    measure = _main_measure(comparison)
    rows = (row for column in comparison.columns for row in comparison.select(column, measure))
    found = [_drop(row, f"drop in {measure} where {row.scope} is {row.group}") for row in rows]
    unknown = Estimate(float("nan"), float("nan"), float("nan"))
    return found + [
        Measured(f"drop in {measure} where {column} is {group}, of fewer than {FEWEST} cases", unknown, comparison)
        for column, group in comparison.hidden
    ]


def _main_measure(comparison: Comparison) -> str:
    return "Dice" if comparison.task == SEGMENTATION else "macro F1"


def _flips(comparison: Comparison) -> list[Measured]:
    return [Measured("right before, wrong now", comparison.negative_flips, comparison)]


def _calibration(comparison: Comparison) -> list[Measured]:
    rows = comparison.select(ALL, CALIBRATION)
    return [Measured("expected calibration error", row.found.candidate, row, row.found.reference) for row in rows]


def _confident(comparison: Comparison) -> list[Measured]:
    rows = comparison.select(ALL, CONFIDENT_ERRORS)
    return [Measured("more cases that are wrong with 0.9 confidence", row.found.difference, row) for row in rows]


def _instability(comparison: Comparison) -> list[Measured]:
    """How many more answers of the candidate change than of the reference."""
    kept = comparison.stability
    return [_loss(found.kept.difference, f"more answers that change when {found.change}", comparison) for found in kept]


def _far(comparison: Comparison) -> list[Measured]:
    found = comparison.distance
    return [Measured("inputs far from the training data", found.far, comparison, found.before)] if found else []


def _ranking(comparison: Comparison) -> list[Measured]:
    return [_drop(row, f"drop in AUROC of {row.group}") for row in comparison.select(CLASS, "AUROC")]


def _lesions(measure: str) -> Callable[[Comparison], list[Measured]]:
    def measured(comparison: Comparison) -> list[Measured]:
        rows = comparison.select(CLASS, measure)
        return [Measured(f"more {measure} of {row.group} per case", row.found.difference, row) for row in rows]

    return measured


_MEASURES: dict[str, Callable[[Comparison], list[Measured]]] = {
    "overall_drop": _overall,
    "class_drop": _classes,
    "group_drop": _groups,
    "negative_flips": _flips,
    "calibration_error": _calibration,
    "confident_errors": _confident,
    "instability": _instability,
    "far_inputs": _far,
    "ranking_drop": _ranking,
    "invented_lesions": _lesions("lesions invented"),
    "missed_lesions": _lesions("lesions missed"),
}
