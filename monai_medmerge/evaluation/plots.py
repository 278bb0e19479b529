"""What people would rather see than read. The only room that draws."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

if TYPE_CHECKING:
    import pandas as pd

    from monai_medmerge.evaluation.barrier import LossLine

# Okabe and Ito's palette: told apart with any kind of colour vision.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")


def contributions_plot(frame: pd.DataFrame, path: Path) -> None:
    """Each source's share of every layer's kernels, over depth, as stacked bars.

    Args:
        frame: from `contributions`. Layers are drawn by their weights; norms and biases are left out.
        path: where the PNG goes.
    """
    sources = list(frame.columns[3:-2])
    drawn = frame[frame["tensor"].str.endswith("weight") & ~frame["layer"].str.contains(r"(?:bn|norm)\d*$", regex=True)]
    drawn = drawn if len(drawn) else frame
    figure = Figure(figsize=(max(6.0, 0.32 * len(drawn) + 2), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    positions, bottom = np.arange(len(drawn)), np.zeros(len(drawn))
    for name, colour in zip(sources, COLOURS * (1 + len(sources) // len(COLOURS)), strict=False):
        shares = drawn[name].to_numpy(float)
        axes.bar(positions, shares, bottom=bottom, color=colour, label=name, width=0.85)
        bottom += shares
    axes.set(
        ylim=(0, 1),
        xlim=(-0.6, len(drawn) - 0.4),
        ylabel="share of the kernels",
        title="What each layer took from whom",
    )
    axes.set_xticks(positions, drawn["layer"], rotation=90, fontsize=8)
    axes.set_xlabel("layer, from input to output")
    axes.axhline(1 / len(sources), color="black", linewidth=0.8, linestyle=":", label="equal shares")
    figure.legend(loc="outside upper right", ncols=len(sources) + 1, fontsize=8, frameon=False)
    figure.savefig(path, dpi=120)


def barrier_plot(lines: Sequence[LossLine], path: Path) -> None:
    """Loss and accuracy on the line between two networks, raw, aligned and recalibrated.

    Args:
        lines: from `barrier`.
        path: where the PNG goes.
    """
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    loss, accuracy = figure.subplots(1, 2)
    for line, colour, marker in zip(lines, COLOURS, "osD^vP", strict=False):
        loss.plot(line.positions, line.loss, color=colour, marker=marker, label=f"{line.name}: {line.barrier:+.3f}")
        lacking = f"{line.name}: {-100 * line.accuracy_barrier:+.1f}"
        accuracy.plot(line.positions, [100 * a for a in line.accuracy], color=colour, marker=marker, label=lacking)
    loss.set(ylabel="cross-entropy", title="Loss", yscale="log")
    accuracy.set(ylabel="right answers, %", title="Accuracy")
    for axes in (loss, accuracy):
        axes.set_xlabel("position between the two networks")
        axes.legend(title="midpoint against mean of the ends", fontsize=8, title_fontsize=8, frameon=False)
    figure.savefig(path, dpi=120)
