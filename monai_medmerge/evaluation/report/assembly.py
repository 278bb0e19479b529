"""What a report says, in plain types: the one content of its page, its JSON and its model card."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from monai_medmerge.evaluation.comparison.pictures import CasePicture
from monai_medmerge.evaluation.comparison.rows import Comparison
from monai_medmerge.evaluation.gate import GateResult
from monai_medmerge.evaluation.report.first_screen import class_rows, result_rows, summary
from monai_medmerge.evaluation.shares import source_names, summarise
from monai_medmerge.ranking.order import Ranking
from monai_medmerge.sources import MatchReport, Source

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 2
# What may be told of a source's origin. All else, file names above all, stays out.
PROVENANCE = ("data", "licence", "reference", "origin", "format", "key_map", "adaptations", "alignment")
# Of these, what people write themselves and may hold a slash.
PROSE = ("data", "licence", "reference", "adaptations")
# A checkpoint's metadata may be a book.
LONGEST = 300
PACKAGES = ("monai_medmerge", "monai", "torch", "pytorch-ignite", "numpy", "scikit-learn")
_CONFIGURATION = {".json", ".yaml", ".yml", ".conf", ".py"}


@dataclass(frozen=True)
class ReportContent:
    """What there is to report; every part may be missing.

    Args:
        title: of the page and the card.
        purpose: what the network is for, and what not, in the user's words.
        sources: what was merged.
        about: name of a source to facts that its tensors do not hold, such as `data`, `licence` and `reference`.
        match: how the sources fit the network.
        ranking: which of them are worth it.
        contributions: share of each source per tensor.
        coefficients: the coefficients themselves, for their histogram.
        similarity: from `layer_similarity`.
        course: name of a source to points (epoch, share), from `ContributionCourse.curves`.
        curves: name of a training curve to points (epoch, loss).
        stages: name of a stage to what it reached: numbers, and intervals as pairs.
        results: of the network alone, from `class_results` or one of its kin.
        class_names: of those results.
        predictions: probabilities and labels behind those results, for their curves; in no file.
        pictures: of single cases, where the comparison has none.
        comparison: candidate beside reference.
        gate: whether it may replace it.
        settings: of the run, as plain values.
        seeds: name to seed.
        command: that repeats the run, in parts as `sys.argv` has them; paths are left out.
    """

    title: str
    purpose: str = ""
    sources: Sequence[Source] = ()
    about: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    match: MatchReport | None = None
    ranking: Ranking | None = None
    contributions: pd.DataFrame | None = None
    coefficients: Mapping[str, Tensor] | None = None
    similarity: pd.DataFrame | None = None
    course: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    curves: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    stages: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    results: Mapping[str, Any] | None = None
    class_names: Sequence[str] = ()
    predictions: tuple[np.ndarray, np.ndarray] | None = None
    pictures: Sequence[CasePicture] = ()
    comparison: Comparison | None = None
    gate: GateResult | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    seeds: Mapping[str, int] = field(default_factory=dict)
    command: Sequence[str] = ()


def document(content: ReportContent) -> dict[str, Any]:
    """The content in plain types, without what could identify a patient; parts that are missing are None or empty.

    Args:
        content: what there is to report.

    Example:
        >>> found = document(ReportContent("Tiny", command=["run", "--dataset_dir", "/ward/doe", "--seed", "3"]))
        >>> found["command"], found["gate"]
        ('run --dataset_dir PATH --seed 3', None)
    """
    frame = content.contributions
    return {
        "schema": SCHEMA,
        "title": content.title,
        "purpose": content.purpose,
        "sources": [_source(source, content.about.get(source.name, {})) for source in content.sources],
        "match": _match(content.match) if content.match else None,
        "ranking": content.ranking.as_dict() if content.ranking else None,
        "contributions": None if frame is None else _contributions(frame),
        "similarity": [] if content.similarity is None else _records(content.similarity),
        "course": _lines(content.course),
        "curves": _lines(content.curves),
        "stages": {name: _plain(stage) for name, stage in content.stages.items()},
        "summary": summary(content.comparison, content.gate),
        "classes": _classes(content),
        "task": _task(content),
        "thresholds": _thresholds(content),
        "comparison": content.comparison.as_dict() if content.comparison else None,
        "gate": content.gate.as_dict() if content.gate else None,
        "settings": {name: _without_paths(_plain(value)) for name, value in content.settings.items()},
        "seeds": dict(content.seeds),
        "command": describe_command(content.command),
        "versions": versions(),
    }


def _classes(content: ReportContent) -> dict[str, Any] | None:
    if content.comparison is not None:
        return class_rows(content.comparison)
    return None if content.results is None else result_rows(content.results)


def _task(content: ReportContent) -> str:
    if content.comparison is not None:
        return content.comparison.task
    return str((content.results or {}).get("task", ""))


def _thresholds(content: ReportContent) -> list[dict[str, Any]]:
    if content.comparison is not None:
        by_class: Mapping[str, Any] = content.comparison.thresholds
    else:
        classes = (content.results or {}).get("classes", {})
        by_class = {name: own["thresholds"] for name, own in classes.items() if "thresholds" in own}
    return [{"class": name, **threshold} for name, found in by_class.items() for threshold in found]


def versions() -> dict[str, str]:
    """Python and the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def describe_command(parts: Sequence[str]) -> str:
    """A command without its paths, whose names may identify a patient or a machine; configurations keep their names.

    Args:
        parts: as in `sys.argv`.

    Example:
        >>> describe_command(["/opt/run.py", "--config_file", "configs/merge.json", "--output_dir=C:\\\\doe\\\\out"])
        'run.py --config_file merge.json --output_dir=PATH'
    """
    shown = []
    for part in parts:
        option, equals, value = part.partition("=") if part.startswith("-") else ("", "", part)
        shown.append(f"{option}{equals}{_without_paths(value)}")
    return " ".join(shown)


