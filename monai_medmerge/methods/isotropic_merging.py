"""The sum of differences from a base, made equally strong in all its directions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from monai_medmerge.errors import SettingError
from monai_medmerge.methods.registry import method
from monai_medmerge.methods.tensors import wide


@method("isotropic", reference="[arXiv:2502.04959](https://arxiv.org/abs/2502.04959)")
def isotropic(
    tensors: Sequence[Float[Tensor, "*shape"]], base: Float[Tensor, "*shape"], *, scale: float = 1.0
) -> Float[Tensor, "*shape"]:
    """Base plus the summed differences, with one and the same singular value in every direction.

    ``W = B + scale * s * U V^T`` with ``U S V^T = sum over n of (W[n] - B)`` and s the mean of S: Iso-C of Marczak et
    al., 2025, in whose sum one source's few strong directions no longer drown those of the others. A kernel is
    one row of the matrix, (output, input x space). Directions of singular value zero have no sign and stay out, of the
    mean too. Biases and norms, which are no matrices, take the mean difference, as the authors' code does.

    Args:
        tensors: one per source.
        base: B, the network that all sources were fine-tuned from.
        scale: the paper chooses it on validation data.

    Returns:
        In at least float32.

    Raises:
        SettingError: scale is not finite.

    Example:
        >>> strong, weak = torch.tensor([[3.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 1.0]])
        >>> isotropic([strong, weak], torch.zeros(2, 2))
        tensor([[2., 0.],
                [0., 2.]])
    """
    if not abs(scale) < float("inf"):
        raise SettingError("a finite number", repr(scale), "method isotropic, scale")
    start = wide(base)
    total = torch.zeros_like(start)
    for tensor in tensors:
        total += wide(tensor) - start
    if total.ndim < 2:
        return start + total * (scale / len(tensors))
    left, values, right = torch.linalg.svd(total.flatten(1).double(), full_matrices=False)
    # Rounding of the inputs, and not of float64, decides what is zero.
    seen = values > values.max() * max(total.flatten(1).shape) * torch.finfo(total.dtype).eps
    if not seen.any():
        return start.clone()
    even = (left[:, seen] @ right[seen]) * values[seen].mean()
    return start + scale * even.reshape(start.shape).to(start.dtype)
