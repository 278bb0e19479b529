"""Which sources fit which networks, and what the report says of it."""

from __future__ import annotations

import monai.networks.nets as nets
import pytest
import torch
from torch import nn

from monai_medmerge import SettingError, Source, match
from monai_medmerge.methods import merge_with


def resnet(block: str = "basic", widths: tuple[int, ...] = (8, 16, 32, 64), classes: int = 3) -> nn.Module:
    return nets.ResNet(block, [1, 1, 1, 1], list(widths), spatial_dims=2, n_input_channels=1, num_classes=classes)


def dynunet(classes: int) -> nn.Module:
    return nets.DynUNet(
        2, 1, classes, [3] * 3, [1, 2, 2], [2, 2], filters=[4, 8, 16], deep_supervision=True, deep_supr_num=1
    )


def unet(classes: int, units: int, channels: tuple[int, ...] = (4, 8, 16)) -> nn.Module:
    return nets.UNet(2, 1, classes, channels, (2, 2), num_res_units=units)


def vit(classes: int) -> nn.Module:
    return nets.ViT(1, (32, 32), (8, 8), 24, 48, 2, 3, classification=True, num_classes=classes, spatial_dims=2)


def swin(classes: int) -> nn.Module:
    return nets.SwinUNETR(1, classes, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1), feature_size=12, spatial_dims=2)


OTHER_HEADS = {
    "ResNet": (resnet(classes=3), resnet(classes=10)),
    "DenseNet": (nets.DenseNet(2, 1, 3, 8, 4, (2, 2)), nets.DenseNet(2, 1, 7, 8, 4, (2, 2))),
    "UNet": (unet(3, 0), unet(2, 0)),
    "UNet, residual units": (unet(3, 2), unet(2, 2)),
    "SegResNet": (nets.SegResNet(2, 8, 1, 3), nets.SegResNet(2, 8, 1, 2)),
    "SegResNetDS": (nets.SegResNetDS(2, 8, 1, 3, blocks_down=(1, 1)), nets.SegResNetDS(2, 8, 1, 2, blocks_down=(1, 1))),
    "DynUNet, deep supervision": (dynunet(3), dynunet(2)),
    "ViT": (vit(3), vit(2)),
    "SwinUNETR": (swin(3), swin(2)),
}
STRANGERS = {
    "bottlenecks for basic blocks": (resnet(), resnet("bottleneck")),
    "wider": (resnet(), resnet(widths=(16, 32, 64, 128))),
    "wider U-Net": (unet(3, 2), unet(3, 2, (8, 16, 32))),
    "DenseNet for ResNet": (resnet(), nets.DenseNet(2, 1, 3, 8, 4, (2, 2))),
    "ResNet for DenseNet": (nets.DenseNet(2, 1, 3, 8, 4, (2, 2)), resnet()),
    "3-D for 2-D": (unet(3, 2), nets.UNet(3, 1, 3, (4, 8, 16), (2, 2), num_res_units=2)),
}


@pytest.mark.parametrize("case", OTHER_HEADS)
def test_a_head_of_other_classes_fits(case: str) -> None:
    network, other = OTHER_HEADS[case]
    report = match(network, [Source.from_network(other, "other")])
    assert report.compatible, str(report)
    assert 0 < len(report.unmatched) <= 4 + len(network.state_dict()) // 6
    assert 0.5 < report.coverage[0] < 1


@pytest.mark.parametrize("case", STRANGERS)
def test_another_architecture_does_not(case: str) -> None:
    network, other = STRANGERS[case]
    report = match(network, [Source.from_network(network, "same"), Source.from_network(other, "stranger")])
    assert not report.compatible
    assert report.reasons[0] == ""
    assert report.reasons[1]
    assert "stranger: " in str(report)
    assert "does not fit" in str(report)


def test_an_encoder_alone_fits() -> None:
    network = nets.FlexibleUNet(1, 3, "efficientnet-b0", pretrained=False)
    encoder = {k: v for k, v in network.state_dict().items() if k.startswith("encoder.")}
    report = match(network, [Source("encoder", encoder)])
    assert report.compatible
    assert all(not name.startswith("encoder.") for name in report.unmatched)


def test_the_report_shows_every_tensor_and_serialises() -> None:
    import json

    network = resnet()
    half = Source("half", {k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()})
    extra = Source("extra", {**network.state_dict(), "neck.weight": torch.zeros(2, 2)})
    report = match(network, [half, extra])
    lines = str(report).splitlines()
    assert [line.split()[0] for line in lines[2 : 2 + len(network.state_dict())]] == list(network.state_dict())
    assert "match, float16 to float32" in str(report)
    assert "1 tensors that the network lacks" in str(report)
    content = json.loads(json.dumps(report.as_dict()))
    assert [source["coverage"] for source in content["sources"]] == [1.0, 1.0]


def test_a_mismatch_is_never_an_exception() -> None:
    integers = Source(
        "integers", {k: torch.zeros(v.shape, dtype=torch.int64) for k, v in resnet().state_dict().items()}
    )
    for source in (Source("one", {"x": torch.zeros(1)}), integers):
        assert not match(resnet(), [source]).compatible


def test_sources_of_one_name_do_not_fit() -> None:
    sources = [Source.from_network(nn.Linear(2, 2), name) for name in ("model", "model", "other")]
    report = match(nn.Linear(2, 2), sources)
    assert [bool(reason) for reason in report.reasons] == [True, True, False]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["chest.pt"], "a str"),
        ("chest.pt", "a str"),
        ([nn.Linear(2, 2)], "a Linear"),
        (Source.from_network(nn.Linear(2, 2), "chest"), "a Source"),
        (None, "a NoneType"),
    ],
)
def test_what_is_no_list_of_sources_is_refused_with_what_makes_one(given: object, found: str) -> None:
    expected = f"sources: expected a list of Source, .*Source.from_file.*found {found}$"
    with pytest.raises(SettingError, match=expected):
        match(nn.Linear(2, 2), given)
    with pytest.raises(SettingError, match=expected):
        merge_with("uniform_average", nn.Linear(2, 2), given)
