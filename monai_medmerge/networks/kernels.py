"""Which tensors of a network merge, and along which axis their kernels lie.

A kernel is what one output of a layer is computed with: an output filter of a convolution (transposed, grouped and
depthwise ones too), a row of a linear layer, one channel's scale and shift in a norm, one channel of a position table.
Modules and state dicts are walked, nothing is traced, so that this works on every network.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd


@dataclass(frozen=True)
class KernelLayout:
    """Where the kernels of one tensor lie.

    Args:
        kernels: how many there are, K.
        axis: the axis of the tensor that counts them; of a transposed convolution, whose weight is
            (input, output / groups, *space), the axis 1 counts those of one group.
        groups: groups of a transposed convolution, else 1. K = shape[axis] * groups.
        inputs: number of slices that a kernel has (its input channels), I; 1 for vectors.
    """

    kernels: int
    axis: int = 0
    groups: int = 1
    inputs: int = 1

    def spread(self, values: Tensor, ndim: int) -> Tensor:
        """Lay one number per kernel, or per slice, so that it multiplies a tensor by broadcasting.

        Args:
            values: (kernel,) or (kernel, input).
            ndim: dimensions of the tensor to be multiplied.

        Returns:
            A view or a small copy with `ndim` dimensions.

        Example:
            >>> KernelLayout(kernels=3, inputs=2).spread(torch.ones(3), ndim=4).shape
            torch.Size([3, 1, 1, 1])
            >>> KernelLayout(kernels=3, axis=1, inputs=2).spread(torch.ones(3), ndim=4).shape
            torch.Size([1, 3, 1, 1])
        """
        if ndim == 0:
            return values.reshape(())
        if values.ndim == 2:
            values = self._slices(values)
            return values.reshape(*values.shape, *[1] * (ndim - 2))
        if self.groups > 1:
            # Output (g, o) of a grouped transposed convolution has its numbers in rows g * I to (g + 1) * I.
            values = self._slices(values[:, None].expand(-1, self.inputs))
            return values.reshape(*values.shape, *[1] * (ndim - 2))
        return values.reshape(*[1] * self.axis, -1, *[1] * (ndim - self.axis - 1))

    def collect(self, products: Tensor, weights: Tensor, slices: bool) -> Tensor:
        """The adjoint of `spread`: for each kernel, or slice, the sum of `products * weights` over its numbers.

        Args:
            products: of the tensor's shape.
            weights: of the tensor's shape.
            slices: whether to sum per slice instead of per kernel.

        Returns:
            (kernel,) or (kernel, input).

        Example:
            >>> KernelLayout(kernels=3, inputs=2).collect(torch.ones(3, 2, 4), torch.ones(3, 2, 4), slices=False)
            tensor([8., 8., 8.])
        """
        if products.ndim < 2:
            return (products * weights).reshape(-1)
        if self.axis == 0:
            shape = (self.kernels, self.inputs) if slices else (self.kernels,)
            rows = math.prod(shape)
            # As a batch of dot products nothing of the tensor's size is made in between.
            return torch.bmm(products.reshape(rows, 1, -1), weights.reshape(rows, -1, 1)).reshape(shape)
        terms = products * weights
        if self.axis == 1 and (slices or self.groups > 1):
            per_slice = terms.flatten(2).sum(2) if terms.ndim > 2 else terms
            grouped = per_slice.reshape(self.groups, self.inputs, -1).transpose(1, 2)
            table = grouped.reshape(self.kernels, self.inputs)
            return table if slices else table.sum(1)
        return terms.sum([axis for axis in range(terms.ndim) if axis != self.axis])

    def _slices(self, values: Tensor) -> Tensor:
        """(kernel, input) to the first two axes of the tensor."""
        if self.axis == 0:
            return values
        grouped = values.reshape(self.groups, self.kernels // self.groups, self.inputs)
        return grouped.transpose(1, 2).reshape(self.groups * self.inputs, -1)


@dataclass(frozen=True)
class KernelTensor:
    """One tensor that can merge.

    Args:
        name: its name in the state dict (the first, where it is registered under several).
        module: the module that owns it.
        attribute: its name on that module.
        layout: where its kernels lie.
        leader: name of the tensor whose coefficients it can share: a layer's bias follows the layer's weight.
        siblings: all parameters of the module, in its order.
    """

    name: str
    module: nn.Module
    attribute: str
    layout: KernelLayout
    leader: str
    siblings: tuple[str, ...]

    @property
    def tensor(self) -> Tensor:
        """The tensor as it is now."""
        return self.module.get_parameter(self.attribute)


# Layers whose weights have a row for each output.
_ROWS = (_ConvNd, nn.Linear, nn.Embedding, nn.Bilinear, nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase)


def kernel_tensors(network: nn.Module) -> Iterator[KernelTensor]:
    """Every floating-point parameter of a network, with its kernels.

    Args:
        network: any module. A parameter that several modules share comes once for each of them, under its first name
            and with the layout that it has there.

    Example:
        >>> [(t.name, t.layout.kernels, t.leader) for t in kernel_tensors(nn.Conv2d(1, 4, 3))]
        [('weight', 4, 'weight'), ('bias', 4, 'weight')]
    """
    first: dict[int, KernelTensor] = {}
    for prefix, module in network.named_modules():
        for attribute, parameter in module._parameters.items():
            if parameter is None or not parameter.is_floating_point() or parameter.numel() == 0:
                continue
            siblings = tuple(module._parameters)
            if id(parameter) in first:
                shared = first[id(parameter)]
                yield replace(shared, module=module, attribute=attribute, siblings=siblings)
                continue
            layout = kernel_layout(module, attribute, parameter)
            name = f"{prefix}.{attribute}" if prefix else attribute
            followed = attribute.replace("bias", "weight") if "bias" in attribute else "weight"
            follows = attribute != followed and _same_kernels(module, followed, layout)
            leader = (f"{prefix}.{followed}" if prefix else followed) if follows else name
            first[id(parameter)] = KernelTensor(name, module, attribute, layout, leader, siblings)
            yield first[id(parameter)]


def kernel_layout(module: nn.Module, attribute: str, tensor: Tensor) -> KernelLayout:
    """The kernels of one tensor of a module.

    Args:
        module: its owner.
        attribute: its name there.
        tensor: the tensor, or one of its shape.

    Example:
        >>> up = nn.ConvTranspose3d(8, 6, 2, groups=2)
        >>> kernel_layout(up, "weight", up.weight)
        KernelLayout(kernels=6, axis=1, groups=2, inputs=4)
    """
    shape = tensor.shape
    if tensor.ndim == 0:
        return KernelLayout(1)
    if isinstance(module, _ConvTransposeNd) and attribute == "weight":
        return KernelLayout(module.out_channels, 1, module.groups, module.in_channels // module.groups)
    if isinstance(module, _ROWS) and tensor.ndim > 1 and "weight" in attribute:
        return KernelLayout(shape[0], 0, 1, shape[1])
    if isinstance(module, _ConvNd | nn.Linear | _NormBase | nn.GroupNorm | nn.LayerNorm | nn.PReLU):
        # A LayerNorm over several axes has its channels in the last one.
        axis = tensor.ndim - 1
        return KernelLayout(shape[axis], axis)
    # A raw parameter (token, position table, scale): its channels are the last axis, as in (1, tokens, channels) and
    # (offsets, heads), but for axes of space that have no length, as in (1, channels, 1, 1).
    axis = max((i for i, length in enumerate(shape) if length > 1), default=0) if tensor.ndim > 2 else tensor.ndim - 1
    return KernelLayout(shape[axis], axis)


def head_index(module: nn.Module, parent: nn.Module | None) -> Tensor | None:
    """For each row of a query-key-value projection, the attention head it belongs to.

    Args:
        module: a layer of the network.
        parent: the module that holds it, asked for `num_heads` and for its projections.

    Returns:
        int64 (row,), or None where the layer is no such projection. A fused one has its rows in the order
        (query or key or value, head, channel of the head), as MONAI's attention blocks and Swin's do.

    Example:
        >>> from monai.networks.blocks.selfattention import SABlock
        >>> block = SABlock(hidden_size=4, num_heads=2)
        >>> head_index(block.qkv, block).tolist()
        [0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1]
    """
    heads = getattr(parent, "num_heads", 0)
    if not isinstance(module, nn.Linear) or not isinstance(heads, int) or heads < 1:
        return None
    parts = next((n for name, n in _PROJECTIONS.items() if getattr(parent, name, None) is module), 0)
    if not parts or module.out_features % (parts * heads):
        return None
    hidden = module.out_features // parts
    return (torch.arange(module.out_features) % hidden) // (hidden // heads)


# What attention blocks call their projections, and how many of query, key and value each computes.
_PROJECTIONS = {"qkv": 3, "to_q": 1, "to_k": 1, "to_v": 1}


def _same_kernels(module: nn.Module, attribute: str, layout: KernelLayout) -> bool:
    weight = module._parameters.get(attribute)
    return weight is not None and kernel_layout(module, attribute, weight).kernels == layout.kernels
