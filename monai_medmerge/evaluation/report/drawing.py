"""The one place that knows matplotlib: figures as PNG, whole or not at all, without any state of their own.

Figures are objects, `pyplot` is not used. Names are text: a `$` in one of them starts no formula.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from monai.utils import optional_import

from monai_medmerge.files import whole_file

_EXTRA = "pip install 'monai_medmerge[report]': {}"
Figure, _ = optional_import("matplotlib.figure", name="Figure", descriptor=_EXTRA)
style, _ = optional_import("matplotlib.style", descriptor=_EXTRA)

Target = str | os.PathLike[str] | BinaryIO

# Okabe and Ito's palette: told apart with any kind of colour vision.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "0.5")
MARKERS = "osD^vPX*"
# Inches.
_NARROW = 5.5
_DARK = "#171b21"
# A light blue is read better on dark than the palette's first.
_PLAIN = {"text.parse_math": False, "axes.spines.top": False, "axes.spines.right": False, "font.size": 10}
_THEMES: dict[bool, list[Any]] = {
    False: ["default", _PLAIN],
    True: [
        "dark_background",
        {"figure.facecolor": _DARK, "axes.facecolor": _DARK, "savefig.facecolor": _DARK, **_PLAIN},
    ],
}


@contextmanager
def canvas(target: Target, width: float, height: float, dark: bool = False) -> Iterator[Any]:
    """A figure of that size in inches; it is written once the block has ended without an error.

    Args:
        target: where the PNG goes: a path or a binary file.
        width: inches.
        height: inches.
        dark: for a dark page.
    """
    # Narrow figures are shown smaller, on phones above all, and so get more pixels to their text.
    dpi = 160 if width <= _NARROW else 120
    with style.context(_THEMES[dark]):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        if not isinstance(target, str | os.PathLike):
            figure.savefig(target, format="png", dpi=dpi)
            return
        with whole_file(Path(target)) as part:
            figure.savefig(part, format="png", dpi=dpi)


def png(plot: Any, *arguments: Any, **options: Any) -> bytes:
    """What a plot function writes, in memory.

    Args:
        plot: a function that draws.
        arguments: what it takes before `path`.
        options: what it takes by name.

    Example:
        >>> import numpy as np
        >>> from monai_medmerge.evaluation.report.plots import heat_map
        >>> png(heat_map, np.eye(2), ["a", "b"], ["$a", "$b"], title="alike")[1:4]
        b'PNG'
    """
    buffer = BytesIO()
    plot(*arguments, path=buffer, **options)
    return buffer.getvalue()
