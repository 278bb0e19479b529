"""Whole-slide images: tiles of one large plane, put together (PS3.3 C.8.12.4, C.7.6.17.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_medmerge.errors import DicomSeriesError
from monai_medmerge.transforms.dicom.geometry.find import find_frames
from monai_medmerge.transforms.dicom.geometry.frames import Frame, find_axes, group_item
from monai_medmerge.transforms.dicom.geometry.stacks import Stack, frame_affine
from monai_medmerge.transforms.dicom.headers import Header, items, numbers
from monai_medmerge.transforms.dicom.values.modality import Volume, read_volume
from monai_medmerge.transforms.dicom.values.pixels import read_layout
from monai_medmerge.transforms.policies import settle

# Pictures of the slide's label, which can name the patient, and of the whole slide; not of the specimen.
_BESIDE = ("LABEL", "OVERVIEW")
_WHITE = 255


@dataclass(frozen=True, slots=True)
class Level:
    """One total pixel matrix: a file, or the files of a concatenation.

    Args:
        headers: of its files, in their order.
        rows: TotalPixelMatrixRows.
        columns: TotalPixelMatrixColumns.
    """

    headers: tuple[Header, ...]
    rows: int
    columns: int


def is_tiled(header: Header) -> bool:
    """Whether the frames of a file are tiles of a larger plane."""
    return "TotalPixelMatrixColumns" in header.dataset or header.text("DimensionOrganizationType").startswith("TILED")


def read_tiles(
    headers: Sequence[Header],
    level: int | None,
    volume: int | str | None,
    policies: Mapping[str, str],
    max_bytes: int,
) -> tuple[Stack, Volume]:
    """Put the tiles of one level together.

    Args:
        headers: of one series.
        level: which total pixel matrix, from the largest, 0; None where there is only one.
        volume: which focal plane or optical path where there are several, from zero, in the order of the file.
        policies: "gap" says what tiles that are missing lead to: white or, in gray, zero where it is not "error".
        max_bytes: the most that the matrix, and its tiles, may take.

    Returns:
        A stack of one frame, whose affine is in the slide's coordinates, and its values, (1, y, x) or (1, y, x, 3).

    Raises:
        DicomSeriesError: a choice is left open, tiles lie outside of the matrix, are missing, disagree where they
            overlap, or are too many.
    """
    chosen = _choose_level(find_levels(headers), level)
    where = chosen.headers[0].where
    layouts = {header.path: read_layout(header, max_bytes) for header in chosen.headers}
    first = layouts[chosen.headers[0].path]
    if (total := chosen.rows * chosen.columns * first.samples * max(first.allocated // 8, 1)) > max_bytes:
        raise DicomSeriesError(f"at most {max_bytes} bytes (max_bytes)", f"{total}: take a smaller level", where)
    frames, corners = _choose_plane(chosen, volume)
    tiles = read_volume(frames, layouts, max_bytes, "invert")
    matrix, missing = _assemble(tiles.array, corners, chosen, where)
    remarks: list[str] = []
    if missing:
        found = f"{missing} of {chosen.rows * chosen.columns} pixels in none"
        settle(DicomSeriesError("tiles for the whole matrix", found, where), policies["gap"], remarks)
    affine = frame_affine(_place(frames[0], chosen))
    stack = Stack((replace(frames[0], index=0),), affine, np.arange(1.0), remarks=tuple(remarks))
    return stack, Volume(matrix[None], tiles.photometric, tiles.mirror)


def find_levels(headers: Sequence[Header]) -> list[Level]:
    """Return the total pixel matrices of a series, the largest first; pictures of label and slide only by themselves.

    Raises:
        DicomSeriesError: a file lacks the size of its matrix.
    """
    specimen = [header for header in headers if not set(_BESIDE) & set(header.image_type)] or list(headers)
    groups: dict[tuple[int, int, str], list[Header]] = {}
    for header in specimen:
        size = header.integer("TotalPixelMatrixRows"), header.integer("TotalPixelMatrixColumns")
        if min(size) < 1:
            raise DicomSeriesError("a total pixel matrix of at least one pixel", "none", header.where)
        # Files that are no concatenation are levels of their own, even of one size.
        part = header.text("ConcatenationUID") or str(header.path)
        groups.setdefault((*size, part), []).append(header)
    levels = [
        Level(
            tuple(sorted(group, key=lambda header: header.integer("ConcatenationFrameOffsetNumber", 0))), rows, columns
        )
        for (rows, columns, _), group in groups.items()
    ]
    return sorted(levels, key=lambda level: -level.rows * level.columns)


def _choose_level(levels: Sequence[Level], level: int | None) -> Level:
    where = levels[0].headers[0].where
    if level is None and len(levels) > 1:
        sizes = ", ".join(f"{number}: {one.columns}x{one.rows}" for number, one in enumerate(levels[:12]))
        raise DicomSeriesError("one level of a slide", f"{len(levels)}, choose by level ({sizes})", where)
    if (level or 0) >= len(levels):
        raise DicomSeriesError(f"a level below {len(levels)}", str(level), where)
    return levels[level or 0]


def _choose_plane(level: Level, volume: int | str | None) -> tuple[list[Frame], list[tuple[int, int]]]:
    """Return the tiles of one focal plane and optical path, and their corners, (top, left) from zero."""
    planes: dict[Any, tuple[list[Frame], list[tuple[int, int]]]] = {}
    for header in level.headers:
        full = header.text("DimensionOrganizationType") == "TILED_FULL"
        offset = header.integer("ConcatenationFrameOffsetNumber", 0)
        for frame in find_frames(header):
            key, corner = _full_place(level, frame, offset) if full else _sparse_place(frame, level)
            tiles, corners = planes.setdefault(key, ([], []))
            tiles.append(frame)
            corners.append(corner)
    where = level.headers[0].where
    if len(planes) > 1 and (volume is None or volume == "all"):
        found = f"{len(planes)}: choose with volume=0 to {len(planes) - 1}"
        raise DicomSeriesError("one focal plane and optical path", found, where)
    number = int(volume) if isinstance(volume, int) else 0
    if number >= len(planes):
        raise DicomSeriesError(f"a volume below {len(planes)}", str(number), where)
    return list(planes.values())[number]


def _full_place(level: Level, frame: Frame, offset: int) -> tuple[int, tuple[int, int]]:
    """Return plane and corner of a tile of TILED_FULL: along rows, down columns, then planes, then optical paths."""
    across, down = -(-level.columns // frame.size[0]), -(-level.rows // frame.size[1])
    plane, tile = divmod(frame.index + offset, across * down)
    planes = frame.header.integer("TotalPixelMatrixFocalPlanes", 1) * frame.header.integer("NumberOfOpticalPaths", 1)
    if plane >= planes:
        found = f"more than {planes} plane(s) of {across}x{down} tiles"
        raise DicomSeriesError("as many tiles as the matrix takes (TILED_FULL)", found, frame.where)
    return plane, (tile // across * frame.size[1], tile % across * frame.size[0])


def _sparse_place(frame: Frame, level: Level) -> tuple[Any, tuple[int, int]]:
    place = group_item(frame.groups, "PlanePositionSlideSequence", frame.where)
    if place is None:
        if frame.size == (level.columns, level.rows) and frame.header.frames == 1:
            return None, (0, 0)
        raise DicomSeriesError("the place of each tile (PlanePositionSlideSequence)", "none", frame.where)
    found = []
    for keyword in ("RowPositionInTotalImagePixelMatrix", "ColumnPositionInTotalImagePixelMatrix"):
        values = numbers(place, keyword, frame.where, count=1)
        if values is None:
            raise DicomSeriesError(keyword, "none", frame.where)
        found.append(int(values[0]) - 1)
    height = numbers(place, "ZOffsetInSlideCoordinateSystem", frame.where, count=1)
    path = group_item(frame.groups, "OpticalPathIdentificationSequence", frame.where)
    name = "" if path is None else str(path.get("OpticalPathIdentifier") or "")
    return (height or (0.0,), name), (found[0], found[1])


def _assemble(
    tiles: NDArray[Any], corners: Sequence[tuple[int, int]], level: Level, where: str
) -> tuple[NDArray[Any], int]:
    """Return the matrix, and how many of its pixels no tile holds."""
    color = tiles.ndim == 4
    matrix = np.full((level.rows, level.columns, *tiles.shape[3:]), _WHITE if color else 0, tiles.dtype)
    covered = np.zeros((level.rows, level.columns), bool)
    for tile, (top, left) in zip(tiles, corners, strict=True):
        if not (0 <= top < level.rows and 0 <= left < level.columns):
            raise DicomSeriesError("tiles within the matrix", "one outside of it", where)
        # Tiles at the lower and right edge may reach beyond it.
        part = (slice(top, top + tile.shape[0]), slice(left, left + tile.shape[1]))
        before, known = matrix[part], covered[part]
        values = tile[: before.shape[0], : before.shape[1]]
        if known.any() and not np.array_equal(before[known], values[known]):
            raise DicomSeriesError("tiles that agree where they overlap", "others", where)
        matrix[part] = values
        covered[part] = True
    return matrix, int(covered.size - np.count_nonzero(covered))


def _place(frame: Frame, level: Level) -> Frame:
    """Return the first frame with the matrix's place in the slide's coordinates, whose axes are not the patient's."""
    header = level.headers[0]
    position = np.zeros(3)
    for origin in items(header.dataset, "TotalPixelMatrixOriginSequence", header.where)[:1]:
        for axis, name in enumerate("XYZ"):
            values = numbers(origin, f"{name}OffsetInSlideCoordinateSystem", header.where, count=1)
            position[axis] = values[0] if values else 0.0
    axes = find_axes(header.dataset, header.where, "ImageOrientationSlide")
    return replace(frame, position=position, orientation=axes)
