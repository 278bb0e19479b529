"""From a file to tensors, without running any of it.

Files are untrusted. `.safetensors` cannot hold code; torch's files are read as weights only after a look at the
archive itself, so that a damaged one is refused before torch maps it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from monai_medmerge.errors import UnsafeCheckpointError
from monai_medmerge.sources.checkpoint.archive import check_archive, reason
from monai_medmerge.sources.checkpoint.extras import read_pickled
from monai_medmerge.sources.checkpoint.kinds import kind_of
from monai_medmerge.sources.checkpoint.nesting import choose_part
from monai_medmerge.sources.checkpoint.values import check_storage
from monai_medmerge.sources.names.wrappers import KNOWN_WRAPPERS

COUNTERS = ("n_averaged",)
"""What an averaging wrapper keeps beside the network."""


def read_tensors(path: Path, part: str | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors of one checkpoint file, known wrappers around the whole removed, and what was done to find them.

    Args:
        path: any file.
        part: which of several networks in it.

    Returns:
        Names to tensors on the CPU, and a provenance of plain types.

    Raises:
        UnsafeCheckpointError: as `Source.from_file`.
    """
    if not path.is_file():
        raise UnsafeCheckpointError("a checkpoint file or a bundle folder", "nothing there", path.name)
    content, provenance = _content(path)
    chosen, beside = choose_part(content, part, path.name)
    provenance |= beside
    if chosen.path:
        provenance["nested_under"] = chosen.name
    if chosen.left:
        provenance["ignored"] = list(chosen.left)
    tensors, removed = _unwrapped(chosen.tensors)
    check_storage(tensors, path.name)
    return tensors, {**provenance, **({"prefix_removed": removed} if removed else {})}


def _content(path: Path) -> tuple[Any, dict[str, Any]]:
    """What a file holds, whatever its kind, and a first provenance."""
    kind = kind_of(path)
    if kind == "index":
        return _read_sharded(path)
    if kind == "safetensors":
        tensors, metadata = _read_safetensors(path)
        return tensors, {"format": "safetensors", **({"metadata": metadata} if metadata else {})}
    if kind == "torch archive":
        check_archive(path)
    return read_pickled(path, mapped=kind == "torch archive"), {"format": "torch, weights only"}


def _unwrapped(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Without known wrappers that are around every tensor: one may be inside of another, in any order."""
    removed = ""
    found = {key: value for key, value in tensors.items() if key not in COUNTERS}
    while found and (
        prefix := next((f"{w}." for w in KNOWN_WRAPPERS if all(key.startswith(f"{w}.") for key in found)), "")
    ):
        found = {key.removeprefix(prefix): value for key, value in found.items()}
        removed += prefix
    return (found, removed) if removed else (dict(tensors), "")


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors, and what the file says of itself: text, whoever wrote it."""
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
            metadata = dict(file.metadata() or {})
    # The library maps header values to torch types itself; a damaged header surfaces as any of these.
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, RuntimeError, AttributeError) as error:
        raise UnsafeCheckpointError("a whole safetensors file", reason(error), path.name) from error
    # `save_model` writes a tensor of several names once, and says here which names it left out.
    tensors |= {left: tensors[kept] for left, kept in metadata.items() if kept in tensors and left not in tensors}
    return tensors, metadata


def _read_sharded(index: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards = sorted(set(weight_map.values()))
        names = set(weight_map)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UnsafeCheckpointError(
            "a JSON object with a weight_map of names to files", reason(error), index.name
        ) from error
    tensors: dict[str, Tensor] = {}
    formats = set()
    for shard in shards:
        # A shard lies beside its index: a name with a folder in it would lead elsewhere.
        if not isinstance(shard, str) or PurePosixPath(shard).name != shard or "\\" in shard or "\0" in shard:
            raise UnsafeCheckpointError("the plain file name of a shard", f"{shard!r}", index.name)
        if not (index.parent / shard).is_file():
            raise UnsafeCheckpointError(f"all {len(shards)} shards", f"no {shard}", index.name)
        if shard.endswith(".json"):
            raise UnsafeCheckpointError("shards with tensors", f"{shard}, another index", index.name)
        content, provenance = _content(index.parent / shard)
        formats.add(provenance["format"])
        tensors |= (
            content if provenance["format"] == "safetensors" else dict(choose_part(content, None, shard)[0].tensors)
        )
    if missing := names - set(tensors):
        raise UnsafeCheckpointError(f"the tensor {sorted(missing)[0]!r} in its shard", "no such tensor", index.name)
    return {name: tensors[name] for name in weight_map}, {"format": ", ".join(sorted(formats)), "shards": len(shards)}
