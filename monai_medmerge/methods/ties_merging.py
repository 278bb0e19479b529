"""Differences from a base, trimmed and freed from conflicts of sign."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from monai_medmerge.errors import SettingError
from monai_medmerge.methods.registry import method
from monai_medmerge.methods.tensors import wide


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
    start = wide(base)
    elected, magnitude = torch.zeros_like(start), start.abs()
    for tensor in tensors:
        difference = _trimmed(wide(tensor) - start, density)
        elected += difference
        magnitude += difference.abs_()
    # A base that is itself a mean makes sums of zero common, and rounding must not elect a sign for them.
    rounding = torch.finfo(start.dtype).eps * len(tensors) ** 2 * magnitude
    elected = elected.sign() * (elected.abs() > rounding)
    total, count = torch.zeros_like(start), torch.zeros_like(start)
    # Trimmed a second time rather than kept, so that memory does not grow with the number of sources.
    for tensor in tensors:
        difference = _trimmed(wide(tensor) - start, density)
        agrees = (difference.sign() == elected) & (elected != 0)
        total += difference * agrees
        count += agrees
    return start + scale * total / count.clamp_(min=1)


def _trimmed(difference: Tensor, density: float) -> Tensor:
    """Zero, in place, all but the largest numbers in magnitude; equals of the smallest that stays all stay."""
    dropped = difference.numel() - max(round(density * difference.numel()), 1)
    if dropped <= 0:
        return difference
    magnitude = difference.abs()
    return difference.masked_fill_(magnitude < magnitude.flatten().kthvalue(dropped + 1).values, 0)
