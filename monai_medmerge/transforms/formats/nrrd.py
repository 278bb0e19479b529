"""NRRD files, `.nrrd` and `.nhdr` (https://teem.sourceforge.net/nrrd/format.html).

Read here rather than by ITK, whose Python package has no images of signed bytes, of vectors of integers, nor of more
than four components, and whose flips of axes say nothing of spaces that are not anatomical.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_medmerge.errors import VolumeError
from monai_medmerge.transforms.formats.loaded import (
    Last,
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

_TYPES = {
    "int8": ("signed char", "int8", "int8_t"),
    "uint8": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "int16": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "uint16": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "int32": ("int", "signed int", "int32", "int32_t"),
    "uint32": ("uint", "unsigned int", "uint32", "uint32_t"),
    "int64": ("longlong", "long long", "long long int", "signed long long", "int64", "int64_t"),
    "uint64": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "float32": ("float",),
    "float64": ("double",),
}
_DTYPES = {word: np.dtype(name) for name, words in _TYPES.items() for word in words}
_PACKINGS: dict[str, Packing] = {"raw": "raw", "gz": "gzip", "gzip": "gzip", "bz2": "bzip2", "bzip2": "bzip2"}
# From a space to RAS, the signs of its axes.
_SPACES = {
    **dict.fromkeys(("right-anterior-superior", "ras"), (1, 1, 1)),
    **dict.fromkeys(("left-anterior-superior", "las"), (-1, 1, 1)),
    **dict.fromkeys(("left-posterior-superior", "lps"), (-1, -1, 1)),
}
_UNITS = {"": 1.0, "mm": 1.0, "m": 1000.0, "cm": 10.0, "um": 0.001}
_NONE = "none"


def load_nrrd(path: Path, max_bytes: int) -> Loaded:
    """Read an NRRD file of three spatial axes, and at most one of colours or volumes.

    Args:
        path: the file, with the voxels in it or in one file beside it.
        max_bytes: the most that the voxels may take.

    Raises:
        VolumeError: the file is damaged, or of a kind that is not read: text encodings, complex numbers, other axes.
    """
    where = path.name
    with path.open("rb") as stream:
        fields = _read_fields(stream, where)
        rank = parse_sizes(field(fields, "dimension", where), f"{where}, dimension", 1)[0]
        if rank not in (3, 4):
            raise VolumeError("three axes, or four", str(rank), f"{where}, dimension")
        sizes = parse_sizes(field(fields, "sizes", where), f"{where}, sizes", rank)
        dtype, packing = _find_dtype(fields, where), _find_packing(fields, where)
        count_bytes(dtype, sizes, max_bytes, where)
        if name := fields.get("data file") or fields.get("datafile"):
            with beside(path, name).open("rb") as detached:
                array = read_voxels(unpacked(detached, packing), dtype, sizes, max_bytes, where)
        else:
            array = read_voxels(unpacked(stream, packing), dtype, sizes, max_bytes, where)
    axes, oriented = _find_axes(fields, rank, where)
    others = [axis for axis, step in enumerate(axes) if step is None]
    steps = [step for step in axes if step is not None]
    if len(steps) != 3:
        raise VolumeError("three spatial axes", str(len(steps)), where)
    kind = _find_kind(fields, others, where)
    if others:
        array = np.moveaxis(array, others[0], -1)
    colored = kind in ("rgb-color", "rgba-color") and array.dtype == np.uint8 and array.shape[-1] in (3, 4)
    affine = np.eye(4)
    affine[:3, :3] = np.stack(steps, axis=1)
    affine[:3, 3] = _find_origin(fields, where)
    signs = _SPACES.get(_space(fields), (-1, -1, 1))
    affine = np.diag([*map(float, signs), 1.0]) @ affine
    last: Last = "" if not others else "colours" if colored else "volumes"
    # An alpha channel is dropped.
    return Loaded(array[..., :3] if colored else array, affine, oriented, _find_unit(fields, where), last)


def _read_fields(stream: Any, where: str) -> dict[str, str]:
    if not re.fullmatch(r"NRRD000[1-5]", read_line(stream, where)):
        raise VolumeError("an NRRD file of version 1 to 5", "another format", where)
    fields: dict[str, str] = {}
    while line := read_line(stream, where):
        # Comments, and key/value pairs, which say nothing of the geometry.
        if line.startswith("#") or ":=" in line:
            continue
        name, colon, value = line.partition(":")
        name = name.strip().lower()
        if not colon or name in fields:
            raise VolumeError("fields, each once", "another line", f"{where}, header")
        fields[name] = value.strip()
    return fields


def _find_dtype(fields: Mapping[str, str], where: str) -> np.dtype[Any]:
    dtype = _DTYPES.get(field(fields, "type", where).lower())
    if dtype is None:
        raise VolumeError("integer or real voxels", "others", f"{where}, type")
    if dtype.itemsize > 1:
        endian = field(fields, "endian", where).lower()
        if endian not in ("little", "big"):
            raise VolumeError("little or big", "another", f"{where}, endian")
        dtype = dtype.newbyteorder("<" if endian == "little" else ">")
    return dtype


def _find_packing(fields: Mapping[str, str], where: str) -> Packing:
    packing = _PACKINGS.get(field(fields, "encoding", where).lower())
    if packing is None:
        raise VolumeError("raw, gzip or bzip2", "another", f"{where}, encoding")
    for name in ("line skip", "byte skip", "lineskip", "byteskip"):
        if fields.get(name, "0") != "0":
            raise VolumeError("voxels that follow the header", "some that are skipped", f"{where}, {name}")
    return packing


def _space(fields: Mapping[str, str]) -> str:
    return fields.get("space", "").lower()


def _find_axes(fields: Mapping[str, str], rank: int, where: str) -> tuple[list[NDArray[np.float64] | None], bool]:
    """Return the step along each axis, None for those that are not spatial, and whether the patient is in them."""
    if "space directions" in fields:
        words = re.findall(r"\([^)]*\)|none", fields["space directions"], re.IGNORECASE)
        if len(words) != rank:
            raise VolumeError(f"{rank} directions", str(len(words)), f"{where}, space directions")
        axes = [None if word.lower() == _NONE else _vector(word, f"{where}, space directions") for word in words]
        return axes, _space(fields) in _SPACES
    kinds = fields.get("kinds", "").lower().split()
    spatial = [not kinds or kinds[i] in ("domain", "space") for i in range(rank)] if len(kinds) in (0, rank) else []
    if rank == 4 and not kinds:
        spatial[3] = False
    if sum(spatial) != 3:
        raise VolumeError("three spatial axes", "others", f"{where}, kinds")
    spacings = fields.get("spacings", " ".join(["1"] * rank)).lower().split()
    if len(spacings) != rank:
        raise VolumeError(f"{rank} spacings", str(len(spacings)), f"{where}, spacings")
    sizes = parse_numbers(" ".join(word for word, fits in zip(spacings, spatial, strict=True) if fits), where, 3)
    units = iter(np.diag(sizes))
    return [next(units) if fits else None for fits in spatial], False


def _vector(word: str, where: str) -> NDArray[np.float64]:
    return np.array(parse_numbers(word.strip("()").replace(",", " "), where, 3))


def _find_origin(fields: Mapping[str, str], where: str) -> NDArray[np.float64]:
    return _vector(fields["space origin"], f"{where}, space origin") if "space origin" in fields else np.zeros(3)


def _find_kind(fields: Mapping[str, str], others: Sequence[int], where: str) -> str:
    kinds = fields.get("kinds", "").lower().split()
    kind = kinds[others[0]] if others and others[0] < len(kinds) else ""
    if kind == "complex":
        raise VolumeError("real voxels", "complex ones", f"{where}, kinds")
    return kind


def _find_unit(fields: Mapping[str, str], where: str) -> float:
    units = {unit.strip().lower() for unit in re.findall(r'"([^"]*)"', fields.get("space units", ""))}
    if len(units) > 1 or not units <= set(_UNITS):
        raise VolumeError("one unit of length", "others", f"{where}, space units")
    return _UNITS[units.pop()] if units else 1.0
