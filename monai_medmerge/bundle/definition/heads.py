"""Which tensors of a network belong to its task: the last layer, whose outputs are the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from monai_medmerge.errors import SettingError
from monai_medmerge.sources.patterns import selects

SHOWN = 6


def find_head(network: nn.Module, classes: int, head: Sequence[str] | None = None) -> list[str]:
    """Name patterns of the head.

    Args:
        network: any module.
        classes: how many outputs it shall have.
        head: patterns, if they are known; they are returned as they are.

    Returns:
        Patterns for `exclude`.

    Raises:
        SettingError: no layer has so many outputs, or several may be the head, or a pattern is of no tensor; the
            candidates are shown.

    Example:
        >>> find_head(nn.Sequential(nn.Conv2d(1, 8, 3), nn.Flatten(), nn.Linear(8, 3)), 3)
        ['2.*']
    """
    if head is not None:
        return _named(network, [head] if isinstance(head, str) else list(head))
    layers = _layers(network)
    if not layers:
        raise SettingError("a convolution or a linear layer, or the name of the head: --head", "none", "network")
    last = list(layers)[-1]
    fitting = [name for name, layer in layers.items() if _outputs(layer) == classes]
    if last in fitting:
        fitting = [last]
    if len(fitting) == 1:
        return [f"{fitting[0]}.*" if fitting[0] else "*"]
    expected = f"one layer with {classes} outputs, one a class; name it: --head \"['NAME.*']\""
    found = f"{len(fitting)}; {_candidates({name: layers[name] for name in fitting or layers})}"
    raise SettingError(expected, found, "head")


def _named(network: nn.Module, patterns: list[str]) -> list[str]:
    """The patterns, each of which must be of some tensor."""
    names = list(network.state_dict())
    for pattern in patterns:
        if not any(selects(pattern, name) for name in names):
            expected = "a pattern of some tensor of the network"
            raise SettingError(expected, f"{pattern!r}; {_candidates(_layers(network))}", "head")
    return patterns


def _layers(network: nn.Module) -> dict[str, nn.Linear | _ConvNd]:
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | _ConvNd) and module.weight is not None
    }


def _candidates(layers: Mapping[str, nn.Linear | _ConvNd]) -> str:
    return f"candidates: {', '.join(f'{name} ({_outputs(layers[name])})' for name in list(layers)[-SHOWN:])}"


def _outputs(layer: nn.Linear | _ConvNd) -> int:
    if isinstance(layer, nn.Linear):
        return layer.out_features
    axis = 1 if isinstance(layer, _ConvTransposeNd) else 0
    return int(layer.weight.shape[axis])
