"""Means of the sources, each counting the same or by a weight of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from monai_medmerge.errors import SettingError
from monai_medmerge.methods.registry import method
from monai_medmerge.methods.tensors import wide


@method(
    "weighted_average",
    reference="[arXiv:2109.01903](https://arxiv.org/abs/2109.01903)",
    symmetric=False,
    per_source=("weights",),
)
def weighted_average(
    tensors: Sequence[Float[Tensor, "*shape"]], *, weights: Sequence[float]
) -> Float[Tensor, "*shape"]:
    """Mean of the sources with a given weight for each.

    ``W = sum over n of w[n] * W[n] / sum over n of w[n]``; with two sources and weights 1 - a and a, the interpolation
    of Wortsman et al., 2022 (WiSE-FT).

    Args:
        tensors: one per source.
        weights: one per source, in any unit. A negative one extrapolates away from its source.

    Returns:
        In at least float32.

    Raises:
        SettingError: a weight is not finite, or they do not sum to something positive.

    Example:
        >>> import torch
        >>> weighted_average([torch.tensor([0.0]), torch.tensor([1.0])], weights=[1, 3])
        tensor([0.7500])
    """
    total = math.fsum(weights)
    if not math.isfinite(total) or total <= 0:
        raise SettingError("finite weights with a positive sum", f"{list(weights)}", "weights")
    mean: Tensor | None = None
    for tensor, weight in zip(tensors, weights, strict=True):
        # Scaled first and added in place: one pass over memory for each source.
        share = weight / total
        mean = wide(tensor) * share if mean is None else mean.add_(wide(tensor), alpha=share)
    if mean is None:
        raise SettingError("at least one tensor", "none", "tensors")
    return mean


@method("uniform_average", reference="[arXiv:2203.05482](https://arxiv.org/abs/2203.05482)")
def uniform_average(tensors: Sequence[Float[Tensor, "*shape"]]) -> Float[Tensor, "*shape"]:
    """Mean of the sources, each counting the same.

    ``W = 1/N * sum over n of W[n]``, the uniform soup of Wortsman et al., 2022. Networks from different
    initialisations need `monai_medmerge.recalibrate` afterwards.

    Args:
        tensors: one per source.

    Returns:
        In at least float32.

    Example:
        >>> import torch
        >>> uniform_average([torch.tensor([0.0, 2.0]), torch.tensor([1.0, 4.0])])
        tensor([0.5000, 3.0000])
    """
    return weighted_average(tensors, weights=[1.0] * len(tensors))
