"""A deep copy of a network that may still hold what its last forward pass left behind."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, TypeVar

from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


def copy_network(network: Network, memo: dict[int, Any] | None = None) -> Network:
    """`copy.deepcopy`, also for networks that keep activations as attributes.

    MONAI's DynUNet keeps the outputs of its deep-supervision heads and SABlock its attention matrix. Torch refuses to
    copy a tensor with a history, so the copy holds them without it; the next forward pass replaces them.

    Args:
        network: any module; stays untouched.
        memo: as of `copy.deepcopy`: filled with the copies by the id of their originals.

    Example:
        >>> layer = nn.Linear(1, 1)
        >>> layer.kept = [layer(layer.weight)]
        >>> copy_network(layer).kept[0].requires_grad
        False
    """
    memo = {} if memo is None else memo
    for module in network.modules():
        for value in vars(module).values():
            memo.update({id(tensor): tensor.detach().clone() for tensor in _tensors(value) if not tensor.is_leaf})
    return copy.deepcopy(network, memo)


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
