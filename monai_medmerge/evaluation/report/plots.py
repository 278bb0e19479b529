"""Plots of a merge: shares, coefficients, training; and of what it brought beside the network in use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from monai_medmerge.evaluation.report.drawing import COLOURS, MARKERS, Target, canvas
from monai_medmerge.evaluation.shares import source_names, summarise

if TYPE_CHECKING:
    import pandas as pd

    from monai_medmerge.evaluation.barriers import LossLine
    from monai_medmerge.evaluation.bootstrap import Estimate
    from monai_medmerge.evaluation.reliability import Calibration

# More layers than this get no name each.
_NAMED = 60


def contributions_plot(frame: pd.DataFrame, path: Target, dark: bool = False) -> None:
    """Each source's share of every layer's kernels, over depth, as stacked bars; below, how far coefficients moved.

    Args:
        frame: from `contributions`. Layers are drawn by their weights; norms and biases are left out.
        path: where the PNG goes: a path or a binary file.
        dark: draw for a dark page.
    """
    sources, drawn = source_names(frame), layers_of_weights(frame)
    with canvas(path, min(max(6.0, 0.32 * len(drawn) + 2), 16.0), 5.4, dark) as figure:
        axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        positions, bottom = np.arange(len(drawn)), np.zeros(len(drawn))
        for n, name in enumerate(sources):
            shares = drawn[name].to_numpy(float)
            axes.bar(positions, shares, bottom=bottom, color=COLOURS[n % len(COLOURS)], label=name, width=0.85)
            bottom += shares
        axes.set(ylim=(0, 1), xlim=(-0.6, len(drawn) - 0.4), ylabel="share of the kernels")
        axes.set_title("What each layer took from whom", loc="left")
        below.bar(positions, drawn["movement"].to_numpy(float), color="0.5", width=0.85)
        below.set(ylabel="moved by")
        below.set_title("How far its coefficients moved from their start", loc="left", fontsize=10)
        _name_layers(below, drawn["layer"])
        line = "white" if dark else "black"
        axes.axhline(1 / len(sources), color=line, linewidth=0.8, linestyle=":", label="equal shares")
        figure.legend(loc="outside upper right", ncols=min(len(sources) + 1, 6), fontsize=8, frameon=False)


def layers_of_weights(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per layer with kernels of its own: norms and biases, which follow them, are left out.

    Args:
        frame: from `contributions`.
    """
    if (frame["numbers"] > frame["kernels"]).any():
        weights = frame["numbers"] > frame["kernels"]
    else:
        # Without sizes, names have to do.
        norms = frame["layer"].str.contains(r"(?:bn|norm)\d*$", regex=True)
        weights = frame["tensor"].str.endswith("weight") & ~norms
    return summarise(frame[weights] if weights.any() else frame, "layer")


def _name_layers(axes: Any, names: Sequence[str]) -> None:
    if len(names) <= _NAMED:
        axes.set_xticks(np.arange(len(names)), list(names), rotation=90, fontsize=8)
    axes.set_xlabel("layer, from input to output")


def heat_map(
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    path: Target,
    title: str,
    limits: tuple[float, float] = (0.0, 1.0),
    dark: bool = False,
) -> None:
    """Numbers as colours: shares over depth, or how alike sources are; few of them are written out.

    Args:
        values: (row, column).
        rows: their names.
        columns: their names.
        path: where the PNG goes.
        title: what the numbers are.
        limits: numbers of the first and the last colour.
        dark: draw for a dark page.
    """
    few = len(columns) <= 8
    size = (1.2 * len(columns) + 3, 0.6 * len(rows) + 1.5) if few else (min(0.3 * len(columns) + 3, 16.0), 4.2)
    with canvas(path, max(size[0], 5.0), max(size[1], 2.4), dark) as figure:
        axes = figure.subplots()
        colours = {"vmin": limits[0], "vmax": limits[1], "cmap": "cividis"}
        image = axes.imshow(values, **colours, aspect="auto", interpolation="nearest")
        axes.set_yticks(np.arange(len(rows)), list(rows), fontsize=9)
        if few:
            axes.set_xticks(np.arange(len(columns)), list(columns), fontsize=9)
            for (row, column), value in np.ndenumerate(values):
                colour = "black" if value > 0.45 * limits[0] + 0.55 * limits[1] else "white"
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour)
        else:
            _name_layers(axes, columns)
        axes.set_title(title, loc="left")
        figure.colorbar(image, ax=axes, pad=0.01)


def histogram_plot(
    coefficients: Mapping[str, Tensor], sources: Sequence[str], path: Target, dark: bool = False
) -> None:
    """How the coefficients of all kernels are distributed, one outline per source.

    Args:
        coefficients: as `coefficients` returns them.
        sources: their names, in that order.
        path: where the PNG goes.
        dark: draw for a dark page.
    """
    rows = [
        np.concatenate([table[n].detach().cpu().double().numpy().ravel() for table in coefficients.values()])
        for n in range(len(sources))
    ]
    together = np.concatenate(rows)
    low, high = float(together.min()), float(together.max())
    bins = np.linspace(low, high, 61) if high > low else np.linspace(low - 0.5, low + 0.5, 61)
    with canvas(path, 5.2, 3.1, dark) as figure:
        axes = figure.subplots()
        for n, (name, row) in enumerate(zip(sources, rows, strict=True)):
            axes.hist(row, bins, histtype="step", linewidth=1.6, color=COLOURS[n % len(COLOURS)], label=name)
        axes.set(xlabel="coefficient", ylabel="kernels")
        axes.set_title("Coefficients of all kernels", loc="left")
        axes.legend(fontsize=8, frameon=False)


