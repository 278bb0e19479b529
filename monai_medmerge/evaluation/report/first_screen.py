"""The first screen: is it better than what is in use, for whom not, may it be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monai_medmerge.evaluation.bootstrap import Estimate
from monai_medmerge.evaluation.comparison.cases import ALL, CLASS
from monai_medmerge.evaluation.comparison.rows import LESS_IS_BETTER, SEGMENTATION, Comparison, Row
from monai_medmerge.evaluation.gate import FAILED, PASSED, UNDECIDED, GateResult

# A sign and a word, for those who see no colour.
SIGNS = {PASSED: "✓", FAILED: "✗", UNDECIDED: "?", "": "–"}
_WORDS = {
    PASSED: "It kept every limit that was set.",
    FAILED: "It broke {failed} of {count} limits.",
    UNDECIDED: "There is not enough evidence for {open} of {count} limits.",
}


def summary(comparison: Comparison | None, gate: GateResult | None) -> dict[str, Any]:
    """Three answers in plain words, each with what it rests on.

    Args:
        comparison: with the network in use.
        gate: whether it may replace that one.

    Returns:
        `use`: sign, word and sentence; `better`: sign, word and sentence; `worse_for` and `better_for`: sentences on
        classes and groups whose interval lies on one side; `notes`: what the reader must know beside.

    Example:
        >>> summary(None, None)["use"]["word"]
        'Not decided'
    """
    return {
        "use": _use(gate, comparison is not None),
        "better": _better(comparison),
        "worse_for": _one_sided(comparison, worse=True),
        "better_for": _one_sided(comparison, worse=False),
        "notes": _notes(comparison, gate),
    }


def class_rows(comparison: Comparison) -> dict[str, Any]:
    """Measures of each class of the candidate, as a table.

    Args:
        comparison: with rows of classes.
    """
    rows: dict[str, dict[str, Any]] = {}
    measures: list[str] = []
    main = main_measure(comparison, CLASS)
    for row in (row for row in comparison.rows if row.scope == CLASS):
        own = rows.setdefault(row.group, {"name": row.group, "support": row.cases, "values": {}, "difference": None})
        own["values"][row.measure] = row.found.candidate.as_dict()
        if row.measure == main:
            own["difference"], own["support"] = row.found.difference.as_dict(), row.cases
        if row.measure not in measures:
            measures.append(row.measure)
    return {"measures": measures, "rows": list(rows.values()), "compared": main, "absent": list(comparison.absent)}


def result_rows(results: Mapping[str, Any]) -> dict[str, Any]:
    """The same table of the results of one network alone.

    Args:
        results: from `class_results`, `label_results`, `grade_results` or `segment_results`.

    Example:
        >>> found = {"classes": {"a": {"support": 3, "recall": {"value": 1.0, "low": 0.4, "high": 1.0}}}, "absent": []}
        >>> result_rows(found)["measures"]
        ['recall']
    """
    measures: list[str] = []
    rows = []
    for name, own in results["classes"].items():
        values = {key: value for key, value in own.items() if isinstance(value, Mapping)}
        measures += [key for key in values if key not in measures]
        shown = {_spoken(key): value for key, value in values.items()}
        rows.append({"name": name, "support": own["support"], "values": shown, "difference": None})
    spoken = [_spoken(measure) for measure in measures]
    return {"measures": spoken, "rows": rows, "compared": "", "absent": list(results["absent"])}


def main_measure(comparison: Comparison, scope: str) -> str:
    """What a whole, a class or a group is judged by.

    Args:
        comparison: for its task.
        scope: of the rows.
    """
    if comparison.task == SEGMENTATION:
        return "Dice"
    return "recall" if scope == CLASS else "macro F1"


def _spoken(key: str) -> str:
    names = {"auroc": "AUROC", "f1": "F1", "dice": "Dice", "surface_distance_95": "surface distance 95 %"}
    return names.get(key, key.replace("_", " ").replace("surface dice", "surface Dice"))


def _use(gate: GateResult | None, compared: bool) -> dict[str, str]:
    if gate is None:
        named = "No limits were named" if compared else "No network in use was named"
        text = f"{named}, so that nothing was held against limits."
        return {"outcome": "", "sign": SIGNS[""], "word": "Not decided", "text": text}
    outcomes = [verdict.outcome for verdict in gate.verdicts]
    counts = {"failed": outcomes.count(FAILED), "open": outcomes.count(UNDECIDED), "count": len(outcomes)}
    text = _WORDS[gate.outcome].format(**counts)
    if gate.equal:
        text = "It gives the answers of the network in use in every case."
    elif not gate.verdicts:
        text = "No limit was set."
    return {"outcome": gate.outcome, "sign": SIGNS[gate.outcome], "word": gate.outcome.capitalize(), "text": text}


def _better(comparison: Comparison | None) -> dict[str, str]:
    if comparison is None:
        text = "There is no network in use to compare with."
        return {"outcome": "", "sign": SIGNS[""], "word": "Not compared", "text": text}
    measure = main_measure(comparison, ALL)
    row = next(iter(comparison.select(ALL, measure)), None)
    if row is None:
        return {"outcome": "", "sign": SIGNS[""], "word": "Not measured", "text": f"{measure} could not be measured."}
    found = row.found
    text = f"{measure} {found.candidate.value:.3f}, in use {found.reference.value:.3f}; {_signed(found.difference)}"
    if comparison.equal:
        return {"outcome": PASSED, "sign": "=", "word": "Equal in every case", "text": text}
    side = _side(row)
    words = {1: ("↑", "Better"), -1: ("↓", "Worse"), 0: ("≈", "No clear difference")}
    outcome = {1: PASSED, -1: FAILED, 0: UNDECIDED}[side]
    return {"outcome": outcome, "sign": words[side][0], "word": words[side][1], "text": text}


def _one_sided(comparison: Comparison | None, worse: bool) -> list[str]:
    if comparison is None:
        return []
    rows = [row for row in comparison.rows if row.scope != ALL and row.measure == main_measure(comparison, row.scope)]
    chosen = [row for row in rows if _side(row) == (-1 if worse else 1)]
    return [f"{_whom(row)}: {row.measure} {_signed(row.found.difference)}, {row.cases} cases" for row in chosen]


def _whom(row: Row) -> str:
    return row.group if row.scope == CLASS else f"{row.scope} {row.group}"


def _side(row: Row) -> int:
    """1 if the interval lies on the better side of zero, -1 if on the worse, else 0."""
    low, high = row.found.difference.low, row.found.difference.high
    if row.measure in LESS_IS_BETTER:
        low, high = -high, -low
    return 1 if low > 0 else -1 if high < 0 else 0


def _signed(difference: Estimate) -> str:
    return f"{difference.value:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})"


def _notes(comparison: Comparison | None, gate: GateResult | None) -> Sequence[str]:
    found = []
    if gate is not None:
        found.append(f"Limits: {gate.origin}.")
        if gate.inherited:
            names = ", ".join(dict.fromkeys(verdict.limit for verdict in gate.inherited))
            found.append(f"The network in use misses these limits too, and no better: {names}.")
    if comparison is not None:
        patients = f" of {comparison.units} patients" if comparison.units < comparison.cases else ""
        found.append(f"On {comparison.cases} cases{patients}.")
        if comparison.absent:
            found.append(f"Without a single case, and so not judged: {', '.join(comparison.absent)}.")
        if comparison.hidden:
            groups = ", ".join(f"{column} {group}" for column, group in comparison.hidden)
            found.append(f"Groups of fewer than 10 cases, whose numbers are not shown: {groups}.")
    return found
