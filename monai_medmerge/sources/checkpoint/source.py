"""A source: a name, plain tensors and where they came from; and the only way files become one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from monai_medmerge.files import tensors_sha256
from monai_medmerge.sources.checkpoint.places import file_in, plain_name, split_part
from monai_medmerge.sources.checkpoint.reading import read_tensors
from monai_medmerge.sources.checkpoint.values import check_values
from monai_medmerge.sources.names.identity import require_shapes
from monai_medmerge.sources.names.keymaps import KeyMap, rename


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
        >>> import torch
        >>> source = Source.from_network(torch.nn.Linear(2, 1), "tiny")
        >>> source.name, sorted(source.tensors)
        ('tiny', ['bias', 'weight'])
    """

    name: str
    tensors: Mapping[str, Tensor]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        tensors = {name: tensor.detach() for name, tensor in self.tensors.items()}
        check_values(tensors, self.name)
        object.__setattr__(self, "tensors", MappingProxyType(tensors))
        object.__setattr__(self, "provenance", MappingProxyType(dict(self.provenance)))

    def __repr__(self) -> str:
        return f"Source({self.name!r}, {len(self.tensors)} tensors, sha256={self.sha256[:12]})"

    @cached_property
    def sha256(self) -> str:
        """SHA-256 over names, types, shapes and bytes, the same whatever file the tensors came from."""
        return tensors_sha256(self.tensors)

    def under_other_names(self, tensors: Mapping[str, Tensor], provenance: Mapping[str, Any]) -> Source:
        """A source of the same name with tensors that were looked at before, which are not looked at again.

        Args:
            tensors: this source's own, or computed from them.
            provenance: of the new source.
        """
        new = object.__new__(Source)
        for attribute, value in {"tensors": tensors, "provenance": provenance}.items():
            object.__setattr__(new, attribute, MappingProxyType(dict(value)))
        object.__setattr__(new, "name", self.name)
        return new

    @classmethod
    def from_network(cls, network: nn.Module, name: str) -> Source:
        """The weights that a network in memory has now; they are copied, so later training leaves the source as it is.

        Args:
            network: any module, wrapped or not.
            name: how reports call it.

        Raises:
            SettingError: a lazy layer has no shape yet.
            UnsafeCheckpointError: a value is not finite.
        """
        require_shapes(network)
        tensors = {
            key: value.detach().cpu().clone() for key, value in network.state_dict().items() if _is_tensor(value)
        }
        return cls(name, tensors, {"origin": f"network in memory, {type(network).__name__}"})

    @classmethod
    def from_file(
        cls, path: str | Path, name: str | None = None, key_map: KeyMap | None = None, part: str | None = None
    ) -> Source:
        """Read a checkpoint without running any of it; large tensors stay memory-mapped.

        Args:
            path: what people call a checkpoint, under any name: safetensors (or the index of a sharded one), or a file
                of torch.save, whatever dictionary of it the tensors are in and whatever else is in it; or the folder
                of a MONAI bundle or of a model hub. `FILE::PART` names one of several networks in it.
            name: how reports call it; the file's or bundle's name if not given.
            key_map: how stored names become the network's: a mapping of regular expressions to replacements, a JSON
                file of one, or the name of a known map. `match` goes on from there by itself.
            part: which of several networks in the file: `ema`, `teacher`, `generator`, a path such as `state.model`.

        Raises:
            UnsafeCheckpointError: the file is absent, damaged, partial, of another kind, holds no finite tensors,
                several networks of which none is named, or what would do harm.
        """
        path, named = split_part(path)
        part = named if part is None else part
        found = file_in(path) if path.is_dir() else path
        tensors, provenance = read_tensors(found, part)
        provenance |= {"file": found.name, "bundle": path.name} if path.is_dir() else {"file": found.name}
        if part is not None:
            provenance["part"] = part
        if key_map is not None:
            tensors = rename(tensors, key_map, where=found.name)
            provenance["key_map"] = str(key_map) if isinstance(key_map, str | Path) else dict(key_map)
        plain = path.name if path.is_dir() else plain_name(found)
        return cls(name or (plain if part is None else f"{plain}/{part}"), tensors, provenance)


def _is_tensor(value: object) -> bool:
    # A module may keep an extra state of any kind.
    return isinstance(value, Tensor)
