"""The mean of the sources, drawn towards a base as far as the angles between them say."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from monai_medmerge.methods.registry import method
from monai_medmerge.methods.tensors import wide


@method("model_stock", reference="[arXiv:2403.19522](https://arxiv.org/abs/2403.19522)", least=2)
def model_stock(tensors: Sequence[Float[Tensor, "*shape"]], base: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Mean of the sources, pulled to the base the more, the less their differences from it point the same way.

    ``W = t * mean of W[n] + (1 - t) * B`` with ``t = N * c / (1 + (N - 1) * c)``, c being the mean cosine between the
    differences ``W[n] - B`` of two sources, each tensor taken as one vector. A mean cosine below zero, which the
    paper's geometry does not know, counts as zero.

    The paper's B is the network that all sources were fine-tuned from. Where the sources come from different
    initialisations, the anchor as B gives cosines near one half (the anchor's own weights are in every difference) and
    needs three sources or more; the mean as B gives cosines below zero, so that the result is the mean.

    Args:
        tensors: one per source, at least two.
        base: B.

    Returns:
        In at least float32.

    Example:
        >>> model_stock([torch.tensor([2.0, 0.0]), torch.tensor([1.0, 1.0])], torch.zeros(2))
        tensor([1.2426, 0.4142])
    """
    start = wide(base)
    total, units, pairs_of_one = torch.zeros_like(start), torch.zeros_like(start), 0
    for tensor in tensors:
        difference = wide(tensor) - start
        norm = float(torch.linalg.vector_norm(difference, dtype=torch.float64))
        total += difference
        if norm > 0:
            units.add_(difference, alpha=1 / norm)
            pairs_of_one += 1
    # The squared norm of a sum of unit vectors is the sum of all cosines, those of each with itself included.
    count = len(tensors)
    cosines = float(torch.linalg.vector_norm(units, dtype=torch.float64)) ** 2 - pairs_of_one
    cosine = min(max(cosines / (count * (count - 1)), 0.0), 1.0)
    share = count * cosine / (1 + (count - 1) * cosine)
    return start + total * (share / count)
