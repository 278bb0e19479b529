"""How much a network's data determines each of its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from monai_medmerge.errors import DatasetError
from monai_medmerge.inspection import device_of, evaluating, image_and_label


def fisher_diagonal(
    network: nn.Module, batches: Iterable[Any], loss: Callable[[Tensor, Tensor], Tensor]
) -> dict[str, Tensor]:
    """Diagonal of the empirical Fisher information matrix: the mean over examples of each gradient, squared.

    ``F[i] = 1/M * sum over m of (d loss(network(x[m]), y[m]) / d W[i])^2``. Empirical because y is the label that the
    data has; Matena and Raffel (arXiv:2111.09832) take the expectation over the labels that the network predicts,
    which costs a backward pass for each class. Examples pass one by one, in evaluation mode.

    Args:
        network: a source, with the head it was trained with. Modes and gradients stay as they are.
        batches: dictionaries with `image` and `label`, or sequences that begin with the two; of the source's own data.
        loss: of an output and a label, both of one example in a batch of one; a negative log-likelihood.

    Returns:
        For every parameter that requires a gradient, by name, its tensor of F on the CPU, not negative.

    Raises:
        DatasetError: there is no example, or one has no label.

    Example:
        >>> network = nn.Linear(1, 1, bias=False)
        >>> data = [(torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [0.0]]))]
        >>> fisher_diagonal(network, data, lambda output, label: output.sum())["weight"]
        tensor([[2.5000]])
    """
    parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
    sums = {name: torch.zeros_like(p) for name, p in parameters.items()}
    device, count = device_of(network), 0
    with evaluating(network, gradients=True):
        for batch in batches:
            image, label = image_and_label(batch)
            if not isinstance(label, Tensor):
                raise DatasetError("a label with every image", type(label).__name__, "batch")
            for x, y in zip(image.to(device).split(1), label.to(device).split(1), strict=True):
                gradients = torch.autograd.grad(loss(network(x), y), list(parameters.values()), allow_unused=True)
                for name, gradient in zip(parameters, gradients, strict=True):
                    if gradient is not None:
                        sums[name].addcmul_(gradient, gradient)
                count += 1
    if not count:
        raise DatasetError("at least one example", "none", "Fisher information")
    return {name: (value / count).cpu() for name, value in sums.items()}
