"""As many channels as a network takes, from grey and colour images alike."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor

from monai_medmerge.errors import DatasetError


def fit_channels(image: Tensor, channels: int) -> Tensor:
    """The mean of all channels where one is wanted, a grey image repeated where several are.

    Args:
        image: (channel, *space).
        channels: wanted.

    Raises:
        DatasetError: several are wanted and another number of several is there.

    Example:
        >>> import torch
        >>> fit_channels(torch.tensor([[1.0], [3.0]]), 1)
        tensor([[2.]])
    """
    if channels == 1:
        return image.mean(0, keepdim=True)
    if len(image) == 1:
        return image.repeat(channels, *[1] * (image.ndim - 1))
    if len(image) != channels:
        raise DatasetError(f"an image of 1 or {channels} channels", f"{len(image)}", "image")
    return image


class FitChannelsd(MapTransform):
    """`fit_channels` for entries of a dictionary.

    Args:
        keys: of the images.
        channels: wanted.
        allow_missing_keys: skip keys that a dictionary lacks.
    """

    def __init__(self, keys: KeysCollection, channels: int, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.channels = channels

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Fit the images."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = fit_channels(result[key], self.channels)
        return result
