"""A network is what it was after it has been watched, and is watched in training only where that may matter."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from variants import VARIANTS, build, example

from monai_medmerge.networks.alignment import permutation
from monai_medmerge.networks.alignment.invariance import asks_for_mode, outputs_of_both_modes, restored
from monai_medmerge.networks.alignment.permutation import ChannelGroups, channel_groups


def parts(network: nn.Module) -> list[object]:
    """What a network consists of: numbers by value, objects by identity, and the contents of lists."""

    def part(value: object) -> object:
        if isinstance(value, list):
            return [part(item) for item in value]
        return value if isinstance(value, bool | int | float | str) else id(value)

    return [{name: part(value) for name, value in vars(module).items()} for module in network.modules()]


# DynUNet writes into a list of outputs, VNet drops out, ViT keeps its attention, UNet has running statistics.
@pytest.mark.parametrize("variant", ["DynUNet-2d", "VNet-2d", "ViT-2d", "UNet-batch-2d"])
def test_everything_is_put_back(variant: str) -> None:
    network = build(variant, 0).eval()
    before, buffers = parts(network), {name: buffer.clone() for name, buffer in network.named_buffers()}
    with restored(network):
        outputs_of_both_modes(network, example(variant))
        changed = parts(network)
    assert changed != before
    assert parts(network) == before
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in network.named_buffers())


def test_an_error_leaves_the_network_as_it_was() -> None:
    network = nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 2, 3), nn.Linear(3, 2)).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(RuntimeError):
        channel_groups(network, torch.zeros(2, 1, 8, 8))
    assert all(module.training for module in network.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


class Head(nn.Module):
    """Returns its hidden units in training."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> object:
        return self._both(x) if self._trains() else self.second(self.first(x))

    def _both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.first(x), self.second(self.first(x))

    def _trains(self) -> bool:
        return any(mode for mode in (lambda: self.training,) if mode())


def test_what_is_an_output_in_training_alone_stays() -> None:
    groups = channel_groups(nn.Sequential(Head()), torch.randn(3, 2), check=False)
    assert not groups.groups
    assert "is an output of the network" in {fixed.reason for fixed in groups.fixed}


def test_which_networks_ask_for_their_mode() -> None:
    asking = {variant.removesuffix("-2d") for variant in VARIANTS if variant.endswith("2d") and asks(variant)}
    # Deep supervision, drop-connect.
    assert {"DynUNet", "SegResNetDS", "EfficientNetBN", "FlexibleUNet"} <= asking
    assert not {"ResNet18", "DenseNet", "UNet-batch", "UNet-instance", "BasicUNet", "AttentionUnet"} & asking
    network = nn.Sequential(nn.Linear(2, 2))
    network.forward = lambda x: x if network.training else -x  # type: ignore[method-assign]
    assert asks_for_mode(network)
    assert asks_for_mode(nn.Sequential(torch.jit.script(nn.Linear(2, 2))))


def asks(variant: str) -> bool:
    return asks_for_mode(build(variant, 0))


@pytest.mark.parametrize("variant", ["DenseNet-2d", "ResNet18-3d", "UNet-batch-2d", "UNet-instance-3d", "VNet-2d"])
def test_training_shows_nothing_more_where_it_is_left_out(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def described(groups: ChannelGroups) -> object:
        members = [[(m.tensor, m.axis, m.index.tolist()) for m in group.members] for group in groups.groups]
        return members, groups.fixed

    network, image = build(variant, 0), example(variant)
    once = described(channel_groups(network, image, check=False))
    monkeypatch.setattr(permutation, "asks_for_mode", lambda _: True)
    assert described(channel_groups(network, image, check=False)) == once
