"""MetaImage files, `.mha` and `.mhd` (https://itk.org/Wiki/MetaIO/Documentation).

Read here rather than by ITK, whose Python package has no images of signed bytes or of vectors of integers, and whose
parser takes what a header leaves out for zero without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_medmerge.errors import VolumeError
from monai_medmerge.transforms.formats.loaded import (
    Loaded,
    Packing,
    beside,
    count_bytes,
    field,
    parse_numbers,
    parse_sizes,
    read_line,
    read_voxels,
    unpacked,
)

_DTYPES = {
    "MET_CHAR": "int8",
    "MET_UCHAR": "uint8",
    "MET_SHORT": "int16",
    "MET_USHORT": "uint16",
    "MET_INT": "int32",
    "MET_UINT": "uint32",
    "MET_LONG_LONG": "int64",
    "MET_ULONG_LONG": "uint64",
    "MET_FLOAT": "float32",
    "MET_DOUBLE": "float64",
}
_MATRIX, _ORIGIN, _SPACING = (
    ("TransformMatrix", "Rotation", "Orientation"),
    ("Offset", "Position", "Origin"),
    ("ElementSpacing", "ElementSize"),
)
_UNITS = {"mm": 1.0, "cm": 10.0, "um": 0.001, "?": 1.0}


def load_metaimage(path: Path, max_bytes: int) -> Loaded:
    """Read a MetaImage of three axes, or four.

    Args:
        path: the file, with the voxels in it (`.mha`) or in one file beside it (`.mhd`).
        max_bytes: the most that the voxels may take.

    Raises:
        VolumeError: the file is damaged, or of a kind that is not read: text, several files of voxels.
    """
    where = path.name
    with path.open("rb") as stream:
        fields = _read_fields(stream, where)
        rank = parse_sizes(field(fields, "NDims", where), f"{where}, NDims", 1)[0]
        if rank not in (3, 4):
            raise VolumeError("three axes, or four", str(rank), f"{where}, NDims")
        channels = parse_sizes(fields.get("ElementNumberOfChannels", "1"), f"{where}, ElementNumberOfChannels", 1)[0]
        if rank == 4 and channels > 1:
            raise VolumeError("three axes of vectors", "four", where)
        sizes = parse_sizes(field(fields, "DimSize", where), f"{where}, DimSize", rank)
        # The channels of a voxel lie together.
        shape = [channels, *sizes] if channels > 1 else sizes
        dtype, packing = _find_dtype(fields, where), _find_packing(fields, where)
        count_bytes(dtype, shape, max_bytes, where)
        name = fields["ElementDataFile"]
        if name.upper() == "LOCAL":
            array = read_voxels(unpacked(stream, packing), dtype, shape, max_bytes, where)
        else:
            with beside(path, name).open("rb") as detached:
                array = read_voxels(unpacked(detached, packing), dtype, shape, max_bytes, where)
    affine = np.diag([-1.0, -1, 1, 1]) @ _find_affine(fields, rank, where)
    oriented = _first(fields, _MATRIX) is not None and _first(fields, _ORIGIN) is not None
    unit = _UNITS.get(fields.get("DistanceUnits", "mm").lower())
    if unit is None:
        raise VolumeError("mm, cm or um", "another", f"{where}, DistanceUnits")
    if channels == 1:
        return Loaded(array, affine, oriented, unit, "volumes" if rank == 4 else "")
    array = np.moveaxis(array, 0, -1)
    colored = array.dtype == np.uint8 and channels in (3, 4)
    return Loaded(array[..., :3] if colored else array, affine, oriented, unit, "colours" if colored else "volumes")


def _read_fields(stream: Any, where: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    while line := read_line(stream, where):
        name, equals, value = line.partition("=")
        name = name.strip()
        if not equals or (name in fields and name != "Comment"):
            raise VolumeError("fields, each once", "another line", f"{where}, header")
        fields[name] = value.strip()
        if name == "ElementDataFile":
            break
    if fields.get("ObjectType", "Image").lower() != "image" or "ElementDataFile" not in fields:
        raise VolumeError("a MetaImage that ends in ElementDataFile", "another format", where)
    return fields


def _first(fields: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((fields[name] for name in names if name in fields), None)


def _flag(fields: Mapping[str, str], names: tuple[str, ...], default: bool) -> bool:
    found = _first(fields, names)
    return default if found is None else found.lower() in ("true", "t", "1")


def _find_dtype(fields: Mapping[str, str], where: str) -> np.dtype[Any]:
    name = _DTYPES.get(field(fields, "ElementType", where).upper().removesuffix("_ARRAY"))
    if name is None:
        raise VolumeError("integer or real voxels", "others", f"{where}, ElementType")
    big = _flag(fields, ("BinaryDataByteOrderMSB", "ElementByteOrderMSB"), default=False)
    return np.dtype(name).newbyteorder(">" if big else "<")


def _find_packing(fields: Mapping[str, str], where: str) -> Packing:
    if not _flag(fields, ("BinaryData",), default=True):
        raise VolumeError("binary voxels", "text", f"{where}, BinaryData")
    if fields.get("HeaderSize", "0") != "0":
        raise VolumeError("voxels that follow the header", "some that are skipped", f"{where}, HeaderSize")
    for name, plain in (("ElementToIntensityFunctionSlope", 1.0), ("ElementToIntensityFunctionOffset", 0.0)):
        if name in fields and parse_numbers(fields[name], f"{where}, {name}", 1) != [plain]:
            raise VolumeError("values as they are stored", "a scaling, which no reader applies", f"{where}, {name}")
    return "zlib" if _flag(fields, ("CompressedData",), default=False) else "raw"


def _find_affine(fields: Mapping[str, str], rank: int, where: str) -> NDArray[np.float64]:
    """Return the affine to LPS; what the header leaves out is as ITK takes it."""
    matrix, origin, spacing = (_first(fields, names) for names in (_MATRIX, _ORIGIN, _SPACING))
    axes = np.eye(rank)
    if matrix is not None:
        axes = np.reshape(parse_numbers(matrix, f"{where}, TransformMatrix", rank * rank), (rank, rank))
    steps = np.ones(rank) if spacing is None else np.array(parse_numbers(spacing, f"{where}, ElementSpacing", rank))
    if (steps[:3] <= 0).any():
        raise VolumeError("voxel sizes above zero", str(steps[:3].tolist()), f"{where}, ElementSpacing")
    if rank == 4 and (abs(axes[3, :3]).max() > 1e-6 or abs(axes[:3, 3]).max() > 1e-6):
        raise VolumeError("a fourth axis of its own", "one that turns in space", f"{where}, TransformMatrix")
    affine = np.eye(4)
    # Each row of the matrix is the direction of an axis.
    affine[:3, :3] = (axes[:3, :3] * steps[:3, None]).T
    if origin is not None:
        affine[:3, 3] = parse_numbers(origin, f"{where}, Offset", rank)[:3]
    return affine
