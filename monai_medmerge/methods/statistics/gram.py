"""Inner products of what reaches a network's linear and convolutional layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from monai_medmerge.errors import DatasetError
from monai_medmerge.inspection import device_of, evaluating, image_of
from monai_medmerge.sources.patterns import selects


def gram_matrices(
    network: nn.Module, batches: Iterable[Any], include: str | Sequence[str] = ("*",)
) -> dict[str, Tensor]:
    """Gram matrix of the inputs of every linear and convolutional layer, for `regmean`.

    ``G = 1/M * sum over m of x[m] x[m]^T`` over all M rows that the layer is applied to: tokens of a linear layer,
    patches of a convolution (1-D to 3-D, with its stride, dilation, padding and groups). Divided by M, so that sources
    count the same however much data each has. Transposed convolutions have none.

    Args:
        network: a source. Modes stay as they are.
        batches: tensors, dictionaries with `image`, or sequences that begin with an image; of the source's own data.
        include: patterns of weight names. A matrix has (input channels / group * kernel size)^2 numbers: 21 million
            for 512 channels and 3 x 3, so leave out what does not fit in memory.

    Returns:
        Weight names to float32 (group, input, input) on the CPU; one group for a linear layer.

    Raises:
        DatasetError: there is no batch, or one holds no image.

    Example:
        >>> import torch
        >>> grams = gram_matrices(nn.Conv2d(2, 4, 3, groups=2), [torch.ones(1, 2, 3, 3)])
        >>> grams["weight"].shape
        torch.Size([2, 9, 9])
    """
    chosen = linear_layers(network, include)
    sums: dict[str, Tensor] = {}
    counts = dict.fromkeys(chosen, 0)

    def observer(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def observe(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
            for rows in layer_rows(layer, inputs[0].detach()):
                product = rows.mT @ rows
                sums[name] = sums[name].add_(product) if name in sums else product
                counts[name] += rows.shape[1]

        return observe

    handles = [module.register_forward_pre_hook(observer(name)) for name, module in chosen.items()]
    device, seen = device_of(network), False
    try:
        with evaluating(network):
            for batch in batches:
                network(image_of(batch).to(device))
                seen = True
    finally:
        for handle in handles:
            handle.remove()
    if not seen:
        raise DatasetError("at least one batch", "none", "Gram matrices")
    return {name: (value / counts[name]).float().cpu() for name, value in sums.items()}


def linear_layers(network: nn.Module, include: str | Sequence[str] = ("*",)) -> dict[str, nn.Module]:
    """The linear and convolutional layers of a network, by the names of their weights; no transposed ones.

    Args:
        network: any module.
        include: patterns of weight names.

    Example:
        >>> list(linear_layers(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.ConvTranspose2d(2, 1, 3))))
        ['0.weight']
    """
    named = {f"{name}.weight" if name else "weight": module for name, module in network.named_modules()}
    return {
        name: module
        for name, module in named.items()
        if (isinstance(module, nn.Linear) or (isinstance(module, _ConvNd) and not isinstance(module, _ConvTransposeNd)))
        and selects(include, name)
    }


def layer_rows(layer: nn.Module, value: Tensor) -> Iterator[Tensor]:
    """What a layer multiplies its weight with, in parts that fit in memory.

    Args:
        layer: linear or convolutional.
        value: its input.

    Returns:
        Parts (group, row, input) of all rows: tokens of a linear layer, patches of a convolution.

    Example:
        >>> import torch
        >>> [rows.shape for rows in layer_rows(nn.Conv2d(2, 4, 3), torch.zeros(5, 2, 4, 3))]
        [torch.Size([1, 5, 18]), torch.Size([1, 5, 18])]
    """
    if not isinstance(layer, _ConvNd):
        yield value.reshape(1, -1, value.shape[-1])
        return
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    patches = F.pad(value, layer._reversed_padding_repeated_twice, mode=mode)
    space = len(layer.kernel_size)
    for axis in range(space):
        width = (layer.kernel_size[axis] - 1) * layer.dilation[axis] + 1
        patches = patches.unfold(axis + 2, width, layer.stride[axis])[..., :: layer.dilation[axis]]
    # One slab of positions at a time: patches are views until here, and a whole volume of them would be copies.
    for slab in patches.unbind(2):
        grouped = slab.unflatten(1, (layer.groups, -1)).movedim(1, 0)
        # (group, batch, channel, *positions but one, *kernel) to (group, batch, *positions but one, channel, *kernel)
        rows = grouped.movedim(2, space + 1)
        yield rows.reshape(layer.groups, rows.shape[1 : space + 1].numel(), -1)
