"""Single cases as pictures: the worst and the most changed, with what networks look at or where they draw the line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

# Okabe and Ito's colours for labels, from the first that is no background.
COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (204, 121, 167), (213, 94, 0), (240, 228, 66), (0, 114, 178))
HEAT = np.array([(0, 0, 0), (120, 28, 109), (237, 105, 37), (252, 255, 164)], float)
WORST, CHANGED, LOST, WON = "worst", "most changed", "newly wrong", "newly right"
COUNT, SLICES = 10, 9
# Pixels of the longer side of one panel.
_SIDE = 144


@dataclass(frozen=True)
class CasePicture:
    """One case, as panels side by side; of a volume, several slices.

    Args:
        kind: `worst`, `most changed`, `newly wrong` or `newly right`.
        name: of the case, from `Naming`.
        caption: what is true and what both say.
        panels: what each panel shows, from left to right.
        slices: WebP files, one for each slice.
        places: what to call the slices, such as `slice 12 of 34`; one empty text for a flat image.
        size: width and height in pixels.
    """

    kind: str
    name: str
    caption: str
    panels: tuple[str, ...]
    slices: tuple[bytes, ...]
    places: tuple[str, ...]
    size: tuple[int, int]


@dataclass
class Kept:
    """What is kept of one case until it is known which are shown.

    Args:
        name: of the case.
        image: float (channel, *space).
        facts: what its picture needs beside.
    """

    name: str
    image: np.ndarray
    facts: dict[str, Any]


class Gallery:
    """Keeps the cases with the highest marks of each kind while all go by, and no more.

    Args:
        count: of each kind.

    Example:
        >>> gallery = Gallery(1)
        >>> for n, mark in enumerate([0.2, 0.9, 0.5]):
        ...     gallery.see(Kept(f"case {n}", np.zeros((1, 2, 2)), {}), mark, 0.0)
        >>> [(kind, kept.name) for kind, kept in gallery.shown()]
        [('worst', 'case 1')]
    """

    def __init__(self, count: int = COUNT) -> None:
        self.count = count
        self._ranked: dict[str, list[tuple[float, int, Kept]]] = {kind: [] for kind in (WORST, CHANGED, LOST, WON)}
        self._seen = 0

    def see(self, kept: Kept, worst: float, changed: float, gain: float = 0.0) -> None:
        """Take in one case.

        Args:
            kept: the case.
            worst: how wrong the candidate is; 0 is not kept.
            changed: how far the two networks are apart; 0 is not kept.
            gain: of a case whose answer flips, how much; below 0 if it became wrong, 0 if it does not flip.
        """
        self._seen += 1
        for ranked, mark in zip(self._ranked.values(), (worst, changed, -gain, gain), strict=True):
            if mark > 1e-6:
                ranked.append((-mark, self._seen, kept))
                ranked.sort(key=lambda entry: entry[:2])
                del ranked[self.count :]

    def shown(self) -> list[tuple[str, Kept]]:
        """Kind and case, the highest marks first."""
        return [(kind, kept) for kind, ranked in self._ranked.items() for _, _, kept in ranked]


def classified(kept: Kept, kind: str, caption: str, heats: Sequence[tuple[str, np.ndarray | None]]) -> CasePicture:
    """An image, and beside it what each network looked at.

    Args:
        kept: the case.
        kind: `worst`, `most changed`, `newly wrong` or `newly right`.
        caption: what is true and what both say.
        heats: what a panel shows, and saliency (*space) from 0 to 1; None is left out.
    """
    grey = _grey(kept.image)
    panels = [("image", None), *((name, heat) for name, heat in heats if heat is not None)]
    found = []
    for index in _places(grey):
        flat = _plane(grey, index)
        row = [_heated(flat, None if heat is None else _plane(heat, index)) for _, heat in panels]
        found.append(row)
    return _picture(kept, kind, caption, [name for name, _ in panels], found, grey)


def segmented(kept: Kept, kind: str, caption: str, maps: Sequence[tuple[str, np.ndarray]]) -> CasePicture:
    """An image with label maps over it, side by side.

    Args:
        kept: the case.
        kind: `worst`, `most changed`, `newly wrong` or `newly right`.
        caption: what both reach.
        maps: what a panel shows, and label numbers (*space).
    """
    grey = _grey(kept.image)
    anything = np.any([labels > 0 for _, labels in maps], axis=0)
    places = _places(grey, anything)
    found = [[_labelled(_plane(grey, index), _plane(labels, index)) for _, labels in maps] for index in places]
    return _picture(kept, kind, caption, [name for name, _ in maps], found, grey, places)


def _grey(image: np.ndarray) -> np.ndarray:
    """Brightness from 0 to 1, (*space)."""
    flat = image.mean(0) if len(image) == 3 else image[0]
    low, high = np.percentile(flat, [0.5, 99.5])
    return np.asarray(((flat - low) / max(float(high - low), 1e-9)).clip(0, 1))


def _places(grey: np.ndarray, among: np.ndarray | None = None) -> list[int]:
    """Slices to show: spread over those that hold anything."""
    if grey.ndim < 3:
        return [0]
    held = np.arange(grey.shape[2])
    if among is not None and among.any():
        inside = np.flatnonzero(among.any((0, 1)))
        held = np.arange(inside[0], inside[-1] + 1)
    chosen = np.linspace(held[0], held[-1], min(SLICES, len(held)))
    return list(dict.fromkeys(np.rint(chosen).astype(int).tolist()))


def _plane(values: np.ndarray, index: int) -> np.ndarray:
    """Rows from top to bottom; of a volume in RAS, the patient's right is on the left and the front above."""
    return values.T if values.ndim < 3 else values[::-1, ::-1, index].T


