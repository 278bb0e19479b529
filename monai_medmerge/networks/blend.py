"""KernelBlend: a tensor computed as a coefficient-weighted sum of the sources' kernels, the one parametrisation."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from monai_medmerge.networks.constraints import CONSTRAINTS
from monai_medmerge.networks.kernels import KernelLayout


class Coefficients(nn.Module):
    """A table of learned coefficients, one number per source and column; tensors take ranges of its columns.

    One table serves all tensors that the same sources have, so that its constraint is computed, and its gradient
    applied, once for all of them.

    Args:
        start: (source, column), the coefficients to begin with.
        constraint: `softmax`, `affine` or `free`.
        anchor: index of the source that takes the rest under `affine`.

    Example:
        >>> Coefficients(torch.tensor([[1.0, 0.5], [0.0, 0.5]]), "softmax", anchor=0)().tolist()
        [[1.0, 0.5], [0.0, 0.5]]
    """

    start: Tensor

    def __init__(self, start: Float[Tensor, "source column"], constraint: str, anchor: int) -> None:
        super().__init__()
        self.constraint = constraint
        self.anchor = anchor
        self.free = nn.Parameter(self.released(start.detach().clone()))
        self.register_buffer("start", start.detach().clone(), persistent=False)

    def released(self, values: Float[Tensor, "source column"]) -> Tensor:
        """The free numbers that give coefficients."""
        return CONSTRAINTS[self.constraint].release(values, self.anchor)

    def constrained(self, free: Float[Tensor, "row column"]) -> Float[Tensor, "source column"]:
        """The coefficients that free numbers give."""
        return CONSTRAINTS[self.constraint].apply(free, self.anchor)

    def forward(self) -> Float[Tensor, "source column"]:
        """All coefficients under their constraint."""
        return self.constrained(self.free)


@dataclass(frozen=True)
class Columns:
    """Which columns of a table a tensor takes.

    Args:
        first: index of the first.
        shape: (group,), or (group, input) with one for every slice of a kernel.
    """

    first: int
    shape: tuple[int, ...]

    @property
    def end(self) -> int:
        """Index after the last."""
        return self.first + math.prod(self.shape)


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
        name: of the tensor; where several modules share it, the same for all of them.
        sources: the tensors of the sources that have this one, all of its shape.
        present: indices of those sources among all that are merged.
        coefficients: of the present sources, in their order.
        owner: whether the coefficients are this module's in state dicts; one of the modules that share them owns them.
        columns: which of the coefficients are this tensor's.
        layout: where the kernels lie.
        groups: (kernel,) which coefficient each kernel takes; None where it is the one of its own index.
        residual: whether a trainable difference of the tensor's shape is added.
        record: what is merged.
        siblings: all parameters of the tensor's owner in their order, which folding restores.
    """

    groups: Tensor | None

    def __init__(
        self,
        name: str,
        sources: list[Tensor],
        present: tuple[int, ...],
        coefficients: Coefficients,
        owner: bool,
        columns: Columns,
        layout: KernelLayout,
        groups: Int[Tensor, " kernel"] | None,
        residual: bool,
        record: MergeRecord,
        siblings: tuple[str, ...],
    ) -> None:
        super().__init__()
        self.name = name
        self.sources = tuple(sources)
        self.present = present
        if owner:
            self.coefficients = coefficients
        else:
            # A module registered everywhere would be everywhere in state dicts.
            self.__dict__["coefficients"] = coefficients
        self.columns = columns
        self.layout = layout
        self.residual = residual
        self.record = record
        self.siblings = siblings
        self.blended: Tensor | None = None
        """The blend of the forward pass that is running, where it was computed with all others."""
        self.register_buffer("groups", groups, persistent=False)

    def lay_out(self, table: Float[Tensor, "source column"]) -> Float[Tensor, "source kernel *input"]:
        """This tensor's coefficients, one for each of its kernels, of all in the table."""
        values = table[:, self.columns.first : self.columns.end].unflatten(1, self.columns.shape)
        if values.ndim == 3 and self.layout.inputs == 1:
            # A bias has no slices of its own: it follows the mean of its kernel's.
            values = values.mean(2)
        if self.groups is not None:
            return values[:, self.groups]
        return values if values.shape[1] == self.layout.kernels else values.expand(-1, self.layout.kernels)

    def gather(self, gradients: Float[Tensor, "source kernel *input"]) -> Float[Tensor, "source column"]:
        """The adjoint of `lay_out`."""
        if self.groups is not None:
            shape = (len(gradients), self.columns.shape[0])
            gradients = gradients.new_zeros(shape).index_add_(1, self.groups, gradients)
        elif gradients.shape[1] != self.columns.shape[0]:
            gradients = gradients.sum(1, keepdim=True)
        if len(self.columns.shape) == 2 and gradients.ndim == 2:
            inputs = self.columns.shape[1]
            gradients = (gradients / inputs)[:, :, None].expand(-1, -1, inputs)
        return gradients.flatten(1)

    def forward(self, original: Tensor) -> Tensor:
        """The blended tensor.

        Args:
            original: the trainable residual, or an empty tensor where there is none.
        """
        blended = self.blended if self.blended is not None else weighted_sums([self])[0]
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
        replica.__dict__ = copy.deepcopy({**self.__dict__, "blended": None}, memo)
        return replica


