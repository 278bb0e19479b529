"""The plain mean of the sources."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from monai_medmerge.methods.registry import method
from monai_medmerge.methods.weighted_average import weighted_average


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
