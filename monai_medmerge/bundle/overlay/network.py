"""The network that a user's trainer trains, wherever the trainer holds it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from monai_medmerge.errors import SettingError

USUAL_IDS = ("network", "network_def", "net", "model")


def plain_network(network: nn.Module) -> nn.Module:
    """The user's module inside the wrappers of distributed training and of compilation.

    Args:
        network: as a trainer holds it.

    Example:
        >>> layer = nn.Linear(1, 1)
        >>> plain_network(nn.DataParallel(layer)) is layer
        True
    """
    while True:
        if isinstance(network, nn.DataParallel | nn.parallel.DistributedDataParallel):
            network = network.module
        elif isinstance(getattr(network, "_orig_mod", None), nn.Module):
            network = network._orig_mod  # type: ignore[assignment]
        else:
            return network


def trained_network(trainer: Any, objects: Mapping[str, Any], wanted: str | None = None) -> nn.Module:
    """The network to merge: the trainer's own, or one inside of what the trainer holds, such as a detector's.

    Args:
        trainer: an engine.
        objects: what a configuration has made, by id.
        wanted: id of the network; if None the trainer's `network`, or what the configuration has under a usual id.

    Returns:
        The plain network.

    Raises:
        SettingError: there is none, or the trainer does not hold it.
    """
    found = getattr(trainer, "network", None)
    if wanted is None and isinstance(found, nn.Module):
        return plain_network(found)
    held = {
        name: plain_network(content)
        for name, content in objects.items()
        if isinstance(content, nn.Module) and any(holds(value, content) for value in vars(trainer).values())
    }
    for name in USUAL_IDS if wanted is None else (wanted,):
        if name in held:
            return held[name]
    raise SettingError(
        "a trainer with `network`, or the id of the network that it trains: --medmerge::network_id ID",
        f"{type(trainer).__name__}, which trains {', '.join(held) or 'no module of the configuration'}",
        "trainer" if wanted is None else f"medmerge::network_id {wanted}",
    )


def holds(value: object, network: nn.Module) -> bool:
    """Whether a value is a network, wrapped or not, or a module with the network somewhere inside.

    Args:
        value: anything.
        network: a module, wrapped or not.

    Example:
        >>> layer = nn.Linear(1, 1)
        >>> holds(nn.Sequential(nn.ReLU(), layer), layer), holds("layer", layer)
        (True, False)
    """
    plain = plain_network(network)
    return isinstance(value, nn.Module) and any(module is plain for module in value.modules())


def exchanged(value: Any, old: nn.Module, new: nn.Module) -> Any:
    """What holds a network, with another in its place; the holder itself stays as it is.

    Args:
        value: for which `holds` is true.
        old: plain network.
        new: network in its place, and in the place of wrappers around it.

    Returns:
        `new`, or a shallow copy of a module around it.

    Example:
        >>> first, second = nn.Linear(1, 1), nn.Linear(1, 1)
        >>> holder = nn.Sequential(first)
        >>> exchanged(holder, first, second)[0] is second, holder[0] is first
        (True, True)
    """
    if plain_network(value) is old:
        return new
    twin = copy.copy(value)
    # A shallow copy of a module shares the dictionary of its parts.
    twin._modules = {
        name: exchanged(part, old, new) if holds(part, old) else part for name, part in value._modules.items()
    }
    return twin


def holders(trainer: Any, network: nn.Module) -> Iterator[tuple[str, Any]]:
    """Attributes of a trainer that are or hold a network.

    Args:
        trainer: an engine.
        network: plain.
    """
    for name, value in vars(trainer).items():
        if holds(value, network):
            yield name, value