def _heated(grey: np.ndarray, heat: np.ndarray | None) -> np.ndarray:
    base = np.repeat(grey[..., None], 3, 2) * 255
    if heat is None:
        return base
    steps = heat.clip(0, 1) * (len(HEAT) - 1)
    low = np.minimum(steps.astype(int), len(HEAT) - 2)
    colour = HEAT[low] + (HEAT[low + 1] - HEAT[low]) * (steps - low)[..., None]
    share = 0.65 * heat.clip(0, 1)[..., None]
    return base * (1 - share) + colour * share


def _labelled(grey: np.ndarray, labels: np.ndarray) -> np.ndarray:
    base = np.repeat(grey[..., None], 3, 2) * 255
    for number in np.unique(labels[labels > 0]).astype(int).tolist():
        inside = labels == number
        edge = inside & ~_shrunk(inside)
        colour = np.array(COLOURS[(number - 1) % len(COLOURS)], float)
        base[inside] = 0.7 * base[inside] + 0.3 * colour
        base[edge] = colour
    return base


def _shrunk(inside: np.ndarray) -> np.ndarray:
    padded = np.pad(inside, 1)
    return padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:] & inside


def _picture(
    kept: Kept,
    kind: str,
    caption: str,
    panels: Sequence[str],
    rows: Sequence[Sequence[np.ndarray]],
    grey: np.ndarray,
    places: Sequence[int] = (0,),
) -> CasePicture:
    pictures = [_row(row) for row in rows]
    places = places if len(places) == len(rows) else _places(grey)
    deep = grey.ndim > 2
    names = [f"slice {index + 1} of {grey.shape[2]}" if deep else "" for index in places]
    encoded = []
    for picture in pictures:
        buffer = BytesIO()
        picture.save(buffer, "WEBP", quality=72, method=4)
        encoded.append(buffer.getvalue())
    return CasePicture(kind, kept.name, caption, tuple(panels), tuple(encoded), tuple(names), pictures[0].size)


def _row(panels: Sequence[np.ndarray]) -> Image.Image:
    """Panels side by side, of one size, with a gap."""
    height, width = panels[0].shape[:2]
    scale = _SIDE / max(height, width)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    found = Image.new("RGB", (size[0] * len(panels) + 4 * (len(panels) - 1), size[1]), (128, 128, 128))
    for n, panel in enumerate(panels):
        part = Image.fromarray(panel.clip(0, 255).astype(np.uint8))
        found.paste(part.resize(size, Image.Resampling.BICUBIC), (n * (size[0] + 4), 0))
    return found
