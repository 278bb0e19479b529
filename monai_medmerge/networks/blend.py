"""KernelBlend: a tensor computed as a coefficient-weighted sum of the sources' kernels, the one parametrisation."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from monai_medmerge.networks.constraints import CONSTRAINTS
from monai_medmerge.networks.kernels import KernelLayout


class Coefficients(nn.Module):
    """Learned coefficients, one number per source and group of kernels; tensors may share them.

    Args:
        start: (source, group) or (source, group, input), the coefficients to begin with.
        constraint: `softmax`, `affine` or `free`.
        anchor: index of the source that takes the rest under `affine`.

    Example:
        >>> Coefficients(torch.tensor([[1.0], [0.0]]), "softmax", anchor=0)().tolist()
        [[1.0], [0.0]]
    """

    start: Tensor

    def __init__(self, start: Float[Tensor, "source group *input"], constraint: str, anchor: int) -> None:
        super().__init__()
        self.constraint = constraint
        self.anchor = anchor
        self.free = nn.Parameter(CONSTRAINTS[constraint].release(start.detach().clone(), anchor))
        self.register_buffer("start", start.detach().clone(), persistent=False)

    def forward(self) -> Float[Tensor, "source group *input"]:
        """The coefficients under their constraint."""
        return CONSTRAINTS[self.constraint].apply(self.free, self.anchor)


class _WeightedSum(torch.autograd.Function):
    """``sum over n of c[n, k] * S[n, k]``: the gradient goes to c alone, and keeps nothing of a source's size."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, layout: KernelLayout, *sources: Tensor) -> Tensor:
        ctx.layout, ctx.sources, ctx.like = layout, sources, values
        spread = [layout.spread(value, sources[0].ndim).to(sources[0].dtype) for value in values]
        blended = spread[0] * sources[0]
        for weight, source in zip(spread[1:], sources[1:], strict=True):
            blended.addcmul_(weight, source)
        return blended

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        slices = ctx.like.ndim == 3
        found = [ctx.layout.collect(gradients[0], source, slices) for source in ctx.sources]
        return torch.stack(found).to(ctx.like.dtype), None, *[None] * len(found)


@dataclass(frozen=True)
class MergeRecord:
    """What a merged network was made of; kept with it.

    Args:
        sources: their names.
        sha256: of each source's tensors.
        granularity: of the coefficients.
        constraint: on the coefficients.
    """

    sources: tuple[str, ...]
    sha256: tuple[str, ...]
    granularity: str
    constraint: str


class KernelBlend(nn.Module):
    """Parametrisation of one tensor: ``W[k] = residual[k] + sum over n of c[n, k] * S[n, k]``.

    The sources' tensors are neither parameters nor buffers: they take no gradient, reach no checkpoint and no other
    rank of a distributed run, and may stay memory-mapped. They follow the module to another device or dtype.

    Args:
        sources: the tensors of the sources that have this one, all of its shape.
        present: indices of those sources among all that are merged.
        coefficients: of the present sources, in their order.
        layout: where the kernels lie.
        groups: (kernel,) which coefficient each kernel takes; None where it is the one of its own index.
        residual: whether a trainable difference of the tensor's shape is added.
        record: what is merged.
        siblings: all parameters of the tensor's owner in their order, which folding restores.
    """

    groups: Tensor | None

    def __init__(
        self,
        sources: list[Tensor],
        present: tuple[int, ...],
        coefficients: Coefficients,
        layout: KernelLayout,
        groups: Int[Tensor, " kernel"] | None,
        residual: bool,
        record: MergeRecord,
        siblings: tuple[str, ...],
    ) -> None:
        super().__init__()
        self.sources = tuple(sources)
        self.present = present
        self.coefficients = coefficients
        self.layout = layout
        self.residual = residual
        self.record = record
        self.siblings = siblings
        self.register_buffer("groups", groups, persistent=False)

    def per_kernel(self) -> Float[Tensor, "source kernel *input"]:
        """The coefficients of the present sources, laid out for every kernel of this tensor."""
        values = self.coefficients()
        if values.ndim == 3 and self.layout.inputs == 1:
            # A bias has no slices of its own: it follows the mean of its kernel's.
            values = values.mean(2)
        if self.groups is not None:
            return values[:, self.groups]
        return values if values.shape[1] == self.layout.kernels else values.expand(-1, self.layout.kernels)

    def forward(self, original: Tensor) -> Tensor:
        """The blended tensor.

        Args:
            original: the trainable residual, or an empty tensor where there is none.
        """
        values = self.per_kernel()
        if self.sources[0].ndim == 1:
            # Of a norm's or a bias' few numbers, what an autograd function costs in itself would be most of the time.
            blended = (values.to(self.sources[0].dtype) * torch.stack(self.sources)).sum(0)
        else:
            blended = _WeightedSum.apply(values, self.layout, *self.sources)
        return original + blended if self.residual else blended

    def right_inverse(self, value: Tensor) -> Tensor:
        """What `original` becomes when the parametrisation is registered: nothing learned yet."""
        return torch.zeros_like(value) if self.residual else value.new_empty(0)

    def _apply(self, fn: Any, recurse: bool = True) -> KernelBlend:
        super()._apply(fn, recurse)
        self.sources = tuple(fn(source) for source in self.sources)
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> KernelBlend:
        # Sources are read-only: copies of a merged network share them.
        memo.update({id(source): source for source in self.sources})
        replica = type(self).__new__(type(self))
        memo[id(self)] = replica
        replica.__dict__ = copy.deepcopy(self.__dict__, memo)
        return replica
