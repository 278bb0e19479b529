"""Checkpoints named by other libraries, computed by stand-ins written here from those libraries' naming."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import monai.networks.nets as nets
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_medmerge import Source, UnsafeCheckpointError, match, merge
from monai_medmerge.sources import resolve
from monai_medmerge.sources.names.keymaps import KEY_MAPS, rename


class Block(nn.Module):
    """A basic block under torchvision's names: no bias in the downsampling convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        changes = stride != 1 or inputs != outputs
        convolution = [nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)] if changes else []
        self.downsample = nn.Sequential(*convolution) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        shortcut = x if self.downsample is None else self.downsample(x)
        return functional.relu(self.bn2(self.conv2(y)) + shortcut)


class TorchvisionResNet18(nn.Module):
    """ResNet-18 as torchvision names it."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        widths = [64, 64, 128, 256, 512]
        for n in range(1, 5):
            stride = 1 if n == 1 else 2
            layer = nn.Sequential(Block(widths[n - 1], widths[n], stride), Block(widths[n], widths[n], 1))
            setattr(self, f"layer{n}", layer)
        self.fc = nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for n in range(1, 5):
            x = getattr(self, f"layer{n}")(x)
        return self.fc(x.mean((2, 3)))


class DenseLayer(nn.Module):
    """A dense layer under torchvision's names."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 128, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(128), nn.Conv2d(128, 32, 3, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(functional.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(functional.relu(self.norm2(y)))], 1)


class TorchvisionDenseNet121(nn.Module):
    """DenseNet-121 as torchvision names it."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        parts: OrderedDict[str, nn.Module] = OrderedDict(
            conv0=nn.Conv2d(3, 64, 7, 2, 3, bias=False), norm0=nn.BatchNorm2d(64), relu0=nn.ReLU(),
            pool0=nn.MaxPool2d(3, 2, 1),
        )  # fmt: skip
        channels = 64
        for n, count in enumerate((6, 12, 24, 16), start=1):
            layers = OrderedDict((f"denselayer{i + 1}", DenseLayer(channels + 32 * i)) for i in range(count))
            parts[f"denseblock{n}"] = nn.Sequential(layers)
            channels += 32 * count
            if n < 4:
                transition = OrderedDict(
                    norm=nn.BatchNorm2d(channels), relu=nn.ReLU(),
                    conv=nn.Conv2d(channels, channels // 2, 1, bias=False), pool=nn.AvgPool2d(2),
                )  # fmt: skip
                parts[f"transition{n}"] = nn.Sequential(transition)
                channels //= 2
        parts["norm5"] = nn.BatchNorm2d(channels)
        self.features = nn.Sequential(parts)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(functional.relu(self.features(x)).mean((2, 3)))


def randomised(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for name, buffer in network.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5, generator=generator)
    return network.eval()


def old_spelling(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """`norm1.weight` as `norm.1.weight`, as torchvision's files still have it."""
    return {
        k.replace("norm1.", "norm.1.")
        .replace("norm2.", "norm.2.")
        .replace("conv1.", "conv.1.")
        .replace("conv2.", "conv.2.")
        if "denselayer" in k
        else k: v
        for k, v in state.items()
    }


def outputs_agree(network: nn.Module, source: Source, original: nn.Module, image: Tensor) -> bool:
    merged = merge(network, [source]).eval()
    with torch.no_grad():
        found, expected = merged(image), original(image)
    return torch.allclose(found, expected, atol=1e-4 * float(expected.abs().max()))


def test_a_torchvision_resnet_computes_the_same_in_monai() -> None:
    torch.manual_seed(0)
    original = randomised(TorchvisionResNet18(5))
    network = nets.ResNet(
        "basic", [2, 2, 2, 2], [64, 128, 256, 512], 2, 3, conv1_t_stride=2, num_classes=5, bias_downsample=False
    )
    source = Source.from_network(original, "torchvision")
    assert match(network, [source]).coverage == (1.0,)
    assert outputs_agree(network, source, original, torch.randn(2, 3, 64, 64))
    # With a bias in MONAI's downsampling, only that stays the network's own.
    biased = nets.ResNet("basic", [2, 2, 2, 2], [64, 128, 256, 512], 2, 3, conv1_t_stride=2, num_classes=5)
    assert set(match(biased, [source]).unmatched) == {f"layer{n}.0.downsample.0.bias" for n in (2, 3, 4)}


@pytest.mark.parametrize("spelling", [dict, old_spelling])
def test_a_torchvision_densenet_computes_the_same_in_monai(spelling: object, tmp_path: Path) -> None:
    torch.manual_seed(0)
    original = randomised(TorchvisionDenseNet121(4))
    torch.save({"state_dict": spelling(original.state_dict())}, tmp_path / "densenet.pth")
    network = nets.DenseNet121(2, 3, 4)
    source = Source.from_file(tmp_path / "densenet.pth")
    report = match(network, [source])
    assert report.coverage == (1.0,)
    assert "names mapped by torchvision_densenet" in str(report)
    assert outputs_agree(network, source, original, torch.randn(2, 3, 64, 64))
    explicit = Source.from_file(tmp_path / "densenet.pth", key_map="torchvision_densenet")
    assert set(explicit.tensors) == set(network.state_dict())


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_a_medicalnet_style_file_fits_a_three_dimensional_resnet(shortcut: str, tmp_path: Path) -> None:
    network = nets.ResNet(
        "basic", [1, 1, 1, 1], [8, 16, 32, 64], 3, 1, shortcut_type=shortcut, num_classes=2, bias_downsample=False
    )
    # MedicalNet saves from DataParallel, with its optimizer, and with the convolutions of its segmentation head.
    state = {f"module.{k}": v for k, v in network.state_dict().items() if not k.startswith("fc.")}
    state["module.conv_seg.0.weight"] = torch.zeros(64, 32, 2, 2, 2)
    torch.save({"epoch": 1, "state_dict": state, "optimizer": {"state": {}, "param_groups": []}}, tmp_path / "m.pth")
    report = match(network, [Source.from_file(tmp_path / "m.pth")])
    assert report.compatible
    assert set(report.unmatched) == {"fc.weight", "fc.bias"}
    assert "conv_seg" in str(report)


def test_a_users_own_map(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    torch.save({f"stem.{k}": v for k, v in network.state_dict().items()}, tmp_path / "a.pt")
    source = Source.from_file(tmp_path / "a.pt", key_map={r"^stem\.(.*)$": r"\1"})
    assert match(network, [source]).coverage == (1.0,)
    for key_map, word in [({"(": ""}, "regular expressions"), ("unknown", "key maps"), ({r".*": "x"}, "two tensors")]:
        with pytest.raises(UnsafeCheckpointError, match=word):
            Source.from_file(tmp_path / "a.pt", key_map=key_map)


def test_names_that_agree_are_left_alone() -> None:
    network = nets.UNet(2, 1, 2, (4, 8), (2,))
    resolved = resolve(network, Source.from_network(network, "same"))
    assert "key_map" not in resolved.provenance
    assert "prefix_removed" not in resolved.provenance
    assert all(rename({"x": 1}, name, "here") == {"x": 1} for name in KEY_MAPS)
