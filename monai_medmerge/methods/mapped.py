"""Safetensors files whose tensors are read one by one, without keeping the pages that were read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from monai_medmerge.errors import UnsafeCheckpointError
from monai_medmerge.sources.checkpoint import INDEX_SUFFIX

# The format's names of what torch can compute with.
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "BOOL": torch.bool,
}  # fmt: skip
# Bytes of mapped pages, of all files together, after which they are given back: what is mapped counts as resident.
MOST_MAPPED = 32 * 2**20


@dataclass(frozen=True)
class TensorHeader:
    """Kind and shape of a stored tensor."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Its size in the file."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


class MappedCheckpoints:
    """Several checkpoints, their headers in memory and their tensors on disk.

    Args:
        paths: `.safetensors` files, or the `.safetensors.index.json` of sharded ones.

    Raises:
        UnsafeCheckpointError: a file is absent, damaged, or of another kind.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)
        self._shards: list[dict[str, Path]] = []
        self.headers: list[Mapping[str, TensorHeader]] = []
        self._open: dict[Path, Any] = {}
        self._mapped = 0
        for path in self.paths:
            shards, headers = self._read_headers(path)
            self._shards.append(shards)
            self.headers.append(headers)
        self.release()

    def read(self, checkpoint: int, name: str) -> Tensor:
        """One tensor, mapped; it stays valid however many others are read.

        Args:
            checkpoint: index among the paths.
            name: of a tensor that it has.

        Raises:
            UnsafeCheckpointError: the tensor cannot be read, or holds values that are not finite.
        """
        path = self._shards[checkpoint][name]
        try:
            tensor: Tensor = self._handle(path).get_tensor(name)
        except _DAMAGE as error:
            raise UnsafeCheckpointError("a tensor", type(error).__name__, f"{path.name}, {name}") from error
        # A sum is finite only if every term is; it may overflow, so it only acquits.
        if tensor.is_floating_point() and not torch.isfinite(tensor.sum()) and not torch.isfinite(tensor).all():
            raise UnsafeCheckpointError("finite weights", "NaN or infinite values", f"{path.name}, {name}")
        self._mapped += tensor.nbytes
        return tensor

    def release(self) -> None:
        """Close all files; the next read opens them again."""
        self._open.clear()
        self._mapped = 0

    def _handle(self, path: Path) -> Any:
        if self._mapped > MOST_MAPPED:
            self.release()
        if path not in self._open:
            if not path.is_file():
                raise UnsafeCheckpointError("a safetensors file", "nothing there", path.name)
            try:
                self._open[path] = safe_open(str(path), framework="pt", device="cpu")
            except _DAMAGE as error:
                raise UnsafeCheckpointError("a whole safetensors file", type(error).__name__, path.name) from error
        return self._open[path]

    def _read_headers(self, path: Path) -> tuple[dict[str, Path], dict[str, TensorHeader]]:
        if not path.name.endswith((INDEX_SUFFIX, ".safetensors")):
            raise UnsafeCheckpointError("a .safetensors file or its index", f"the suffix {path.suffix!r}", path.name)
        shards = (
            _read_index(path) if path.name.endswith(INDEX_SUFFIX) else dict.fromkeys(self._handle(path).keys(), path)
        )
        headers = {}
        for name, shard in shards.items():
            try:
                stored = self._handle(shard).get_slice(name)
                headers[name] = TensorHeader(DTYPES[stored.get_dtype()], tuple(stored.get_shape()))
            except _DAMAGE as error:
                raise UnsafeCheckpointError(
                    f"a tensor of a kind among {', '.join(DTYPES)}", f"{error}", f"{shard.name}, {name}"
                ) from error
        if not headers:
            raise UnsafeCheckpointError("at least one tensor", "none", path.name)
        return shards, headers


# What the library raises for damaged headers, whose values it maps to torch's types itself.
_DAMAGE = (SafetensorError, OSError, TypeError, KeyError, RuntimeError, AttributeError)


def _read_index(index: Path) -> dict[str, Path]:
    """Names to the shards beside an index."""
    try:
        weight_map = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UnsafeCheckpointError(
            "a JSON object with a weight_map of names to files", type(error).__name__, index.name
        ) from error
    for shard in weight_map.values():
        # A shard lies beside its index: a name with a folder in it would lead elsewhere.
        if not isinstance(shard, str) or PurePosixPath(shard).name != shard or "\\" in shard or "\0" in shard:
            raise UnsafeCheckpointError("the plain file name of a shard", f"{shard!r}", index.name)
    return {name: index.parent / shard for name, shard in weight_map.items()}
