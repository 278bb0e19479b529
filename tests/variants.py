"""The networks that merging is tested on, small: name to (constructor, shape of an input)."""

from __future__ import annotations

from collections.abc import Callable

import monai.networks.nets as nets
import torch
from torch import nn

Variant = tuple[Callable[[], nn.Module], tuple[int, ...]]


def _both(name: str, build: Callable[[int], nn.Module], size: int, size_3d: int | None = None) -> dict[str, Variant]:
    return {
        f"{name}-2d": (lambda: build(2), (2, 1, *[size] * 2)),
        f"{name}-3d": (lambda: build(3), (2, 1, *[size_3d or size] * 3)),
    }


def _dynunet(d: int) -> nn.Module:
    return nets.DynUNet(
        d,
        1,
        3,
        [3, 3, 3],
        [1, 2, 2],
        [2, 2],
        filters=[4, 8, 16],
        deep_supervision=True,
        deep_supr_num=1,
        res_block=True,
    )


def _resnet(block: str, layers: list[int], d: int) -> nn.Module:
    return nets.ResNet(block, layers, [4, 8, 16, 32], spatial_dims=d, n_input_channels=1, num_classes=3)


def _seresnet(d: int) -> nn.Module:
    return nets.SENet(
        d, 1, "se_resnet_bottleneck", (1, 1, 1, 1), 1, 4, dropout_prob=None, inplanes=64, downsample_kernel_size=1,
        input_3x3=False, num_classes=3,
    )  # fmt: skip


VARIANTS: dict[str, Variant] = {
    **_both("DenseNet", lambda d: nets.DenseNet(d, 1, 3, 8, 4, (2, 2)), 32, 16),
    "DenseNet121-2d": (lambda: nets.DenseNet121(2, 1, 3, init_features=8, growth_rate=4), (2, 1, 32, 32)),
    **_both("ResNet18", lambda d: _resnet("basic", [2, 2, 2, 2], d), 32, 16),
    **_both("ResNet50", lambda d: _resnet("bottleneck", [3, 4, 6, 3], d), 32, 16),
    "SEResNet50-2d": (lambda: _seresnet(2), (2, 1, 32, 32)),
    **_both("EfficientNetBN", lambda d: nets.EfficientNetBN("efficientnet-b0", False, True, d, 1, 3), 32, 32),
    **_both("UNet-batch", lambda d: nets.UNet(d, 1, 3, (4, 8, 16), (2, 2), num_res_units=1, norm="batch"), 32, 16),
    **_both("UNet-instance", lambda d: nets.UNet(d, 1, 3, (4, 8, 16), (2, 2), num_res_units=2), 32, 16),
    **_both("BasicUNet", lambda d: nets.BasicUNet(d, 1, 3, (4, 4, 8, 8, 16, 4)), 32, 32),
    **_both("DynUNet", _dynunet, 32, 16),
    **_both("SegResNet", lambda d: nets.SegResNet(d, 8, 1, 3), 32, 16),
    **_both("SegResNetDS", lambda d: nets.SegResNetDS(d, 8, 1, 3, blocks_down=(1, 2, 2)), 32, 16),
    "VNet-2d": (lambda: nets.VNet(2, 1, 3, dropout_dim=2), (2, 1, 32, 32)),
    **_both("AttentionUnet", lambda d: nets.AttentionUnet(d, 1, 3, (4, 8, 16), (2, 2)), 32, 16),
    **_both("FlexibleUNet-resnet", lambda d: nets.FlexibleUNet(1, 3, "resnet10", False, (8, 8, 4, 4, 4), d), 32, 32),
    "FlexibleUNet-2d": (lambda: nets.FlexibleUNet(1, 3, "efficientnet-b0", False), (2, 1, 32, 32)),
    **_both("MedNeXt", lambda d: nets.MedNeXt(d, 4, 1, 3, blocks_down=(1, 1), blocks_up=(1, 1)), 32, 16),
    **_both("AutoEncoder", lambda d: nets.AutoEncoder(d, 1, 1, (4, 8), (2, 2), num_res_units=1), 32, 16),
    **_both("ViT", lambda d: _vit(d), 32, 16),
    "UNETR-3d": (lambda: nets.UNETR(1, 3, (16, 16, 16), 4, 24, 48, 3), (1, 1, 16, 16, 16)),
    "SwinUNETR-2d": (lambda: _swin(2), (1, 1, 64, 64)),
    "SwinUNETR-3d": (lambda: _swin(3), (1, 1, 64, 32, 32)),
    # Grouped and depthwise transposed convolutions are rare in the zoo, and the axis is easy to get wrong.
    "grouped-transposed": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.PReLU(8), nn.ConvTranspose2d(8, 6, 2, groups=2), nn.GroupNorm(3, 6),
            nn.ConvTranspose2d(6, 6, 3, groups=6, bias=False), nn.Conv2d(6, 3, 1),
        ),
        (2, 1, 8, 8),
    ),
}  # fmt: skip


def _vit(d: int) -> nn.Module:
    size = (32, 32) if d == 2 else (16, 16, 16)
    return nets.ViT(1, size, (8,) * d, 24, 48, 2, 3, classification=True, num_classes=3, spatial_dims=d)


def _swin(d: int) -> nn.Module:
    return nets.SwinUNETR(1, 3, depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8), feature_size=12, spatial_dims=d)


def build(name: str, seed: int) -> nn.Module:
    """A network of this variant, its weights and running statistics drawn from a seed."""
    torch.manual_seed(seed)
    network = VARIANTS[name][0]()
    for buffer_name, buffer in network.named_buffers():
        if buffer_name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        elif buffer_name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    return network


def example(name: str) -> torch.Tensor:
    """An input for this variant."""
    return torch.randn(VARIANTS[name][1], generator=torch.Generator().manual_seed(0))


def output(network: nn.Module, image: torch.Tensor) -> list[torch.Tensor]:
    """What a network gives, whatever its kind of output, as a flat list."""
    with torch.no_grad():
        return flat(network(image))


def flat(value: object) -> list[torch.Tensor]:
    """All tensors in a nest of sequences."""
    if isinstance(value, torch.Tensor):
        return [value]
    return [tensor for item in value for tensor in flat(item)] if isinstance(value, list | tuple) else []
