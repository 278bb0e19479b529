"""A sheet with a few images of each class, to see that labels are what they say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from monai_medmerge.data.gathering.items import Item
from monai_medmerge.errors import MedMergeError
from monai_medmerge.files import shown
from monai_medmerge.transforms.images import MedicalImageReader

SIDE, COLUMNS, MARGIN, LINE = 96, 8, 4, 14


def draw_sheet(items: Sequence[Item], path: Path, seed: int = 0) -> None:
    """Write a PNG with one row a class: up to eight images, the middle slice of volumes.

    Args:
        items: images that can be read.
        path: the file to write.
        seed: which images are drawn.
    """
    rows: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        label = item.label if isinstance(item.label, str) else "volumes" if item.label else "no label"
        rows[label].append(item)
    height = len(rows) * (SIDE + LINE + MARGIN) + MARGIN
    sheet = Image.new("L", (COLUMNS * (SIDE + MARGIN) + MARGIN, height), 255)
    pen, rng = ImageDraw.Draw(sheet), np.random.default_rng(seed)
    for row, (label, there) in enumerate(sorted(rows.items())):
        top = MARGIN + row * (SIDE + LINE + MARGIN)
        pen.text((MARGIN, top), f"{shown(label, 60)} ({len(there)})".encode("ascii", "replace").decode(), fill=0)
        for column, n in enumerate(sorted(rng.permutation(len(there))[:COLUMNS])):
            sheet.paste(_thumbnail(there[n].image), (MARGIN + column * (SIDE + MARGIN), top + LINE))
    sheet.save(path, format="PNG")


def _thumbnail(path: Path) -> Image.Image:
    """Grey, squeezed into a square; a grey square where a reader refuses what merely the sheet asks for."""
    reader = MedicalImageReader()
    try:
        array, _ = reader.get_data(reader.read(path))
    except MedMergeError:
        return Image.new("L", (SIDE, SIDE), 128)
    return Image.fromarray(_grey(array)).resize((SIDE, SIDE))


def _grey(array: NDArray[Any]) -> NDArray[np.uint8]:
    plane = array.astype(np.float64)
    if plane.ndim == 3 and plane.shape[-1] == 3:
        plane = plane.mean(-1)
    while plane.ndim > 2:
        plane = plane[..., plane.shape[-1] // 2]
    low, high = np.percentile(plane, (1, 99))
    return (255 * np.clip((plane.T - low) / max(high - low, 1e-9), 0, 1)).astype(np.uint8)
