"""Tiny networks of MONAI with weights of their own, and others that are nearly the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from monai.networks.nets import DenseNet, DynUNet, ResNet, SegResNet, UNet, ViT
from torch import Tensor, nn

State = dict[str, Tensor]


def _resnet(channels: int, classes: int) -> nn.Module:
    widths = [4, 8, 16, 32]
    return ResNet("basic", [1, 1, 1, 1], widths, 2, channels, conv1_t_size=3, num_classes=classes)


def _densenet(channels: int, classes: int) -> nn.Module:
    return DenseNet(2, channels, classes, 8, 4, (2, 2))


def _unet(channels: int, classes: int) -> nn.Module:
    return UNet(2, channels, classes, (4, 8, 16), (2, 2), num_res_units=1)


def _dynunet(channels: int, classes: int) -> nn.Module:
    return DynUNet(2, channels, classes, [3] * 3, [1, 2, 2], [2, 2], filters=[4, 8, 16])


def _segresnet(channels: int, classes: int) -> nn.Module:
    return SegResNet(2, 8, channels, classes, blocks_down=(1, 1, 1), blocks_up=(1, 1))


def _vit(channels: int, classes: int) -> nn.Module:
    return ViT(channels, (32, 32), (8, 8), 24, 48, 2, 3, classification=True, num_classes=classes, spatial_dims=2)


@dataclass(frozen=True)
class Kind:
    """A network: how it is made, a module of its body that can be absent, and how its first convolution is called."""

    make: Callable[[int, int], nn.Module]
    block: str
    first: str


NETWORKS: Mapping[str, Kind] = {
    "ResNet": Kind(_resnet, "layer2", "conv1"),
    "DenseNet": Kind(_densenet, "features.denseblock1", "features.conv0"),
    "UNet": Kind(_unet, "model.1.submodule.0", "model.0.conv.unit0.conv"),
    "DynUNet": Kind(_dynunet, "bottleneck", "input_block.conv1.conv"),
    "SegResNet": Kind(_segresnet, "down_layers.1", "convInit.conv"),
    "ViT": Kind(_vit, "blocks.1", "patch_embedding.patch_embeddings"),
}


@dataclass(frozen=True)
class Sample:
    """One network to be filled, and weights that are written in one form after the other.

    Args:
        name: of the network.
        target: what is filled; a copy of it, so that it stays as it is.
        trained: a network with the weights that are written.
    """

    name: str
    target: nn.Module
    trained: nn.Module

    @property
    def kind(self) -> Kind:
        """How the network is made."""
        return NETWORKS[self.name]

    @property
    def state(self) -> State:
        """The weights that are written."""
        return dict(self.trained.state_dict())

    @property
    def averaged(self) -> State:
        """Other weights of the same network, as an average of them would be."""
        return {key: value * 0.5 if value.is_floating_point() else value for key, value in self.state.items()}

    def like(self, channels: int = 1, classes: int = 3) -> nn.Module:
        """The network for other images or classes, with weights of its own."""
        return with_weights(self.kind.make(channels, classes), seed=7)

    def inside(self, module: str) -> set[str]:
        """All names of the tensors of a module; DynUNet has two for each."""
        held = {value.data_ptr() for key, value in self.state.items() if key.startswith(f"{module}.")}
        return {key for key, value in self.state.items() if value.data_ptr() in held}

    def without(self, module: str) -> State:
        """The weights that are written, but those of a module."""
        return {key: value for key, value in self.state.items() if key not in self.inside(module)}

    def with_first(self, weight: Tensor) -> State:
        """The weights that are written, with another one of the first convolution."""
        changed = self.state[f"{self.kind.first}.weight"].data_ptr()
        return {key: weight if value.data_ptr() == changed else value for key, value in self.state.items()}

    @classmethod
    def of(cls, name: str) -> Sample:
        """Of a network by its name."""
        make = NETWORKS[name].make
        return cls(name, with_weights(make(1, 3), seed=1), with_weights(make(1, 3), seed=2))


def with_weights(network: nn.Module, seed: int) -> nn.Module:
    """Every number of a network at random, those of norms too, so that none agrees with another by chance."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
            else:
                tensor.fill_(seed)
    return network.eval()


def plain(state: Mapping[str, Any]) -> State:
    """A state dict of copies."""
    return {key: value.detach().clone() for key, value in state.items()}
