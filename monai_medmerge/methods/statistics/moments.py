"""What reaches a layer in one source, multiplied with what reaches it in all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from monai_medmerge.errors import DatasetError, SettingError
from monai_medmerge.inspection import device_of, evaluating, image_of
from monai_medmerge.methods.statistics.gram import layer_rows, linear_layers


def cross_moments(
    networks: Sequence[nn.Module], batches: Iterable[Any], include: str | Sequence[str] = ("*",)
) -> list[dict[str, Tensor]]:
    """Products of each source's layer inputs with their mean over the sources, for `pleas`.

    ``C[n] = 1/M * sum over m of x[n, m] x[m]^T`` with ``x[m]`` the mean over n of ``x[n, m]``, over all M rows that a
    linear or convolutional layer is applied to on the same images, as in `gram_matrices`.

    Args:
        networks: the sources, of one class and aligned. Modes stay as they are.
        batches: tensors, dictionaries with `image`, or sequences that begin with an image.
        include: patterns of weight names; as of `gram_matrices`.

    Returns:
        For each source, weight names to float32 (group, input, input) on the CPU.

    Raises:
        DatasetError: there is no batch, or one holds no image.
        SettingError: there is no network, or they have other layers or sizes of input than the first.

    Example:
        >>> both = [nn.Linear(2, 1), nn.Linear(2, 1)]
        >>> first, second = cross_moments(both, [torch.tensor([[1.0, 2.0]])])
        >>> first["weight"]
        tensor([[[1., 2.],
                 [2., 4.]]])
    """
    if not networks:
        raise SettingError("at least one network", "none", "cross_moments")
    layers = [linear_layers(network, include) for network in networks]
    if any(set(found) != set(layers[0]) for found in layers):
        raise SettingError("networks with the same layers", "others", "cross_moments")
    sums: list[dict[str, Tensor]] = [{} for _ in networks]
    counts = dict.fromkeys(layers[0], 0)
    seen = False
    for batch in batches:
        image = image_of(batch)
        inputs = [_inputs(network, found, image) for network, found in zip(networks, layers, strict=True)]
        for name in [name for name in layers[0] if name in inputs[0]]:
            for values in zip(*(given[name] for given in inputs), strict=True):
                _add(name, [found[name] for found in layers], values, sums, counts)
        seen = True
    if not seen:
        raise DatasetError("at least one batch", "none", "cross moments")
    return [{name: (value / counts[name]).float().cpu() for name, value in source.items()} for source in sums]


def _inputs(network: nn.Module, layers: dict[str, nn.Module], image: Tensor) -> dict[str, list[Tensor]]:
    """What reaches each layer, call by call."""
    met: dict[str, list[Tensor]] = {}

    def observer(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda layer, inputs: met.setdefault(name, []).append(inputs[0].detach())

    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.callback(layer.register_forward_pre_hook(observer(name)).remove)
        with evaluating(network):
            network(image.to(device_of(network)))
    return met


def _add(
    name: str,
    layers: Sequence[nn.Module],
    values: Sequence[Tensor],
    sums: list[dict[str, Tensor]],
    counts: dict[str, int],
) -> None:
    if any(value.shape != values[0].shape for value in values):
        raise SettingError("inputs of one size", "others", f"cross_moments, {name}")
    for slabs in zip(*map(layer_rows, layers, values), strict=True):
        mean = torch.stack(slabs).mean(0)
        counts[name] += mean.shape[1]
        for source, rows in zip(sums, slabs, strict=True):
            product = rows.mT @ mean
            source[name] = source[name].add_(product) if name in source else product
