"""The figures of a report, each drawn for light and for dark pages, with a text for those who cannot see it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from monai_medmerge.evaluation.bootstrap import Estimate
from monai_medmerge.evaluation.comparison.cases import ALL, CLASS
from monai_medmerge.evaluation.comparison.rows import SEGMENTATION, Comparison
from monai_medmerge.evaluation.gate import GateResult
from monai_medmerge.evaluation.report import plots
from monai_medmerge.evaluation.report.assembly import ReportContent
from monai_medmerge.evaluation.report.drawing import png
from monai_medmerge.evaluation.report.result_plots import confusion_plot, curves_of_classes, shown_classes
from monai_medmerge.evaluation.shares import source_names
from monai_medmerge.ranking.order import Ranking

_MOST_IN_MATRIX = 15
# Pixels.
_WIDE = 950


@dataclass(frozen=True)
class Figure:
    """One picture.

    Args:
        section: of the report that it belongs to.
        caption: what it shows.
        alternative: the same for those who cannot see it, with the main numbers.
        light: PNG for light pages.
        dark: PNG for dark pages.
    """

    section: str
    caption: str
    alternative: str
    light: bytes
    dark: bytes

    @property
    def light_uri(self) -> str:
        """The picture in the page itself."""
        return _uri(self.light)

    @property
    def dark_uri(self) -> str:
        """The picture in the page itself."""
        return _uri(self.dark)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, which a PNG states in its bytes 16 to 24."""
        return int.from_bytes(self.light[16:20], "big"), int.from_bytes(self.light[20:24], "big")

    @property
    def wide(self) -> bool:
        """Whether it is better scrolled than shrunk on a phone."""
        return self.size[0] > _WIDE


def figures(content: ReportContent) -> list[Figure]:
    """All figures that the content allows.

    Args:
        content: what there is to report.
    """
    found: list[Figure] = []
    if content.ranking and len(content.ranking.names) > 1:
        found.append(_alike(content.ranking))
    if content.contributions is not None:
        found += _shares(content)
    if content.similarity is not None and len(content.similarity):
        table = content.similarity.set_index("layer")
        text = "Heat map of layers and sources. Mean: " + _list(dict(table.mean()))
        values = table.to_numpy(float).T
        rows, columns = list(table.columns), list(table.index)
        title = "CKA of each merged layer with each source's, on target images"
        found.append(_figure("contributions", title, text, partial(_heat, values, rows, columns, title)))
    found += _of_classes(content)
    found += _lines("Shares while coefficients were learned", "share of the network", content.course)
    found += _lines("Training curves", "loss", content.curves)
    if content.comparison:
        found += _compared(content.comparison, content.gate)
    return found


def _figure(section: str, caption: str, alternative: str, draw: Callable[..., bytes]) -> Figure:
    return Figure(section, caption, alternative, draw(dark=False), draw(dark=True))


def _heat(
    values: np.ndarray,
    rows: list[str],
    columns: list[str],
    title: str,
    limits: tuple[float, float] = (0.0, 1.0),
    dark: bool = False,
) -> bytes:
    return png(plots.heat_map, values, rows, columns, title=title, limits=limits, dark=dark)


def _lines(title: str, ylabel: str, curves: Mapping[str, Sequence[tuple[float, float]]]) -> list[Figure]:
    known = {name: points for name, points in curves.items() if points}
    if not known:
        return []
    text = "Lines over epochs. At the end: " + _list({name: points[-1][1] for name, points in known.items()})
    return [_figure("training", title, text, partial(png, plots.curves_plot, known, title=title, ylabel=ylabel))]


def _alike(ranking: Ranking) -> Figure:
    values, names = np.nan_to_num(np.array(ranking.similarity, float)), list(ranking.names)
    pairs = {f"{names[i]} and {names[j]}": values[i, j] for i in range(len(names)) for j in range(i)}
    caption = "How alike the sources' features of the target are (linear CKA)"
    text = "Heat map of sources. " + _list(pairs)
    return _figure("ranking", caption, text, partial(_heat, values.clip(0, 1), names, names, "CKA of sources"))


