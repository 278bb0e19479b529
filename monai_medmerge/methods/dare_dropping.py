"""Differences from a base, thinned at random and rescaled."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from monai_medmerge.errors import SettingError
from monai_medmerge.methods.registry import method
from monai_medmerge.methods.tensors import wide


@method("dare", reference="[arXiv:2311.03099](https://arxiv.org/abs/2311.03099)", symmetric=False)
def dare(
    tensors: Sequence[Float[Tensor, "*shape"]],
    base: Float[Tensor, "*shape"],
    generator: Generator,
    *,
    drop: float = 0.5,
    scale: float = 0.4,
) -> Float[Tensor, "*shape"]:
    """Base plus the scaled sum of differences, of which a random share is dropped and the rest made up for it.

    ``W = B + scale * sum over n of m[n] * (W[n] - B) / (1 - drop)``, each number of the mask m being 0 with the
    probability `drop` and 1 otherwise; the expectation is that of task arithmetic.

    The paper drops 0.9 and more from fine-tuned language models, whose differences are tiny. Networks from different
    initialisations have no common base and differences as large as their weights: with the anchor or the mean as B,
    every dropped number is noise of that size, hence the milder default. Unlike task arithmetic, the mean as B does
    not cancel, but what remains is that noise.

    Args:
        tensors: one per source.
        base: B.
        generator: draws the masks; `merge_with` makes one for each tensor from its option `seed` (int, 0 if not given)
            and the tensor's name.
        drop: probability, 0 to below 1.
        scale: of the sum.

    Returns:
        In at least float32.

    Raises:
        SettingError: drop is out of range.

    Example:
        >>> generator = Generator().manual_seed(0)
        >>> dare([torch.ones(4)], torch.zeros(4), generator, drop=0.5, scale=1.0).unique()
        tensor([0., 2.])
    """
    if not 0 <= drop < 1:
        raise SettingError("a probability from 0 to below 1", repr(drop), "method dare, drop")
    start = wide(base)
    total = torch.zeros_like(start)
    for tensor in tensors:
        stays = torch.rand(start.shape, generator=generator) >= drop
        total += (wide(tensor) - start) * stays
    return start + total * (scale / (1 - drop))
