"""The weights that compute, in least squares, the mean of what aligned sources compute side by side."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from monai_medmerge.errors import SettingError
from monai_medmerge.methods.averaging.averages import uniform_average
from monai_medmerge.methods.registry import method
from monai_medmerge.methods.tensors import wide


@method("pleas", reference="[arXiv:2407.02447](https://arxiv.org/abs/2407.02447)", data="moments")
def pleas(
    tensors: Sequence[Float[Tensor, "output ..."]],
    *,
    moments: Sequence[Float[Tensor, "group input input"]],
    ridge: float = 1e-3,
) -> Float[Tensor, "output ..."]:
    """Weights of a layer that map the sources' mean input, in least squares, to the mean of their outputs.

    ``W = (sum over n of W[n] C[n]) (sum over n of C[n])^-1`` minimises ``E ||W x - y||^2`` over the same images, with x
    the mean over sources of what reaches the layer, y the mean of ``W[n] x[n]`` and ``C[n] = E[x[n] x^T]`` (see
    `cross_moments`). This is the second half of PLeaS: sources are aligned first (`monai_medmerge.align`), and where
    channels match only in part, the weights make up for it. The first half's wider layers do not fit one plain network
    of the same class and are left out. Inputs that were zero on all images determine nothing: there the mean stays.

    Args:
        tensors: one per source, (output, input / groups, ...) of a linear or convolutional layer.
        moments: one per source; input is the product of the tensor's axes but the first.
        ridge: pull towards the mean of the sources, as a share of the inputs' mean square, above 0.

    Returns:
        In at least float32.

    Raises:
        SettingError: ridge is not positive, or moments do not fit the tensor.

    Example:
        >>> moments = [torch.tensor([[[2.0, 0.0], [0.0, 1.0]]]), torch.tensor([[[0.0, 0.0], [0.0, 1.0]]])]
        >>> pleas([torch.tensor([[4.0, 4.0]]), torch.tensor([[0.0, 0.0]])], moments=moments, ridge=1e-9)
        tensor([[4., 2.]])
    """
    if not ridge > 0:
        raise SettingError("a positive number", repr(ridge), "method pleas, ridge")
    mean = uniform_average(tensors)
    groups, columns = moments[0].shape[0], mean[0].numel()
    inputs = torch.zeros(groups, columns, columns, dtype=torch.float64)
    outputs = torch.zeros(groups, mean.shape[0] // groups, columns, dtype=torch.float64)
    for tensor, moment in zip(tensors, moments, strict=True):
        if mean.shape[0] % groups or moment.shape != (groups, columns, columns):
            expected = f"moments (groups, {columns}, {columns})"
            raise SettingError(expected, f"{tuple(moment.shape)}", "method pleas, moments")
        inputs += moment.double()
        # Solved for the deviation from the mean, so that equal sources return themselves exactly.
        outputs += (wide(tensor) - mean).double().reshape(groups, -1, columns) @ moment.double()
    diagonal = inputs.diagonal(dim1=1, dim2=2)
    unseen = diagonal == 0
    diagonal += ridge * diagonal.mean(1, keepdim=True)
    diagonal.masked_fill_(unseen, 1.0)
    solved = torch.linalg.solve(inputs.mT, outputs.mT).mT
    return mean + solved.reshape(mean.shape).to(mean.dtype)
