"""Differences from a base, trimmed and freed from conflicts of sign."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from monai_medmerge.errors import SettingError
from monai_medmerge.methods.registry import method
from monai_medmerge.methods.tensors import wide

# Numbers of all tensors together that are looked at at once.
PIECE = 2**20


@method("ties", reference="[arXiv:2306.01708](https://arxiv.org/abs/2306.01708)")
def ties(
    tensors: Sequence[Float[Tensor, "*shape"]],
    base: Float[Tensor, "*shape"],
    *,
    density: float = 0.2,
    scale: float = 1.0,
) -> Float[Tensor, "*shape"]:
    """Base plus the mean of the largest differences that agree in sign.

    Trim: of each difference ``W[n] - B`` the `density` largest in magnitude stay, the others become zero. Elect: each
    number takes the sign of the sum of what stayed. Merge: ``W = B + scale * mean`` of what stayed with that sign.

    As in mergekit, tensors are trimmed one by one; the paper trims all differences of a network as one vector. Where a
    sum is zero, within rounding, nothing is elected and the base stays (the authors' code takes the majority sign of
    the network).
    The paper's B is the network that all sources were fine-tuned from. Where the sources come from different
    initialisations, differences are large everywhere and trimming keeps little of any source; with the mean as B they
    sum to zero before they are trimmed, so that those of two sources elect nothing and the result is the mean.

    Args:
        tensors: one per source.
        base: B.
        density: share of each difference that stays, above 0, to 1.
        scale: of the mean difference.

    Returns:
        In at least float32.

    Raises:
        SettingError: density is out of range.

    Example:
        >>> ties([torch.tensor([4.0, 1.0, -3.0]), torch.tensor([2.0, -1.0, 5.0])], torch.zeros(3), density=1.0)
        tensor([3., 0., 5.])
    """
    if not 0 < density <= 1:
        raise SettingError("a share above 0, to 1", repr(density), "method ties, density")
    # Note [Piece by piece]
    # Trimming needs to know of the whole difference what is its smallest number that stays; all else is done number by
    # number. So one pass finds that number for each source, and a second one merges, and beside base and result no more
    # than a piece of each tensor is in memory, however many sources there are.
    smallest = [_smallest_that_stays(tensors, n, base, density) for n in range(len(tensors))]
    merged = torch.empty(base.shape, dtype=torch.promote_types(base.dtype, torch.float32), device=base.device)
    for piece in _pieces(base.numel(), len(tensors)):
        differences = [_difference(tensor, base, piece) for tensor in tensors]
        for difference, least in zip(differences, smallest, strict=True):
            difference.masked_fill_(difference.abs() < least, 0)
        merged.view(-1)[piece] = _elected(wide(base.reshape(-1)[piece]), differences, scale)
    return merged


def _elected(start: Tensor, differences: Sequence[Tensor], scale: float) -> Tensor:
    """The base plus the mean of those trimmed differences that have the sign of their sum."""
    elected, magnitude = torch.zeros_like(start), start.abs()
    for difference in differences:
        elected += difference
        magnitude += difference.abs()
    # A base that is itself a mean makes sums of zero common, and rounding must not elect a sign for them.
    rounding = torch.finfo(start.dtype).eps * len(differences) ** 2 * magnitude
    elected = elected.sign() * (elected.abs() > rounding)
    total, count = torch.zeros_like(start), torch.zeros_like(start)
    for difference in differences:
        agrees = (difference.sign() == elected) & (elected != 0)
        total += difference * agrees
        count += agrees
    return start + scale * total / count.clamp_(min=1)


def _pieces(numbers: int, tensors: int = 1) -> list[slice]:
    step = max(PIECE // tensors, 4096)
    return [slice(start, min(start + step, numbers)) for start in range(0, numbers, step)]


def _difference(tensor: Tensor, base: Tensor, piece: slice) -> Tensor:
    return wide(tensor.reshape(-1)[piece]) - wide(base.reshape(-1)[piece])


def _smallest_that_stays(tensors: Sequence[Tensor], source: int, base: Tensor, density: float) -> float:
    """The magnitude from which on a source's differences are kept; all that equal it stay, so that 0 drops none.

    The k-th smallest of non-negative floating-point numbers is that of their bits taken for integers, and is found 16
    bits at a time by counting.
    """
    dropped = base.numel() - max(round(density * base.numel()), 1)
    if dropped <= 0:
        return 0.0
    pieces = _pieces(base.numel())
    if len(pieces) == 1:
        return float(_difference(tensors[source], base, pieces[0]).abs().kthvalue(dropped + 1).values)
    kind = _difference(tensors[source], base, slice(1)).dtype
    integers, shifts = (torch.int64, (48, 32, 16, 0)) if kind == torch.float64 else (torch.int32, (16, 0))
    found, rank = 0, dropped
    for shift in shifts:
        counts = torch.zeros(2**16, dtype=torch.int64)
        for piece in pieces:
            bits = _difference(tensors[source], base, piece).abs_().view(integers)
            # Only those that begin with the bits found so far.
            bits = bits[bits >> shift >> 16 == found]
            counts += torch.bincount(bits >> shift & 0xFFFF, minlength=2**16).cpu()
        before = counts.cumsum(0)
        digit = int((before <= rank).sum())
        rank -= int(before[digit - 1]) if digit else 0
        found = found << 16 | digit
    return float(torch.tensor(found, dtype=integers).view(kind))
