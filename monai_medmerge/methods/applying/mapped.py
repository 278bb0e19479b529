"""Safetensors files whose tensors are read one by one, without keeping the pages that were read."""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from monai_medmerge.errors import UnsafeCheckpointError
from monai_medmerge.files import read_json, shown
from monai_medmerge.files.naming import LONGEST_NAME
from monai_medmerge.methods.tensors import TensorHeader
from monai_medmerge.sources.checkpoint.places import INDEX_SUFFIXES

# The format's names of what torch can compute with.
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "BOOL": torch.bool,
}  # fmt: skip
# Bytes of mapped pages, of all files together, after which they are given back: what is mapped counts as resident.
MOST_MAPPED = 32 * 2**20


@dataclass(frozen=True)
class _Stored:
    """Where a tensor lies."""

    file: Path
    header: TensorHeader
    offset: int


class MappedCheckpoints:
    """Several checkpoints, their headers in memory and their tensors on disk.

    Args:
        paths: `.safetensors` files, or the `.safetensors.index.json` of sharded ones.

    Raises:
        UnsafeCheckpointError: a file is absent, damaged, or of another kind.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)
        self._maps: dict[Path, mmap.mmap] = {}
        self._stored = [self._look(path) for path in self.paths]
        self._read = 0
        self.headers = [{name: stored.header for name, stored in found.items()} for found in self._stored]

    def read(self, checkpoint: int, name: str) -> Tensor:
        """One tensor, mapped; it stays valid however many others are read.

        Args:
            checkpoint: index among the paths.
            name: of a tensor that it has.
        """
        if self._read > MOST_MAPPED:
            self._give_back()
        stored = self._stored[checkpoint][name]
        self._read += stored.header.bytes
        return _tensor(self._maps[stored.file], stored)

    def _give_back(self) -> None:
        """Drop all pages; those of a tensor still in use come back from the file when it is looked at."""
        self._read = 0
        # Windows has no such call, and counts mapped pages differently.
        if hasattr(mmap, "MADV_DONTNEED"):
            for mapped in self._maps.values():
                mapped.madvise(mmap.MADV_DONTNEED)

    def _look(self, path: Path) -> dict[str, _Stored]:
        if path.name.endswith(INDEX_SUFFIXES[0]):
            shards = _read_index(path)
            files = {shard: self._map(shard) for shard in dict.fromkeys(shards.values())}
            try:
                found = {name: files[shard][name] for name, shard in shards.items()}
            except KeyError as error:
                raise UnsafeCheckpointError(f"the tensor {error} in its shard", "no such tensor", path.name) from error
        elif path.suffix == ".safetensors":
            found = self._map(path)
        else:
            raise UnsafeCheckpointError("a .safetensors file or its index", f"the suffix {path.suffix!r}", path.name)
        if not found:
            raise UnsafeCheckpointError("at least one tensor", "none", path.name)
        return found

    def _map(self, path: Path) -> dict[str, _Stored]:
        """Map a file after the library has found that header and data agree."""
        if not path.is_file():
            raise UnsafeCheckpointError("a safetensors file", "nothing there", path.name)
        try:
            with safe_open(str(path), framework="pt", device="cpu"), path.open("rb") as file:
                # Private and writable, which torch wants of a buffer; nothing is written.
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            length = int.from_bytes(mapped[:8], "little")
            entries = json.loads(mapped[8 : 8 + length])
        # The library maps header values to torch's types itself; a damaged header surfaces as any of these.
        except (SafetensorError, OSError, ValueError, TypeError, KeyError, RuntimeError, AttributeError) as error:
            raise UnsafeCheckpointError("a whole safetensors file", type(error).__name__, path.name) from error
        entries.pop("__metadata__", None)
        self._maps[path] = mapped
        return {name: _entry(path, 8 + length, name, entry) for name, entry in entries.items()}


def _entry(path: Path, data: int, name: str, entry: Mapping[str, Any]) -> _Stored:
    """Where one tensor of a checked header lies."""
    if entry["dtype"] not in DTYPES:
        raise UnsafeCheckpointError(f"numbers among {', '.join(DTYPES)}", entry["dtype"], f"{path.name}, {name}")
    return _Stored(path, TensorHeader(DTYPES[entry["dtype"]], tuple(entry["shape"])), data + entry["data_offsets"][0])


def _tensor(mapped: mmap.mmap, stored: _Stored) -> Tensor:
    header, offset = stored.header, stored.offset
    if not header.bytes:
        return torch.empty(header.shape, dtype=header.dtype)
    if offset % header.dtype.itemsize:
        # The format does not promise alignment, torch's kernels expect it: such a tensor is copied.
        content = torch.frombuffer(mapped, dtype=torch.uint8, count=header.bytes, offset=offset).clone()
        return content.view(header.dtype).reshape(header.shape)
    count = header.bytes // header.dtype.itemsize
    return torch.frombuffer(mapped, dtype=header.dtype, count=count, offset=offset).reshape(header.shape)


def _read_index(index: Path) -> dict[str, Path]:
    """Names to the shards beside an index."""
    try:
        weight_map = dict(read_json(index, UnsafeCheckpointError)["weight_map"])
    except UnsafeCheckpointError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise UnsafeCheckpointError(
            "a JSON object with a weight_map of names to files", type(error).__name__, index.name
        ) from error
    for shard in weight_map.values():
        # A shard lies beside its index: a name with a folder in it would lead elsewhere.
        plain = isinstance(shard, str) and PurePosixPath(shard).name == shard and len(shard) <= LONGEST_NAME
        if not plain or "\\" in shard or "\0" in shard:
            raise UnsafeCheckpointError("the plain file name of a shard", shown(repr(shard)), index.name)
    return {name: index.parent / shard for name, shard in weight_map.items()}
