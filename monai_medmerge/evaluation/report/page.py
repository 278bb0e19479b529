"""One report: a page that needs nothing but itself, the same content as JSON, and a model card in Markdown."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.utils import optional_import

from monai_medmerge.evaluation.comparison.pictures import CasePicture
from monai_medmerge.evaluation.report.assembly import ReportContent, document
from monai_medmerge.evaluation.report.drawings import figures
from monai_medmerge.files import write_text

jinja2, _ = optional_import("jinja2", descriptor="pip install 'monai_medmerge[report]': {}")

TEMPLATES = Path(__file__).parent / "templates"
PAGE, DATA, CARD = "report.html", "report.json", "MODEL_CARD.md"
# Part of the document to its heading in the page, in its order, by the reader that it is for.
_RESULTS = {
    "gate": "Limits",
    "classes": "Each class",
    "comparison": "Beside the network in use",
}
_DONE = {
    "stages": "Stages",
    "sources": "Sources",
    "match": "Match",
    "ranking": "Ranking",
    "contributions": "Contributions",
}
# Parts whose keys are names that the user gave.
_NAMED = ("stages", "curves", "course", "settings", "seeds")


def write_report(folder: str | os.PathLike[str], content: ReportContent) -> dict[str, Path]:
    """Write `report.html`, `report.json` and `MODEL_CARD.md`, each whole or not at all.

    The page holds its pictures and its style, asks for nothing, and suits light and dark screens, phones and paper.

    Args:
        folder: is made if absent; older files of these names are replaced.
        content: what there is to report.

    Returns:
        The three paths by their names.

    Raises:
        OutputError: they cannot be written.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     paths = write_report(folder, ReportContent("Tiny", seeds={"training": 3}))
        ...     [json.loads(paths[DATA].read_text())["seeds"], paths[CARD].read_text().splitlines()[0]]
        [{'training': 3}, '# Tiny']
    """
    found = document(content)
    written = {
        PAGE: render_page(content, found),
        DATA: json.dumps(found, indent=1, allow_nan=False) + "\n",
        CARD: render_card(found),
    }
    paths = {}
    for name, text in written.items():
        paths[name] = Path(folder) / name
        write_text(paths[name], text)
    return paths


def render_page(content: ReportContent, found: Mapping[str, Any]) -> str:
    """The page as HTML.

    Args:
        content: for the figures.
        found: from `document`, for all else.
    """
    results = [(name, text) for name, text in _RESULTS.items() if found[name]]
    pictures = _pictures(content.comparison.pictures if content.comparison else content.pictures)
    results += [("cases", "Single cases")] if pictures else []
    done = [(name, text) for name, text in _DONE.items() if found[name]]
    done += [("training", "Training")] if found["curves"] or found["course"] else []
    done += [("again", "To repeat it")]
    template = _environment(escape=True).get_template("report.html.j2")
    # Style is the package's own text, and the only one that is not escaped.
    labels = content.comparison.class_names if content.comparison else content.class_names
    css = jinja2.utils.markupsafe.Markup((TEMPLATES / "report.css").read_text(encoding="utf-8"))
    page: str = template.render(
        d=found,
        css=css,
        figures=figures(content),
        results=results,
        done=done,
        pictures=pictures,
        labels=labels,
        **_tables(found),
    )
    return page


def _pictures(cases: Sequence[CasePicture]) -> list[dict[str, Any]]:
    """Cases by kind, with slices as addresses that hold them."""
    kinds = dict.fromkeys(case.kind for case in cases)
    return [
        {
            "kind": kind,
            "cases": [
                {
                    "name": case.name,
                    "caption": case.caption,
                    "panels": case.panels,
                    "size": case.size,
                    "slices": [
                        ("data:image/webp;base64," + base64.b64encode(data).decode(), place)
                        for data, place in zip(case.slices, case.places, strict=True)
                    ],
                }
                for case in cases
                if case.kind == kind
            ],
        }
        for kind in kinds
    ]


def render_card(found: Mapping[str, Any]) -> str:
    """The model card as Markdown, for the docs of a bundle.

    Args:
        found: from `document`.
    """
    escaped = _escape(found)
    # Templates know all other keys by name; these are the user's.
    escaped |= {part: {_escape(key): value for key, value in escaped[part].items()} for part in _NAMED}
    escaped["stages"] = {
        key: {_escape(name): value for name, value in stage.items()} for key, stage in escaped["stages"].items()
    }
    card: str = _environment(escape=False).get_template("model_card.md.j2").render(d=escaped, **_tables(escaped))
    # Parts that are missing leave blank lines behind.
    return re.sub(r"\n{3,}", "\n\n", card).strip() + "\n"


def number(value: Any, digits: int = 3) -> str:
    """A number as text; a dash where there is none.

    Args:
        value: a number, None or anything else, which is shown as it is.
        digits: after the point.

    Example:
        >>> number(0.12345), number(None), number(7), number([0.5, 0.25])
        ('0.123', '–', '7', '0.500 to 0.250')
    """
    if value is None:
        return "–"
    if isinstance(value, list) and len(value) == 2:
        return f"{number(value[0], digits)} to {number(value[1], digits)}"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def _environment(escape: bool) -> Any:
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=escape,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    found.filters["number"] = number
    found.filters["interval"] = interval
    found.filters["columns"] = lambda rows, *names: [[number(row[name]) for name in names] for row in rows]
    return found


def _tables(found: Mapping[str, Any]) -> dict[str, Any]:
    """Rows of the tables whose columns depend on the content, as text."""
    stages, ranking, shares = found["stages"], found["ranking"], found["contributions"]
    # What is measured of each class has tables of its own.
    names = list(dict.fromkeys(n for stage in stages.values() for n, v in stage.items() if not isinstance(v, Mapping)))
    tables: dict[str, Any] = {
        "stage_names": [name.replace("_", " ") for name in names],
        "stage_rows": [[key, *(number(stage.get(name)) for name in names)] for key, stage in stages.items()],
    }
    if found["classes"]:
        tables["class_heads"], tables["class_rows"] = _class_table(found["classes"])
    if found["comparison"]:
        tables["test_rows"] = [
            [
                t["of"] or "all cases",
                t["test"],
                str(t["worse"]),
                str(t["better"]),
                f"{t['p']:.3g}",
                f"{t['adjusted']:.3g}",
            ]
            for t in found["comparison"]["tests"]
        ]
    if ranking:
        columns = ("name", "h_score", "log_evidence", "linear_probe", "mean_rank", "verdict")
        control = {**ranking["untrained"], "name": "untrained", "mean_rank": None, "verdict": "for comparison"}
        tables["ranking_rows"] = [[number(row[c]) for c in columns] for row in [*ranking["scores"], control]]
    if shares:
        columns = tuple(column for column in shares["network"] if column not in ("kernels", "numbers"))
        tables["stage_shares"] = [[row["stage"], *(number(row[c]) for c in columns)] for row in shares["stages"]]
        tables["stage_shares"].append(["all", *(number(shares["network"][c]) for c in columns)])
        tables["tensor_shares"] = [[row["tensor"], *(number(row[c]) for c in columns)] for row in shares["tensors"]]
    return tables


def interval(found: Mapping[str, Any] | None, signed: bool = False) -> str:
    """An estimate as text.

    Args:
        found: `value`, `low` and `high`, or None.
        signed: whether to show a plus.

    Example:
        >>> interval({"value": 0.5, "low": 0.25, "high": 0.75}), interval(None)
        ('0.500 (0.250 to 0.750)', '–')
    """
    if not found or found["value"] is None:
        return "–"
    sign = "+" if signed else ""
    bounds = "" if found["low"] is None else f" ({found['low']:{sign}.3f} to {found['high']:{sign}.3f})"
    return f"{found['value']:{sign}.3f}{bounds}"


def _class_table(found: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    heads = ["Class", "Cases"]
    heads += [f"Change in {found['compared']}"] if found["compared"] else []
    heads += [measure[:1].upper() + measure[1:] for measure in found["measures"]]
    rows = []
    for row in found["rows"]:
        change = [interval(row["difference"], signed=True)] if found["compared"] else []
        values = [interval(row["values"].get(measure)) for measure in found["measures"]]
        rows.append([row["name"], str(row["support"]), *change, *values])
    return heads, rows


def _escape(value: Any) -> Any:
    """Text that Markdown takes as text, in tables too; keys stay."""
    if isinstance(value, str):
        return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", " ".join(value.split()))
    if isinstance(value, Mapping):
        return {key: _escape(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_escape(item) for item in value]
    return value
