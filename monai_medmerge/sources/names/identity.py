"""One tensor, however many names a network registers it under."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from monai_medmerge.errors import SettingError


def state_of(network: nn.Module) -> dict[str, Tensor]:
    """Every name of a network's state dict and its tensor, the very object that the network holds.

    Args:
        network: whose layers all have shapes.

    Raises:
        SettingError: a lazy layer has none yet.
    """
    require_shapes(network)
    return {name: value for name, value in network.state_dict(keep_vars=True).items() if isinstance(value, Tensor)}


def first_names(state: Mapping[str, Tensor]) -> dict[str, str]:
    """For every name, the first one that the same tensor has.

    Args:
        state: from `state_of`.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> first_names(state_of(nn.ModuleDict({"a": layer, "b": layer})))["b.weight"]
        'a.weight'
    """
    first: dict[Any, str] = {}
    return {name: first.setdefault(_identity(tensor), name) for name, tensor in state.items()}


def names_of(state: Mapping[str, Tensor]) -> dict[str, tuple[str, ...]]:
    """For every tensor, by its first name, all names that it has.

    Args:
        state: from `state_of`.
    """
    found: dict[str, tuple[str, ...]] = {}
    for name, first in first_names(state).items():
        found[first] = (*found.get(first, ()), name)
    return found


def _identity(tensor: Tensor) -> Any:
    """What two names of one tensor have in common: the memory. Tensors without any are told apart as objects."""
    if tensor.device.type == "meta" or tensor.numel() == 0:
        return id(tensor)
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype


def require_shapes(network: nn.Module) -> None:
    """Refuse a network with lazy layers that have seen no image.

    Args:
        network: any module.

    Raises:
        SettingError: a layer has no shape yet; it is named.
    """
    for prefix, module in network.named_modules():
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None and is_lazy(tensor):
                where = f"{prefix}.{name}" if prefix else name
                expected = "a network whose layers all have shapes: run a first batch through it"
                raise SettingError(expected, f"a {type(module).__name__} that has seen none", where)
