"""Adapted sources make the activations that the original made."""

from __future__ import annotations

import monai.networks.nets as nets
import pytest
import torch
from torch import nn

from monai_medmerge import IncompatibleSourcesError, Source, match, merge
from monai_medmerge.sources import adapt


def resnet(channels: int, dimensions: int = 2) -> nn.Module:
    return nets.ResNet("basic", [1, 1, 1, 1], [4, 8, 16, 32], dimensions, channels, num_classes=3).eval()


def grouped(channels: int) -> nn.Module:
    """A first convolution in two groups, and one behind it that does not see the image."""
    return nn.Sequential(nn.Conv2d(2 * channels, 8, 3, groups=2), nn.ReLU(), nn.Conv2d(8, 4, 3, groups=4))


def unet(channels: int) -> nn.Module:
    return nets.UNet(2, channels, 2, (4, 8, 16), (2, 2), num_res_units=2).eval()


@pytest.mark.parametrize("build", [resnet, unet])
@pytest.mark.parametrize(("found", "wanted"), [(3, 1), (1, 3), (1, 4), (4, 1), (2, 4), (4, 2), (3, 4), (4, 3)])
def test_a_grey_image_in_every_channel_makes_the_same_output(build: object, found: int, wanted: int) -> None:
    torch.manual_seed(0)
    original, network = build(found), build(wanted)
    source = Source.from_network(original, "source")
    adapted = adapt(network, source)
    network.load_state_dict(dict(adapted.tensors))
    grey = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        expected, output = original(grey.expand(-1, found, -1, -1)), network(grey.expand(-1, wanted, -1, -1))
    assert torch.allclose(output, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert all("input channels" in note for note in adapted.provenance["adaptations"])
    assert source.provenance.get("adaptations") is None


@pytest.mark.parametrize(("found", "wanted"), [(3, 1), (1, 3), (4, 3), (3, 4)])
def test_groups_are_adapted_one_by_one(found: int, wanted: int) -> None:
    torch.manual_seed(0)
    original, network = grouped(found), grouped(wanted)
    adapted = adapt(network, Source.from_network(original, "source"))
    network.load_state_dict(dict(adapted.tensors))
    assert len(adapted.provenance["adaptations"]) == 1
    # Each group has a grey image of its own.
    grey = torch.randn(2, 2, 1, 16, 16)
    with torch.no_grad():
        expected, output = (
            net(grey.expand(-1, -1, channels, -1, -1).flatten(1, 2))
            for net, channels in ((original, found), (network, wanted))
        )
    assert torch.allclose(output, expected, atol=1e-5)


@pytest.mark.parametrize(("found", "wanted"), [(4, 3), (3, 4), (3, 1), (1, 4)])
def test_channels_and_dimensions_change_together(found: int, wanted: int) -> None:
    torch.manual_seed(0)
    flat, deep = nn.Conv2d(found, 4, 3, padding=1), nn.Conv3d(wanted, 4, 3, padding=1)
    deep.load_state_dict(dict(adapt(deep, Source.from_network(flat, "flat")).tensors))
    grey = torch.randn(1, 1, 8, 8)
    with torch.no_grad():
        inner = deep(grey[:, :, None].expand(-1, wanted, 5, -1, -1))[:, :, 1:-1]
        expected = flat(grey.expand(-1, found, -1, -1))[:, :, None].expand_as(inner)
    assert torch.allclose(inner, expected, atol=1e-5)


def test_inflation_keeps_activations_on_volumes_constant_in_depth() -> None:
    torch.manual_seed(0)
    flat, deep = nn.Conv2d(2, 4, 3, padding=1), nn.Conv3d(2, 4, 3, padding=1)
    deep.load_state_dict(dict(adapt(deep, Source.from_network(flat, "flat")).tensors))
    image = torch.randn(1, 2, 8, 8)
    with torch.no_grad():
        inner = deep(image[:, :, None].expand(-1, -1, 5, -1, -1))[:, :, 1:-1]
        assert torch.allclose(inner, flat(image)[:, :, None].expand_as(inner), atol=1e-6)


def test_a_two_dimensional_resnet_becomes_a_source_of_a_three_dimensional_one() -> None:
    source, network = Source.from_network(resnet(3), "flat"), resnet(1, 3)
    assert not match(network, [source]).compatible
    adapted = adapt(network, source)
    report = match(network, [adapted])
    assert report.compatible
    assert report.coverage == (1.0,)
    assert "2-D to 3-D" in str(report)
    assert "3 input channels to 1, summed" in str(report)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_and_told(dtype: torch.dtype) -> None:
    network = nn.Linear(4, 2)
    source = Source("half", {name: tensor.to(dtype) for name, tensor in network.state_dict().items()})
    adapted = adapt(network, source)
    assert all(tensor.dtype == torch.float32 for tensor in adapted.tensors.values())
    assert len(adapted.provenance["adaptations"]) == 2


def test_shapes_never_change_unasked() -> None:
    with pytest.raises(IncompatibleSourcesError, match=r"conv1\.weight"):
        merge(resnet(1), [Source.from_network(resnet(3), "rgb")], exclude=["fc.*"])
    merge(resnet(1), [adapt(resnet(1), Source.from_network(resnet(3), "rgb"))], exclude=["fc.*"])


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 1), (3, 2), (4, 2), (5, 3)])
def test_inflated_transposed_convolutions_keep_activations_too(kernel: int, stride: int) -> None:
    torch.manual_seed(0)
    flat, deep = nn.ConvTranspose2d(4, 2, kernel, stride), nn.ConvTranspose3d(4, 2, kernel, stride)
    deep.load_state_dict(dict(adapt(deep, Source.from_network(flat, "flat")).tensors))
    image = torch.randn(1, 4, 5, 5)
    with torch.no_grad():
        inner = deep(image[:, :, None].expand(-1, -1, 7, -1, -1))[:, :, kernel:-kernel]
        assert torch.allclose(inner, flat(image)[:, :, None].expand_as(inner), atol=1e-6)


def test_a_kernel_shorter_than_its_stride_cannot_be_inflated() -> None:
    source = Source.from_network(nn.ConvTranspose2d(2, 2, 2, 3), "flat")
    assert not match(nn.ConvTranspose3d(2, 2, 2, 3), [adapt(nn.ConvTranspose3d(2, 2, 2, 3), source)]).compatible
