"""A source: a name, plain tensors and where they came from; and the only way files become one.

Files are untrusted. `.safetensors` cannot hold code; `.pt` and `.pth` are read with ``weights_only=True`` after a
look at the archive itself, so that nothing is unpickled but tensors and plain containers, and a damaged archive is
refused before torch maps it.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from monai_medmerge.errors import UnsafeCheckpointError
from monai_medmerge.files import tensors_sha256
from monai_medmerge.sources.keymaps import KeyMap, rename

# Where trainers put the weights inside a checkpoint, in the order in which they are looked for.
NESTED_UNDER = ("state_dict", "model_state_dict", "model", "network", "net")
# What wrappers put before every key: DistributedDataParallel, torch.compile.
WRAPPER_PREFIXES = ("module.", "_orig_mod.")
# What a MONAI bundle keeps its weights in, best first.
BUNDLE_WEIGHTS = ("models/model.safetensors", "models/model.pt", "models/model.pth")
INDEX_SUFFIX = ".safetensors.index.json"


@dataclass(frozen=True, eq=False)
class Source:
    """One pretrained network as tensors: what is merged.

    Args:
        name: how reports call it; unique among the sources of one merge.
        tensors: state-dict names to tensors. Becomes read-only; the tensors are detached, not copied.
        provenance: where it came from, in plain types (str, int, float, list, dict); under `metadata`, what a
            `.safetensors` file says of itself.

    Raises:
        UnsafeCheckpointError: there is no tensor, or a value is not finite.

    Example:
        >>> source = Source.from_network(torch.nn.Linear(2, 1), "tiny")
        >>> source.name, sorted(source.tensors)
        ('tiny', ['bias', 'weight'])
    """

    name: str
    tensors: Mapping[str, Tensor]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        tensors = {name: tensor.detach() for name, tensor in self.tensors.items()}
        _check(tensors, self.name)
        object.__setattr__(self, "tensors", MappingProxyType(tensors))
        object.__setattr__(self, "provenance", MappingProxyType(dict(self.provenance)))

    def __repr__(self) -> str:
        return f"Source({self.name!r}, {len(self.tensors)} tensors, sha256={self.sha256[:12]})"

    @cached_property
    def sha256(self) -> str:
        """SHA-256 over names, types, shapes and bytes, the same whatever file the tensors came from."""
        return tensors_sha256(self.tensors)

    @classmethod
    def from_network(cls, network: nn.Module, name: str) -> Source:
        """The weights that a network in memory has now; they are copied, so later training leaves the source as it is.

        Args:
            network: any module.
            name: how reports call it.
        """
        tensors = {key: value.detach().cpu().clone() for key, value in network.state_dict().items()}
        return cls(name, tensors, {"origin": f"network in memory, {type(network).__name__}"})

    @classmethod
    def from_file(cls, path: str | Path, name: str | None = None, key_map: KeyMap | None = None) -> Source:
        """Read a checkpoint without running any of it; large tensors stay memory-mapped.

        Args:
            path: `.safetensors` (or the `.safetensors.index.json` of a sharded one), `.pt` or `.pth` (weights only,
                also nested under state_dict, model, network or net, with or without a ``module.`` prefix), or the
                folder of a MONAI bundle.
            name: how reports call it; the file's or bundle's name if not given.
            key_map: how stored names become the network's: a mapping of regular expressions to replacements, or the
                name of a known map. Without one, `match` looks at the keys.

        Raises:
            UnsafeCheckpointError: the file is absent, damaged, partial, holds no finite tensors, or holds more than
                weights.
        """
        path = Path(path)
        found = _weights_of_bundle(path) if path.is_dir() else path
        tensors, provenance = read_tensors(found)
        provenance |= {"file": found.name, "bundle": path.name} if path.is_dir() else {"file": found.name}
        if key_map is not None:
            tensors = rename(tensors, key_map, where=found.name)
            provenance["key_map"] = key_map if isinstance(key_map, str) else dict(key_map)
        return cls(name or (path.name if path.is_dir() else plain_name(found)), tensors, provenance)


def plain_name(path: Path) -> str:
    """A file's name without what says of which kind it is.

    Example:
        >>> plain_name(Path("resnet_v1.2.pt")), plain_name(Path("model.safetensors.index.json"))
        ('resnet_v1.2', 'model')
    """
    return path.name.removesuffix(INDEX_SUFFIX) if path.name.endswith(INDEX_SUFFIX) else path.stem


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors of one checkpoint file, wrapper prefixes removed, and what was done to find them.

    Args:
        path: an existing file of a known suffix.

    Returns:
        Names to tensors on the CPU, and a provenance of plain types.

    Raises:
        UnsafeCheckpointError: as `Source.from_file`.
    """
    if not path.is_file():
        raise UnsafeCheckpointError("a checkpoint file or a bundle folder", "nothing there", path.name)
    if path.stat().st_size == 0:
        raise UnsafeCheckpointError("a checkpoint", "an empty file", path.name)
    if path.name.endswith(INDEX_SUFFIX):
        tensors, provenance = _read_sharded(path)
    elif path.suffix == ".safetensors":
        tensors, metadata = _read_safetensors(path)
        provenance = {"format": "safetensors", **({"metadata": metadata} if metadata else {})}
    elif path.suffix in {".pt", ".pth", ".ckpt", ".bin"}:
        tensors, provenance = _read_pickle(path)
    else:
        raise UnsafeCheckpointError("a .safetensors, .pt or .pth file", f"the suffix {path.suffix!r}", path.name)
    removed = ""
    # One wrapper may be inside of another, in any order.
    while prefix := next((p for p in WRAPPER_PREFIXES if tensors and all(key.startswith(p) for key in tensors)), ""):
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
        removed += prefix
    return tensors, {**provenance, **({"prefix_removed": removed} if removed else {})}