def _shares(content: ReportContent) -> list[Figure]:
    frame = content.contributions
    layers, names = plots.layers_of_weights(frame), source_names(frame)
    text = _list({name: layers[name].mean() for name in names})
    values = layers[names].to_numpy(float).T
    # Shares stay near one another; colours from 0 to 1 would hide what differs.
    limits = (max(0.0, float(values.min()) - 0.05), min(1.0, float(values.max()) + 0.05))
    bars = partial(png, plots.contributions_plot, frame)
    found = [
        _figure(
            "contributions", "Share of each source in every layer", f"Stacked bars. Mean over layers: {text}", bars
        ),
        _figure(
            "contributions",
            "The same shares as a heat map over depth",
            f"Heat map of sources and layers. Mean over layers: {text}",
            partial(_heat, values, names, layers["layer"].tolist(), "Share over depth", limits),
        ),
    ]
    if content.coefficients:
        middle = {
            name: np.mean([t[n].mean().item() for t in content.coefficients.values()]) for n, name in enumerate(names)
        }
        draw = partial(png, plots.histogram_plot, content.coefficients, names)
        text = "Outlines of histograms, one per source. Mean coefficient over tensors: " + _list(middle)
        found.append(_figure("contributions", "Distribution of the coefficients of all kernels", text, draw))
    return found


def _compared(comparison: Comparison, gate: GateResult | None) -> list[Figure]:
    wanted = "Dice" if comparison.task == SEGMENTATION else "recall"
    rows = comparison.select(ALL, "macro F1") + comparison.select(ALL, "Dice")
    rows += comparison.select(CLASS, wanted)
    rows += [row for row in comparison.rows if row.scope in comparison.columns and row.measure in ("macro F1", "Dice")]
    differences: dict[str, Estimate] = {row.name: row.found.difference for row in rows}
    limit = gate.limits.get("class_drop", {}).get("limit") if gate else None
    text = "Points with intervals. Candidate minus reference: " + _list({n: d.value for n, d in differences.items()})
    draw = partial(png, plots.differences_plot, differences, limit=limit)
    found = [_figure("comparison", "Difference of the candidate to the reference", text, draw)]
    if comparison.calibration:
        errors = {name: known.error.value for name, known in comparison.calibration.items()}
        draw = partial(png, plots.reliability_plot, comparison.calibration)
        text = "Accuracy against confidence. Expected calibration error: " + _list(errors)
        found.append(_figure("comparison", "Reliability: accuracy against confidence", text, draw))
    return found


_CURVES = {
    "roc": ("ROC curves, each class against the rest", "Sensitivity against 1 - specificity."),
    "precision": ("Precision against recall; dotted, the share of the class", "Precision against recall."),
    "calibration": (
        "Calibration: how often it is so when a probability is said; on the dotted line, as often as said",
        "Share that is so against the probability said.",
    ),
    "benefit": (
        "Net benefit of acting from a probability on (decision curve analysis)",
        "Net benefit against the probability to act from, beside acting on everybody and on nobody.",
    ),
}


def _of_classes(content: ReportContent) -> list[Figure]:
    """Curves and confusion matrices of the candidate, and of the network in use where there is one."""
    comparison, found = content.comparison, []
    if comparison is not None and comparison.scores is not None:
        reference, candidate, labels = comparison.scores
        scores, names = {"candidate": candidate, "in use": reference}, comparison.class_names
        confusion: dict[str, Any] = {"in use": comparison.confusion["reference"]}
        confusion["candidate"] = comparison.confusion["candidate"]
    elif content.predictions is not None and content.results is not None:
        scores, labels = {"network": content.predictions[0]}, content.predictions[1]
        names = tuple(content.class_names)
        confusion = {"network": content.results["confusion"]} if "confusion" in content.results else {}
    else:
        return []
    if confusion and len(names) <= _MOST_IN_MATRIX:
        text = "Matrices of labels (rows) and what was said (columns). Right: " + "; ".join(
            f"{name} {sum(table[k][k] for k in range(len(names)))} of {sum(map(sum, table))}"
            for name, table in confusion.items()
        )
        draw = partial(png, confusion_plot, confusion, names)
        found.append(_figure("classes", "Confusion: what cases of each class were taken for", text, draw))
    if shown_classes(labels, len(names)):
        for kind, (caption, text) in _CURVES.items():
            draw = partial(png, curves_of_classes, kind, scores, labels, names)
            found.append(_figure("classes", caption, f"One panel a class. {text} The tables have the numbers.", draw))
    return found


def _list(values: dict[str, Any]) -> str:
    return "; ".join(f"{name} {value:.2f}" for name, value in values.items()) + "."


def _uri(picture: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(picture).decode()
