"""A mean weighted, number by number, by how much each source's data determines it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from monai_medmerge.errors import SettingError
from monai_medmerge.methods.registry import method
from monai_medmerge.methods.tensors import wide


@method("fisher", reference="[arXiv:2111.09832](https://arxiv.org/abs/2111.09832)", data="fishers")
def fisher(
    tensors: Sequence[Float[Tensor, "*shape"]],
    *,
    fishers: Sequence[Float[Tensor, "*shape"]],
    floor: float = 1e-6,
) -> Float[Tensor, "*shape"]:
    """Mean of the sources, each number weighted by its Fisher information.

    ``W = sum over n of F[n] * W[n] / sum over n of F[n]``, F being the diagonal of the Fisher information matrix (see
    `fisher_diagonal`), raised to `floor` where it is smaller, so that what no data determines is averaged.

    Args:
        tensors: one per source.
        fishers: one per source, of the tensors' shape and not negative.
        floor: above 0; the authors' code uses this default.

    Returns:
        In at least float32.

    Raises:
        SettingError: floor is not positive, or a Fisher diagonal has another shape than its tensor.

    Example:
        >>> fisher([torch.tensor([0.0, 0.0]), torch.tensor([4.0, 4.0])],
        ...        fishers=[torch.tensor([3.0, 0.0]), torch.tensor([1.0, 0.0])])
        tensor([1., 2.])
    """
    if floor <= 0:
        raise SettingError("a positive number", repr(floor), "method fisher, floor")
    start = wide(tensors[0])
    total, weights = torch.zeros_like(start), torch.zeros_like(start)
    for tensor, information in zip(tensors, fishers, strict=True):
        if information.shape != start.shape:
            expected = f"a diagonal of shape {tuple(start.shape)}"
            raise SettingError(expected, f"{tuple(information.shape)}", "method fisher, fishers")
        weight = wide(information).clamp(min=floor)
        total.addcmul_(weight, wide(tensor).to(total.dtype))
        weights += weight
    return total / weights