def weighted_sums(blends: Sequence[KernelBlend]) -> tuple[Tensor, ...]:
    """``sum over n of c[n, k] * S[n, k]`` for several tensors whose coefficients lie in one table.

    Args:
        blends: the tensors, of one table.

    Returns:
        The sums in the order of the tensors, without residuals.
    """
    sums: tuple[Tensor, ...] = _WeightedSums.apply(blends[0].coefficients.free, *blends)
    return sums


class _WeightedSums(torch.autograd.Function):
    """The gradient goes to the coefficients alone, and nothing of a source's size is kept for it."""

    # Note [One node for all tensors]
    # A node of autograd, and the small operations on a tensor's coefficients, cost about 0.2 ms a tensor and step,
    # which for the 364 tensors of a DenseNet121 is a tenth of a training step. One node with plain loops inside costs
    # a third of that. All columns are constrained together each time, as vectorised functions round by position, and
    # folding must give the very weights of the forward pass.
    # The node saves no tensor through autograd: under activation checkpointing a tensor is blended again outside of
    # the network's forward pass, and must then save as many tensors as within it, none.

    @staticmethod
    def forward(ctx: Any, free: Tensor, *blends: KernelBlend) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.blends = blends
        ctx.free = free.detach().clone() if ctx.needs_input_grad[0] else None
        values = blends[0].coefficients.constrained(free)
        return tuple(_weighted_sum(blend, values) for blend in blends)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        with torch.enable_grad():
            free = ctx.free.requires_grad_()
            values = ctx.blends[0].coefficients.constrained(free)
        total = torch.zeros_like(values)
        for blend, gradient in zip(ctx.blends, gradients, strict=True):
            if gradient is not None:
                slices = len(blend.columns.shape) == 2 and blend.layout.inputs > 1
                found = [blend.layout.collect(gradient, source, slices) for source in blend.sources]
                total[:, blend.columns.first : blend.columns.end] += blend.gather(torch.stack(found).to(total.dtype))
        return torch.autograd.grad(values, free, total)[0], *[None] * len(ctx.blends)


def _weighted_sum(blend: KernelBlend, values: Tensor) -> Tensor:
    sources = blend.sources
    spread = [blend.layout.spread(value, sources[0].ndim).to(sources[0].dtype) for value in blend.lay_out(values)]
    blended = spread[0] * sources[0]
    for weight, source in zip(spread[1:], sources[1:], strict=True):
        blended.addcmul_(weight, source)
    return blended
