"""The weights that reproduce, in least squares, what every source's layer computes on its own data."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from monai_medmerge.errors import SettingError
from monai_medmerge.methods.averaging.averages import uniform_average
from monai_medmerge.methods.registry import method
from monai_medmerge.methods.tensors import wide


@method("regmean", reference="[arXiv:2212.09849](https://arxiv.org/abs/2212.09849)", data="grams")
def regmean(
    tensors: Sequence[Float[Tensor, "output ..."]],
    *,
    grams: Sequence[Float[Tensor, "group input input"]],
    off_diagonal: float = 0.9,
) -> Float[Tensor, "output ..."]:
    """Weights of a layer whose outputs are closest, in least squares, to those of each source on its data.

    ``W = (sum over n of G[n])^-1 * sum over n of G[n] * W[n]``, G being the inner products of the layer's inputs (see
    `gram_matrices`) with the numbers off the diagonal multiplied by `off_diagonal`, as in the paper. A convolution is
    the linear map of its patches, one for each group. Inputs that were zero on all data determine nothing: there the
    mean of the sources stays.

    Args:
        tensors: one per source, (output, input / groups, ...) of a linear or convolutional layer.
        grams: one per source, symmetric; input is the product of the tensor's axes but the first.
        off_diagonal: the paper's alpha, 0 to below 1, which keeps the matrix invertible.

    Returns:
        In at least float32.

    Raises:
        SettingError: off_diagonal is out of range, or a Gram matrix does not fit the tensor.

    Example:
        >>> grams = [torch.diag(torch.tensor([3.0, 1.0]))[None], torch.diag(torch.tensor([1.0, 1.0]))[None]]
        >>> regmean([torch.tensor([[0.0, 0.0]]), torch.tensor([[4.0, 4.0]])], grams=grams)
        tensor([[1., 2.]])
    """
    if not 0 <= off_diagonal < 1:
        raise SettingError("a factor from 0 to below 1", repr(off_diagonal), "method regmean, off_diagonal")
    mean = uniform_average(tensors)
    groups = grams[0].shape[0]
    columns = mean[0].numel()
    left = torch.zeros(groups, columns, columns, dtype=torch.float64)
    right = torch.zeros(groups, columns, mean.shape[0] // groups, dtype=torch.float64)
    for tensor, gram in zip(tensors, grams, strict=True):
        if mean.shape[0] % groups or gram.shape != (groups, columns, columns):
            expected = f"a Gram matrix (groups, {columns}, {columns})"
            raise SettingError(expected, f"{tuple(gram.shape)}", "method regmean, grams")
        shrunk = gram.double() * off_diagonal
        shrunk.diagonal(dim1=1, dim2=2).copy_(gram.diagonal(dim1=1, dim2=2))
        left += shrunk
        # Solved for the deviation from the mean, so that equal sources return themselves exactly.
        deviation = (wide(tensor) - mean).double().reshape(groups, -1, columns)
        right += shrunk @ deviation.mT
    unseen = left.diagonal(dim1=1, dim2=2) == 0
    left.diagonal(dim1=1, dim2=2).masked_fill_(unseen, 1.0)
    solved = torch.cholesky_solve(right, torch.linalg.cholesky(left))
    return mean + solved.mT.reshape(mean.shape).to(mean.dtype)