def _without_paths(value: Any) -> Any:
    if isinstance(value, str) and re.search(r"[/\\]", value):
        path = PurePosixPath(PureWindowsPath(value).as_posix())
        return path.name if path.suffix in _CONFIGURATION else "PATH"
    if isinstance(value, list):
        return [_without_paths(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_paths(item) for key, item in value.items()}
    return value


def origin_of(source: Source, about: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What may be told of where a source came from, without file names and paths; None where nothing is known.

    Args:
        source: its provenance, and in it the `metadata` of its file, which anyone may have written.
        about: facts that go before both.

    Example:
        >>> metadata = {"licence": "CC BY 4.0", "patient": "DOE^JANE"}
        >>> source = Source("chest", {"a": Tensor([1.0])}, {"file": "doe.safetensors", "metadata": metadata})
        >>> {key: value for key, value in origin_of(source).items() if value is not None}
        {'licence': 'CC BY 4.0'}
    """
    metadata = source.provenance.get("metadata", {})
    facts = {**{key: metadata.get(key) for key in PROSE}, **source.provenance, **(about or {})}
    told = {key: _plain(facts.get(key) or None) for key in PROVENANCE}
    told |= {key: _without_paths(value) for key, value in told.items() if key not in PROSE}
    return {key: value[:LONGEST] if isinstance(value, str) else value for key, value in told.items()}


def _source(source: Source, about: Mapping[str, Any]) -> dict[str, Any]:
    told = origin_of(source, about)
    count = sum(tensor.numel() for tensor in source.tensors.values())
    licence = str(told["licence"] or "not stated")
    return {"name": source.name, "sha256": source.sha256, "numbers": count, **told, "licence": licence}


def _match(report: MatchReport) -> dict[str, Any]:
    """The verdicts, and only those tensors that not every source has."""
    found = report.as_dict()
    open_rows = [row for row in found["tensors"] if any(fit["status"] != "match" for fit in row["sources"].values())]
    return {**found, "count": len(found["tensors"]), "tensors": open_rows}


def _lines(curves: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, Any]:
    return {
        name: [[_plain(float(x)), _plain(float(y))] for x, y in points] for name, points in curves.items() if points
    }


def _contributions(frame: pd.DataFrame) -> dict[str, Any]:
    return {
        "sources": source_names(frame),
        "network": _records(summarise(frame, None))[0],
        "stages": _records(summarise(frame, "stage")),
        "tensors": _records(frame),
    }


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): _plain(value) for key, value in row.items()} for row in frame.to_dict("records")]


def _plain(value: Any) -> Any:
    """Plain types that JSON knows; what is not finite is None, what is unknown is its type's name."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else f"a {type(value).__name__}"
