"""Whether two folders of predictions say the same, image by image."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_medmerge.errors import DatasetError
from monai_medmerge.transforms import CheckedNiftiReader


@dataclass(frozen=True)
class Difference:
    """What was found.

    Args:
        images: how many were compared.
        largest: difference of any answer, relative to the largest answer of all.
        where: the first image that differs by more than is allowed, with both answers; empty if none does.
    """

    images: int
    largest: float
    where: str


def first_difference(before: Path, after: Path, tolerance: float) -> Difference:
    """Compare `predictions.csv`, or label maps of the same names.

    Args:
        before: folder of one.
        after: folder of the other.
        tolerance: of probabilities, relative to the largest; label maps have to be equal.

    Raises:
        DatasetError: there is nothing in common to compare, or one lacks an image.
    """
    one, other = _answers(before), _answers(after)
    if not one or set(one) != set(other):
        raise DatasetError("predictions of the same images", f"{len(one)} and {len(other)}", "parity")
    scale = max(float(np.abs(values).max()) for values in one.values()) or 1.0
    largest, where = 0.0, ""
    for number, name in enumerate(sorted(one), 1):
        if one[name].shape != other[name].shape:
            return Difference(len(one), float("inf"), f"image {number}: shapes {one[name].shape}, {other[name].shape}")
        gap = np.abs(one[name] - other[name])
        found = float(gap.max()) / scale
        if not where and not found <= tolerance:
            place = np.unravel_index(int(gap.argmax()), gap.shape)
            where = f"image {number}: {one[name][place]:.6g} before, {other[name][place]:.6g} after"
        largest = max(largest, found)
    return Difference(len(one), largest, where)


def _answers(folder: Path) -> dict[str, NDArray[np.float64]]:
    table = folder / "predictions.csv"
    if table.is_file():
        with table.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
        return {Path(row[0]).name: _numbers(row[1:]) for row in rows if row and _is_number(row[-1])}
    reader = CheckedNiftiReader()
    return {
        path.name: np.asarray(reader.get_data(reader.read(path))[0], float) for path in sorted(folder.rglob("*.nii.gz"))
    }


def _numbers(cells: list[str]) -> NDArray[np.float64]:
    return np.array([float(cell) for cell in cells if _is_number(cell)])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
