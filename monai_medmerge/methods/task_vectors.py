"""Differences from a base, added up."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from monai_medmerge.methods.registry import method
from monai_medmerge.methods.tensors import wide


@method("task_arithmetic", reference="[arXiv:2212.04089](https://arxiv.org/abs/2212.04089)")
def task_arithmetic(
    tensors: Sequence[Float[Tensor, "*shape"]], base: Float[Tensor, "*shape"], *, scale: float = 0.4
) -> Float[Tensor, "*shape"]:
    """Base plus the scaled sum of what each source differs from it by.

    ``W = B + scale * sum over n of (W[n] - B)``. The paper's B is the network that all sources were fine-tuned from.
    Where the sources come from different initialisations there is none: with the anchor as B the sum is an average in
    which the N others count `scale` each and the anchor 1 - N * scale; with the mean as B the differences cancel and
    the result is that mean, whatever the scale.

    Args:
        tensors: one per source.
        base: B.
        scale: the paper chooses it on validation data and reports 0.3 to 0.5.

    Returns:
        In at least float32.

    Example:
        >>> import torch
        >>> task_arithmetic([torch.tensor([1.0, 1.0]), torch.tensor([1.0, 3.0])], torch.tensor([1.0, 2.0]), scale=1)
        tensor([1., 2.])
    """
    start = wide(base)
    merged = start * (1 - scale * len(tensors))
    for tensor in tensors:
        merged.add_(wide(tensor), alpha=scale)
    return merged
