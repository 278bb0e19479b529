"""What a volume file holds, before it is judged, and how its voxels are read without trusting its header."""

from __future__ import annotations

import bz2
import gzip
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from monai_medmerge.errors import VolumeError
from monai_medmerge.files.naming import below
from monai_medmerge.transforms.foreign import is_file

# What may follow the voxels: a footer, padding.
TRAILING = 2**16
_LONGEST_HEADER = 2**18


Last = Literal["", "colours", "volumes"]


@dataclass(frozen=True)
class Loaded:
    """A volume as its file has it.

    Args:
        array: (x, y, z), with the colours or the volumes of the file as a last axis.
        affine: 4 x 4, from voxel indices to RAS, in the file's unit.
        oriented: whether the file says where its voxels lie.
        unit: of the file, in millimetres.
        last: what the last axis holds, "" where there is none.
        volumes: what tells the volumes apart, as JSON.
    """

    array: NDArray[Any]
    affine: NDArray[np.float64]
    oriented: bool = True
    unit: float = 1.0
    last: Last = ""
    volumes: str = "{}"


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Inflated:
    """The bytes of a zlib stream, never more than are asked for."""

    def __init__(self, stream: BinaryIO) -> None:
        # With the header of zlib or of gzip, as MetaIO takes both.
        self.inflate, self.stream = zlib.decompressobj(zlib.MAX_WBITS + 32), stream

    def read(self, size: int, /) -> bytes:
        parts, wanted = [], size
        while wanted > 0 and not self.inflate.eof:
            packed = self.inflate.unconsumed_tail or self.stream.read(2**20)
            part = self.inflate.decompress(packed, wanted) if packed else self.inflate.flush()
            parts.append(part)
            wanted -= len(part)
            if not packed and not self.inflate.eof:
                raise EOFError
        return b"".join(parts)


Packing = Literal["raw", "gzip", "bzip2", "zlib"]


def unpacked(stream: BinaryIO, packing: Packing) -> _Readable:
    """A stream of what another one holds, packed or not."""
    if packing == "gzip":
        return gzip.GzipFile(fileobj=stream)
    if packing == "bzip2":
        return bz2.BZ2File(stream)
    return _Inflated(stream) if packing == "zlib" else stream


def read_voxels(
    stream: _Readable, dtype: np.dtype[Any], shape: Sequence[int], max_bytes: int, where: str
) -> NDArray[Any]:
    """Read voxels of which the first index changes fastest, in native byte order.

    Args:
        stream: at the first voxel.
        dtype: as they are stored.
        shape: their numbers along each axis.
        max_bytes: the most that they may take.
        where: the file's base name.

    Raises:
        VolumeError: there are fewer bytes, or many more, than type and shape say, or more than are allowed.
    """
    needed = count_bytes(dtype, shape, max_bytes, where)
    data = stream.read(needed)
    # Reading on to the end makes gzip compare its checksum; the limit keeps a bomb from going off.
    trailing = len(stream.read(TRAILING + 1))
    if len(data) < needed or trailing > TRAILING:
        found = f"{len(data)}" if len(data) < needed else "many more"
        raise VolumeError(f"{needed} bytes of voxels, as the header says", found, where)
    array = np.frombuffer(data, dtype).reshape(tuple(shape)[::-1]).T
    return array.astype(dtype.newbyteorder("="))


def count_bytes(dtype: np.dtype[Any], shape: Sequence[int], max_bytes: int, where: str) -> int:
    """How many bytes voxels take.

    Raises:
        VolumeError: an axis without voxels, or more bytes than are allowed.
    """
    if min(shape) < 1:
        raise VolumeError("axes of at least one voxel", str(min(shape)), where)
    if (needed := math.prod(shape) * dtype.itemsize) > max_bytes:
        raise VolumeError(f"at most {max_bytes} bytes (max_bytes)", str(needed), where)
    return needed


def beside(path: Path, name: str) -> Path:
    """The file of voxels that a header names, which must lie in the header's own folder.

    Raises:
        VolumeError: the name leads elsewhere, is a pattern or a list, or nothing is there.
    """
    if "%" in name or name.upper().startswith("LIST") or len(PurePosixPath(name).parts) != 1:
        raise VolumeError("the name of one file beside the header", "another", path.name)
    found = below(path.parent, name, f"{path.name}, file of voxels", VolumeError)
    if not is_file(found):
        raise VolumeError("a file of voxels beside the header", "nothing of that name", path.name)
    return found


def read_line(stream: BinaryIO, where: str) -> str:
    """Return the next line of a text header, without its end; an empty string where the header ends.

    Raises:
        VolumeError: the line is no text, or of no sensible length.
    """
    line = stream.readline(_LONGEST_HEADER)
    if stream.tell() > _LONGEST_HEADER:
        raise VolumeError(f"a header of at most {_LONGEST_HEADER} bytes", "more", where)
    return line.decode("utf-8", "replace").rstrip("\r\n")


def parse_numbers(text: str, where: str, count: int | None = None) -> list[float]:
    """Return the finite numbers of a header field.

    Raises:
        VolumeError: something else, or another number of them.
    """
    try:
        values = [float(word) for word in text.split()]
    except ValueError:
        raise VolumeError("numbers", "another text", where) from None
    if not all(map(math.isfinite, values)) or not values or (count is not None and len(values) != count):
        expected = "finite numbers" if count is None else f"{count} finite numbers"
        raise VolumeError(expected, f"{len(values)} of them", where)
    return values


def parse_sizes(text: str, where: str, count: int) -> list[int]:
    """Return whole numbers above zero."""
    values = parse_numbers(text, where, count)
    if not all(value.is_integer() and 0 < value < 2**31 for value in values):
        raise VolumeError("whole numbers above zero", "others", where)
    return [int(value) for value in values]


def field(fields: Mapping[str, str], name: str, where: str) -> str:
    """Return a field of a text header.

    Raises:
        VolumeError: there is none of that name.
    """
    if name not in fields:
        raise VolumeError(f"the field {name}", "none", where)
    return fields[name]
