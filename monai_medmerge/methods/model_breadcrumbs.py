"""Differences from a base, without the smallest and without the largest of them."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from monai_medmerge.errors import SettingError
from monai_medmerge.methods.registry import method
from monai_medmerge.methods.tensors import wide


@method("breadcrumbs", reference="[arXiv:2312.06795](https://arxiv.org/abs/2312.06795)")
def breadcrumbs(
    tensors: Sequence[Float[Tensor, "*shape"]],
    base: Float[Tensor, "*shape"],
    *,
    density: float = 0.9,
    outliers: float = 0.01,
    scale: float = 0.4,
) -> Float[Tensor, "*shape"]:
    """Base plus the scaled sum of differences, of each tensor the largest and the smallest left out.

    ``W = B + scale * sum over n of m[n] * (W[n] - B)``. The mask m is 0 for the `outliers` largest numbers of a
    difference in magnitude, 1 for the `density` next largest, and 0 for the rest; both are shares of the tensor, as
    the paper masks layer by layer. Shares are rounded to whole numbers, at least one stays. The defaults of the shares
    are mergekit's.

    Args:
        tensors: one per source.
        base: B; what it means for sources of different initialisations is said at `task_arithmetic`.
        density: share of each difference that stays, above 0.
        outliers: share of each difference, its largest numbers, that is left out, from 0; with density at most 1.
        scale: of the sum.

    Returns:
        In at least float32.

    Raises:
        SettingError: a share is out of range.

    Example:
        >>> import torch
        >>> breadcrumbs([torch.tensor([9.0, 1.0, -4.0, 2.0])], torch.zeros(4), density=0.5, outliers=0.25, scale=1.0)
        tensor([ 0.,  0., -4.,  2.])
    """
    if not (0 < density <= 1 and 0 <= outliers <= 1 - density + 1e-9):
        expected = "density above 0 and outliers from 0, together at most 1"
        raise SettingError(expected, f"{density!r} and {outliers!r}", "method breadcrumbs")
    start = wide(base)
    total = start.clone()
    for tensor in tensors:
        difference = (wide(tensor) - start).flatten()
        left_out = min(round(outliers * difference.numel()), difference.numel() - 1)
        stays = max(round(density * difference.numel()), 1)
        # Stable: of equals the first counts as the larger, so that the same numbers give the same mask.
        kept = difference.abs().argsort(descending=True, stable=True)[left_out : left_out + stays]
        total.view(-1)[kept] += scale * difference[kept]
    return total