def curves_plot(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    path: Target,
    title: str,
    ylabel: str,
    xlabel: str = "epoch",
    dark: bool = False,
) -> None:
    """Lines over training: losses, metrics, or the share of each source.

    Args:
        curves: name to points (x, y).
        path: where the PNG goes.
        title: what is shown.
        ylabel: what y is.
        xlabel: what x is.
        dark: draw for a dark page.
    """
    with canvas(path, 5.2, 3.1, dark) as figure:
        axes = figure.subplots()
        for n, (name, points) in enumerate(curves.items()):
            x, y = zip(*points, strict=True) if points else ((), ())
            kind = {"color": COLOURS[n % len(COLOURS)], "marker": MARKERS[n % len(MARKERS)]}
            axes.plot(x, y, **kind, markersize=3, linewidth=1.6, label=name)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.set_title(title, loc="left")
        axes.grid(alpha=0.25)
        if curves:
            axes.legend(fontsize=8, frameon=False)


def reliability_plot(calibrations: Mapping[str, Calibration], path: Target, dark: bool = False) -> None:
    """Accuracy against confidence: on the diagonal, a network is as often right as it says.

    Args:
        calibrations: name of a network to its calibration.
        path: where the PNG goes.
        dark: draw for a dark page.
    """
    with canvas(path, 5.2, 4.6, dark) as figure:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color="0.5", linewidth=0.8, linestyle=":", label="as sure as right")
        for n, (name, found) in enumerate(calibrations.items()):
            filled = [(b.confidence, b.accuracy, b.cases) for b in found.bins if b.cases]
            confidence, accuracy, cases = (np.array(column) for column in zip(*filled, strict=True))
            colour, label = COLOURS[n], f"{name}: ECE {found.error.value:.3f}"
            axes.plot(confidence, accuracy, color=colour, marker=MARKERS[n], label=label)
            axes.scatter(confidence, accuracy, 400 * cases / cases.sum(), color=colour, alpha=0.25)
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence", ylabel="accuracy")
        axes.set_title("Calibration (larger discs: more cases)", loc="left")
        axes.legend(fontsize=8, frameon=False, loc="lower right")


def differences_plot(
    differences: Mapping[str, Estimate], path: Target, limit: float | None = None, dark: bool = False
) -> None:
    """Candidate minus reference with intervals, one line for each class or group.

    Args:
        differences: what was compared to the estimate.
        path: where the PNG goes.
        limit: largest drop of a class that is allowed, as a line.
        dark: draw for a dark page.
    """
    known = {name: found for name, found in differences.items() if np.isfinite([found.value, found.low]).all()}
    places = np.arange(len(known))[::-1]
    with canvas(path, 5.4, 0.32 * len(known) + 1.4, dark) as figure:
        axes = figure.subplots()
        values = np.array([found.value for found in known.values()])
        spread = np.array([[e.value - e.low for e in known.values()], [e.high - e.value for e in known.values()]])
        # A percentile interval need not hold its estimate, and error bars must not be negative.
        axes.errorbar(values, places, xerr=spread.clip(min=0), fmt="o", color=COLOURS[0], capsize=3)
        axes.axvline(0, color="0.5", linewidth=0.8)
        if limit is not None:
            axes.axvline(-limit, color=COLOURS[5], linewidth=1, linestyle="--", label="largest drop of a class")
            axes.legend(fontsize=8, frameon=False)
        axes.set_yticks(places, list(known), fontsize=8)
        axes.set(xlabel="candidate minus reference, 95 % interval", ylim=(-0.7, len(known) - 0.3))
        axes.set_title("Better or worse than what is in use", loc="left")


def barrier_plot(lines: Sequence[LossLine], path: Target) -> None:
    """Loss and accuracy on the line between two networks, raw, aligned and recalibrated.

    Args:
        lines: from `barrier`.
        path: where the PNG goes.
    """
    with canvas(path, 9.0, 3.6) as figure:
        loss, accuracy = figure.subplots(1, 2)
        for line, colour, marker in zip(lines, COLOURS, MARKERS, strict=False):
            loss.plot(line.positions, line.loss, color=colour, marker=marker, label=f"{line.name}: {line.barrier:+.3f}")
            lacking = f"{line.name}: {-100 * line.accuracy_barrier:+.1f}"
            accuracy.plot(line.positions, [100 * a for a in line.accuracy], color=colour, marker=marker, label=lacking)
        loss.set(ylabel="cross-entropy", title="Loss", yscale="log")
        # The usual labels of a logarithmic axis are formulas.
        loss.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        loss.yaxis.set_minor_formatter(lambda value, _: "")
        accuracy.set(ylabel="right answers, %", title="Accuracy")
        for axes in (loss, accuracy):
            axes.set_xlabel("position between the two networks")
            axes.legend(title="midpoint against mean of the ends", fontsize=8, title_fontsize=8, frameon=False)
