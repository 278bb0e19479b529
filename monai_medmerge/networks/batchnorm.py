"""Running statistics of batch-norm after weights have changed."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from monai_medmerge.errors import DatasetError
from monai_medmerge.inspection import evaluating, image_of

logger = logging.getLogger(__name__)


class _Moments:
    """Count, mean and sum of squared deviations per channel, pooled over batches (Chan et al., 1979), in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Tensor | float = 0.0
        self.squares: Tensor | float = 0.0

    def update(self, values: Tensor) -> None:
        channels = values.detach().transpose(0, 1).flatten(1).double()
        count, mean = channels.shape[1], channels.mean(1)
        squares = (channels - mean[:, None]).square().sum(1)
        total, shift = self.count + count, mean - self.mean
        self.squares = self.squares + squares + shift.square() * (self.count * count / total)
        self.mean = self.mean + shift * (count / total)
        self.count = total


def recalibrate(network: nn.Module, batches: Iterable[Any]) -> nn.Module:
    """Measure batch-norm's running mean and variance anew, pooled over all numbers of all batches.

    Batch-norm layers normalise by their batch while the moments of their inputs are pooled by element count, so that
    batches of any size count as much as they hold; all other layers, dropout too, stay in evaluation. A layer that is
    given a single number per channel normalises by the statistics it has, and layers that the network does not run,
    such as those of heads for training alone, keep theirs. REPAIR
    (arXiv:2211.08403) explains why merged networks need it; `torch.optim.swa_utils.update_bn` averages per batch.

    Args:
        network: changed in place; modes and momenta are put back whatever happens. A network without batch-norm is
            returned as it is, and no batch is drawn.
        batches: tensors (batch, channel, ...), sequences that begin with one, or dictionaries with one under `image`.

    Returns:
        The same network.

    Raises:
        DatasetError: there is no batch, or one holds no image, or what reaches a layer is not finite or is one number
            per channel in all. The statistics are then the old ones.

    Example:
        >>> norm = nn.BatchNorm1d(1)
        >>> _ = recalibrate(norm, [torch.tensor([[0.0], [2.0]]), torch.tensor([[4.0], [6.0]])])
        >>> norm.running_mean, norm.running_var
        (tensor([3.]), tensor([6.6667]))
    """
    names = {m: n for n, m in network.named_modules() if isinstance(m, _BatchNorm) and m.track_running_stats}
    layers = list(names)
    if not layers:
        return network
    moments = {layer: _Moments() for layer in layers}
    device = layers[0].running_mean.device if layers[0].running_mean is not None else None
    with _only_training(network, layers), _observed(moments):
        for batch in batches:
            network(image_of(batch).to(device))
    _check_moments({names[layer]: pooled for layer, pooled in moments.items()})
    for layer, pooled in moments.items():
        if pooled.count and layer.running_mean is not None and layer.running_var is not None:
            layer.running_mean.copy_(torch.as_tensor(pooled.mean))
            layer.running_var.copy_(torch.as_tensor(pooled.squares) / max(pooled.count - 1, 1))
    return network


def _check_moments(moments: Mapping[str, _Moments]) -> None:
    if not any(pooled.count for pooled in moments.values()):
        raise DatasetError("at least one batch through a batch-norm layer", "none", "recalibration")
    for name, pooled in moments.items():
        where = f"recalibration, {name or 'network'}"
        if pooled.count == 1:
            raise DatasetError("two numbers per channel or more", "one", where)
        if pooled.count and not torch.isfinite(torch.as_tensor(pooled.squares)).all():
            raise DatasetError("finite images, and weights that keep them so", "NaN or infinity", where)
    if idle := [name for name, pooled in moments.items() if not pooled.count]:
        logger.info("Not run by the network, so that their statistics stay: %s", ", ".join(idle))


@contextmanager
def _only_training(network: nn.Module, layers: Sequence[_BatchNorm]) -> Iterator[None]:
    """All layers in evaluation but these, which normalise by the batch and leave their buffers as they are."""
    momenta = [(layer, layer.momentum) for layer in layers]
    # Counters move with any momentum, and running statistics, where a batch is not finite, even with none.
    buffers = [(buffer, buffer.clone()) for layer in layers for buffer in layer.buffers(recurse=False)]
    try:
        with evaluating(network):
            for layer in layers:
                layer.training = True
                layer.momentum = 0.0
            yield
    finally:
        for layer, momentum in momenta:
            layer.momentum = momentum
        for buffer, before in buffers:
            buffer.copy_(before)


@contextmanager
def _observed(moments: Mapping[_BatchNorm, _Moments]) -> Iterator[None]:
    def observe(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(layer, _BatchNorm):
            moments[layer].update(inputs[0])
            # A single number has no variance, and torch refuses it.
            layer.training = inputs[0].numel() > inputs[0].shape[1]

    handles = [layer.register_forward_pre_hook(observe) for layer in moments]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
