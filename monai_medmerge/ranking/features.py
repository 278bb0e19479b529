"""What the layers before the head make of images: one row of features per image, or per voxel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd

from monai_medmerge.errors import DatasetError, SettingError
from monai_medmerge.inspection import device_of, evaluating, image_and_label

# Voxels taken of one class in one image: neighbours say the same, so more of them bring little.
VOXELS = 32


@dataclass(frozen=True)
class Features:
    """Features of a data set under one network.

    Args:
        values: float64 (sample, feature).
        labels: class numbers, int64 (sample,).
        images: number of the image that each sample is of, int64 (sample,); samples are images themselves where
            every image has one label.
    """

    values: np.ndarray
    labels: np.ndarray
    images: np.ndarray

    @property
    def voxels(self) -> bool:
        """Whether there is more than one sample to an image."""
        return len(self.images) > len(np.unique(self.images))


def layer_before_scores(network: nn.Module, images: Tensor) -> str:
    """Name of the linear or convolutional layer that a network calls last: its input is what classes are told from.

    Args:
        network: any module; its mode is put back.
        images: a batch that it takes.

    Raises:
        SettingError: it has no such layer.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> layer_before_scores(network, torch.zeros(1, 4))
        '2'
    """
    called: list[str] = []
    with ExitStack() as hooks:
        for name, module in network.named_modules():
            if isinstance(module, nn.Linear | _ConvNd):
                hook = module.register_forward_pre_hook(lambda _, __, name=name: called.append(name))
                hooks.callback(hook.remove)
        _look(network, images)
    if not called:
        raise SettingError("a linear or convolutional layer", "none that is called", type(network).__name__)
    return called[-1]


def extract(
    networks: Sequence[nn.Module], batches: Iterable[Any], layer: str | None = None, seed: int = 0
) -> list[Features]:
    """Inputs of one layer under several networks of one architecture, all on the very same images.

    Labels of images give a row per image, features averaged over space. Label maps give rows per voxel, up to 32 of
    each class in each image, where the map is brought to the features' grid by its nearest neighbours.

    Args:
        networks: of one architecture; modes are put back.
        batches: dictionaries with `image` and `label`, or pairs of them; gone through once. Labels are class numbers
            (image,) or label maps (image, 1, *space), or one-hot maps (image, class, *space).
        layer: whose input is taken; that of `layer_before_scores` if not given.
        seed: of the choice of voxels.

    Returns:
        One set of features per network, with equal labels.

    Raises:
        DatasetError: there is no image, or features are not finite.
        SettingError: the network lacks the layer.

    Example:
        >>> batches = [(torch.ones(3, 1, 8, 8), torch.tensor([0, 1, 0]))]
        >>> network = nn.Sequential(nn.Conv2d(1, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2))
        >>> extract([network], batches)[0].values.shape
        (3, 5)
    """
    generator = torch.Generator().manual_seed(seed)
    values: list[list[Tensor]] = [[] for _ in networks]
    labels: list[Tensor] = []
    images: list[Tensor] = []
    seen = 0
    for batch in batches:
        image, label = pair(batch)
        if label.is_floating_point() and not torch.isfinite(label).all():
            raise DatasetError("class numbers", "NaN or infinity", "label")
        layer = layer or layer_before_scores(networks[0], image)
        inputs = [_input_of(layer, network, image) for network in networks]
        chosen, rows = _choose(inputs[0], label, generator)
        for kept, found in zip(values, inputs, strict=True):
            kept.append(_pool(found, chosen))
        labels.append(rows)
        images.append(seen + (torch.arange(len(image)) if chosen is None else chosen[0]))
        seen += len(image)
    if not labels:
        raise DatasetError("at least one batch", "none", "batches")
    together = torch.cat(labels).numpy(), torch.cat(images).numpy()
    found_features = [Features(torch.cat(kept).double().numpy(), *together) for kept in values]
    for n, found_set in enumerate(found_features):
        if not np.isfinite(found_set.values).all():
            raise DatasetError("finite features", "NaN or infinite ones", f"network {n}, input of {layer}")
    return found_features


def pair(batch: Any) -> tuple[Tensor, Tensor]:
    """Images and labels of a batch, whatever form it has.

    Args:
        batch: in any form of `monai_medmerge.inspection.image_and_label`.

    Raises:
        DatasetError: it is neither.

    Example:
        >>> pair({"image": [[1.0]], "label": [2]})[1]
        tensor([2])
    """
    image, label = image_and_label(batch)
    if not isinstance(label, Tensor):
        raise DatasetError("image and label", f"a label that is a {type(label).__name__}", "batch")
    return image, label


def _look(network: nn.Module, images: Tensor) -> None:
    """Run a network for its hooks, in evaluation."""
    with evaluating(network):
        network(images.to(device_of(network)))


def _input_of(layer: str, network: nn.Module, images: Tensor) -> Tensor:
    """What comes into a layer, channels second."""
    try:
        module = network.get_submodule(layer)
    except AttributeError as error:
        raise SettingError("a layer of the network", repr(layer), type(network).__name__) from error
    kept: list[Tensor] = []
    hook = module.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0].detach().cpu()))
    try:
        _look(network, images)
    finally:
        hook.remove()
    if not kept:
        raise SettingError("a layer that the network calls", repr(layer), type(network).__name__)
    found = kept[-1].as_subclass(Tensor)
    return found.movedim(-1, 1) if isinstance(module, nn.Linear) else found


def _choose(features: Tensor, label: Tensor, generator: torch.Generator) -> tuple[tuple[Tensor, ...] | None, Tensor]:
    """Which voxels become samples (None: images do), and the samples' labels."""
    if label.ndim <= 2 and label.numel() == len(features):
        return None, label.reshape(-1).long().cpu()
    if label.ndim == 2 and len(label) == len(features) and features.ndim == 2:
        return None, label.argmax(1).cpu()
    if label.ndim != features.ndim:
        expected = f"(image,) or (image, channel, *space) as the features {tuple(features.shape)}"
        raise DatasetError(f"labels {expected}", f"{tuple(label.shape)}", "label")
    numbers = label.argmax(1, keepdim=True) if label.shape[1] > 1 else label
    small = functional.interpolate(numbers.float().cpu(), features.shape[2:], mode="nearest-exact")[:, 0].long()
    chosen = []
    for image in small:
        for number in image.unique():
            places = (image == number).nonzero()
            chosen.append(places[torch.randperm(len(places), generator=generator)[:VOXELS]])
    counts = [len(image.unique()) for image in small]
    number_of_image = torch.arange(len(small)).repeat_interleave(torch.tensor(counts))
    which = number_of_image.repeat_interleave(torch.tensor([len(places) for places in chosen]))
    index = (which, *torch.cat(chosen).unbind(1))
    return index, small[index]


def _pool(features: Tensor, chosen: tuple[Tensor, ...] | None) -> Tensor:
    """(sample, feature): chosen voxels, or the mean over space."""
    if chosen is None:
        return features.flatten(2).mean(2) if features.ndim > 2 else features
    return features.movedim(1, -1)[chosen]
