"""What a data loader gives, and networks that are looked at without being changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from monai_medmerge.errors import DatasetError


def image_and_label(batch: Any) -> tuple[Tensor, Any]:
    """Image and label of a batch.

    Args:
        batch: a dictionary with `image` and perhaps `label`, a sequence that begins with them, or an image alone.

    Returns:
        The image as a plain tensor, and the label or None.

    Raises:
        DatasetError: there is no image.

    Example:
        >>> image_and_label({"image": torch.zeros(2, 1), "label": torch.tensor([0, 1])})[1]
        tensor([0, 1])
    """
    image, label = batch, None
    if isinstance(batch, Mapping):
        image, label = batch.get("image"), batch.get("label")
    elif isinstance(batch, Sequence) and not isinstance(batch, str):
        image, label = (*batch, None, None)[:2]
    if not isinstance(image, Tensor):
        expected = "a tensor, a sequence that begins with one or a dictionary with `image`"
        raise DatasetError(expected, type(image).__name__, "batch")
    return image.as_subclass(Tensor), label.as_subclass(Tensor) if isinstance(label, Tensor) else label


def device_of(network: nn.Module) -> torch.device:
    """Where the network's first parameter is."""
    return next((parameter.device for parameter in network.parameters()), torch.device("cpu"))


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """All layers in evaluation mode; every mode is put back whatever happens."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