def _check(tensors: Mapping[str, Tensor], where: str) -> None:
    if not tensors:
        raise UnsafeCheckpointError("at least one tensor", "none", where)
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise UnsafeCheckpointError(
                "dense tensors with values", f"{tensor.layout} on {tensor.device}", f"{where}, {name}"
            )
        if tensor.is_complex() or not (tensor.is_floating_point() or tensor.dtype in _INTEGERS):
            raise UnsafeCheckpointError("real numbers", f"{tensor.dtype}", f"{where}, {name}")
        if tensor.is_floating_point() and not all_finite(tensor):
            raise UnsafeCheckpointError("finite weights", "NaN or infinite values", f"{where}, {name}")


_INTEGERS = {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool}


def all_finite(tensor: Tensor) -> bool:
    """Whether a tensor has neither NaN nor infinite values.

    Example:
        >>> all_finite(torch.ones(2)), all_finite(torch.tensor([1.0, float("inf")]))
        (True, False)
    """
    # Kinds of less than 16 bits know no reductions of their own.
    tensor = tensor.float() if tensor.element_size() < 2 else tensor
    # A sum is finite only if every term is, and is far faster than isfinite; it may overflow, so it only acquits.
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())


def _weights_of_bundle(folder: Path) -> Path:
    for name in BUNDLE_WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    indexes = sorted(folder.glob(f"*{INDEX_SUFFIX}"))
    if len(indexes) == 1:
        return indexes[0]
    raise UnsafeCheckpointError(f"a bundle with one of {', '.join(BUNDLE_WEIGHTS)}", "none of them", folder.name)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors, and what the file says of itself: text, whoever wrote it."""
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
            return tensors, dict(file.metadata() or {})
    # The library maps header values to torch types itself; a damaged header surfaces as any of these.
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, RuntimeError, AttributeError) as error:
        raise UnsafeCheckpointError("a whole safetensors file", _reason(error), path.name) from error


def _read_sharded(index: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards = sorted(set(weight_map.values()))
        names = set(weight_map)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UnsafeCheckpointError(
            "a JSON object with a weight_map of names to files", _reason(error), index.name
        ) from error
    tensors: dict[str, Tensor] = {}
    for shard in shards:
        # A shard lies beside its index: a name with a folder in it would lead elsewhere.
        if not isinstance(shard, str) or PurePosixPath(shard).name != shard or "\\" in shard or "\0" in shard:
            raise UnsafeCheckpointError("the plain file name of a shard", f"{shard!r}", index.name)
        if not (index.parent / shard).is_file():
            raise UnsafeCheckpointError(f"all {len(shards)} shards", f"no {shard}", index.name)
        tensors |= _read_safetensors(index.parent / shard)[0]
    if missing := names - set(tensors):
        raise UnsafeCheckpointError(f"the tensor {sorted(missing)[0]!r} in its shard", "no such tensor", index.name)
    return {name: tensors[name] for name in weight_map}, {"format": "safetensors", "shards": len(shards)}


def _read_pickle(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    is_zip = zipfile.is_zipfile(path)
    if is_zip:
        check_archive(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    # Unpickling damaged bytes can raise nearly anything; whatever it is, this file is not plain weights.
    except Exception as error:
        raise UnsafeCheckpointError(
            "plain weights (save network.state_dict() where you trust the file)", _reason(error), path.name
        ) from error
    state, nested = _find_state_dict(content)
    tensors = {key: value for key, value in state.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if not tensors:
        raise UnsafeCheckpointError("a state dict of tensors", f"a {type(content).__name__} without any", path.name)
    provenance: dict[str, Any] = {"format": "torch, weights only"}
    if nested:
        provenance["nested_under"] = nested
    for key, tensor in tensors.items():
        if tensor.layout == torch.strided and tensor.nbytes > tensor.untyped_storage().nbytes():
            # A small file may otherwise ask for any amount of memory.
            found = f"{tensor.numel():,} numbers on {tensor.untyped_storage().nbytes():,} bytes"
            raise UnsafeCheckpointError("tensors that hold all their numbers", found, f"{path.name}, {key}")
    if ignored := sorted(str(key) for key in state if key not in tensors):
        provenance["ignored"] = ignored
    return tensors, provenance


def check_archive(path: Path) -> None:
    """Refuse a zip whose members lead outside, or whose bytes differ from their checksums (torch does not look)."""
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                parts = PurePosixPath(member.filename.replace("\\", "/")).parts
                if ".." in parts or not parts or parts[0] == "/":
                    raise UnsafeCheckpointError("members inside the archive", "a path that leads outside", path.name)
                # torch stores members uncompressed; anything else could be a bomb.
                if member.compress_type != zipfile.ZIP_STORED:
                    raise UnsafeCheckpointError(
                        "uncompressed members, as torch writes them", "compressed ones", path.name
                    )
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        if isinstance(error, UnsafeCheckpointError):
            raise
        raise UnsafeCheckpointError("a whole torch archive", _reason(error), path.name) from error
    if damaged is not None:
        raise UnsafeCheckpointError("bytes that agree with their checksum", f"damage in {damaged!r}", path.name)


def _find_state_dict(content: object) -> tuple[Mapping[Any, Any], str]:
    """The first mapping with tensors under the names that trainers use, and the path of names that led there."""
    path: list[str] = []
    while isinstance(content, Mapping):
        inner = next((key for key in NESTED_UNDER if _holds_tensors(content.get(key))), None)
        if inner is None:
            return content, ".".join(path)
        path.append(inner)
        content = content[inner]
    return {}, ""


def _holds_tensors(value: object) -> bool:
    return isinstance(value, Mapping) and any(_tensors_below(value, depth=len(NESTED_UNDER)))


def _tensors_below(value: Mapping[Any, Any], depth: int) -> Iterator[bool]:
    for item in value.values():
        if isinstance(item, Tensor):
            yield True
        elif isinstance(item, Mapping) and depth:
            yield from _tensors_below(item, depth - 1)


def _reason(error: BaseException) -> str:
    # First line only: torch's advice to pass weights_only=False must not reach a user from here.
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}" + (f" ({text[0][:160]})" if text else "")
