"""Plots of what networks reach on labelled cases, class by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from monai_medmerge.evaluation.report.drawing import COLOURS, Target, canvas
from monai_medmerge.evaluation.report.points import (
    Curve,
    calibration_points,
    net_benefit,
    precision_points,
    roc_points,
)

# More classes than this make no plot that can be read; the tables have all.
MOST_CLASSES = 8
_ACROSS = 3
_STYLES = {"candidate": "-", "in use": "--"}

# Name of a network to its probabilities (case, class).
Scores = Mapping[str, np.ndarray]


def curves_of_classes(
    kind: str, scores: Scores, labels: np.ndarray, names: Sequence[str], path: Target, dark: bool = False
) -> None:
    """One panel a class: ROC, precision and recall, calibration, or net benefit of every network.

    Args:
        kind: `roc`, `precision`, `calibration` or `benefit`.
        scores: name of a network to probabilities (case, class).
        labels: class numbers (case,), or 0 and 1 of each class (case, class).
        names: one per class.
        path: where the PNG goes.
        dark: draw for a dark page.
    """
    shown = shown_classes(labels, len(names))
    across = min(_ACROSS, len(shown))
    down = -(-len(shown) // across)
    with canvas(path, 2.9 * across + 0.4, 2.8 * down + 0.5, dark) as figure:
        grid = figure.subplots(down, across, squeeze=False)
        for axes in grid.flat[len(shown) :]:
            axes.set_visible(False)
        for axes, k in zip(grid.flat, shown, strict=False):
            positive = truth_of(labels, k)
            _PANELS[kind](axes, {name: found[:, k] for name, found in scores.items()}, positive)
            axes.set_title(_short(names[k]), loc="left", fontsize=10)
        grid[0, 0].legend(fontsize=7.5, frameon=False)


def confusion_plot(tables: Mapping[str, Sequence[Sequence[int]]], names: Sequence[str], path: Target,
                   dark: bool = False) -> None:  # fmt: skip
    """How often each class was taken for each, one matrix a network; colours are shares of the row.

    Args:
        tables: name of a network to counts (label, prediction).
        names: one per class.
        path: where the PNG goes.
        dark: draw for a dark page.
    """
    size = max(2.6, 0.55 * len(names) + 1.3)
    with canvas(path, size * len(tables) + 0.9, size + 0.3, dark) as figure:
        for axes, (name, table) in zip(figure.subplots(1, len(tables), squeeze=False)[0], tables.items(), strict=True):
            counts = np.array(table, float)
            shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
            axes.imshow(shares, vmin=0, vmax=1, cmap="cividis")
            for (row, column), count in np.ndenumerate(counts):
                colour = "black" if shares[row, column] > 0.55 else "white"
                axes.text(column, row, f"{count:.0f}", ha="center", va="center", color=colour, fontsize=8)
            places = np.arange(len(names))
            axes.set_xticks(places, [_short(n) for n in names], rotation=90, fontsize=8)
            axes.set_yticks(places, [_short(n) for n in names], fontsize=8)
            axes.set(xlabel="said", ylabel="label")
            axes.set_title(name, loc="left", fontsize=10)


def shown_classes(labels: np.ndarray, count: int) -> list[int]:
    """Numbers of the classes that have cases for and against, at most eight.

    Args:
        labels: as of `curves_of_classes`.
        count: how many classes there are.

    Example:
        >>> shown_classes(np.array([0, 0, 2]), 3)
        [0, 2]
    """
    both = [k for k in range(count) if 0 < truth_of(labels, k).mean() < 1]
    return both[:MOST_CLASSES]


def truth_of(labels: np.ndarray, number: int) -> np.ndarray:
    """Which cases are of a class, bool (case,).

    Args:
        labels: class numbers (case,), or 0 and 1 of each class (case, class).
        number: of the class.
    """
    return np.asarray(labels == number if labels.ndim == 1 else labels[:, number] == 1)


def _short(name: str) -> str:
    return name if len(name) <= 18 else name[:17] + "…"


def _draw(axes: Any, found: Mapping[str, Curve]) -> None:
    for n, (name, (x, y)) in enumerate(found.items()):
        axes.plot(x, y, _STYLES.get(name, "-"), color=COLOURS[n % len(COLOURS)], linewidth=1.6, label=name)


def _roc(axes: Any, scores: Mapping[str, np.ndarray], positive: np.ndarray) -> None:
    axes.plot([0, 1], [0, 1], ":", color="0.5", linewidth=0.8)
    _draw(axes, {name: roc_points(found, positive) for name, found in scores.items()})
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="1 - specificity", ylabel="sensitivity")


def _precision(axes: Any, scores: Mapping[str, np.ndarray], positive: np.ndarray) -> None:
    axes.axhline(positive.mean(), linestyle=":", color="0.5", linewidth=0.8)
    _draw(axes, {name: precision_points(found, positive) for name, found in scores.items()})
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="recall", ylabel="precision")


def _calibration(axes: Any, scores: Mapping[str, np.ndarray], positive: np.ndarray) -> None:
    axes.plot([0, 1], [0, 1], ":", color="0.5", linewidth=0.8)
    _draw(axes, {name: calibration_points(found, positive) for name, found in scores.items()})
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel="probability said", ylabel="share that is so")


def _benefit(axes: Any, scores: Mapping[str, np.ndarray], positive: np.ndarray) -> None:
    parts = {name: net_benefit(found, positive) for name, found in scores.items()}
    _draw(axes, {name: part["network"] for name, part in parts.items()})
    everybody = next(iter(parts.values()))["everybody"]
    axes.plot(*everybody, ":", color="0.5", linewidth=1.2, label="act on everybody")
    axes.axhline(0, color="0.5", linewidth=0.8, label="act on nobody")
    share = float(positive.mean())
    axes.set(xlim=(0, 1), ylim=(-0.3 * share, 1.1 * share), xlabel="probability to act from", ylabel="net benefit")


_PANELS = {"roc": _roc, "precision": _precision, "calibration": _calibration, "benefit": _benefit}
