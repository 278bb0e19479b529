"""Ranking as a command and as a stage: its answers, its exit status, and what it changes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from monai.networks.nets import ResNet
from torch import nn

from monai_medmerge import Source
from monai_medmerge.__main__ import main
from monai_medmerge.bundle import choose_sources, rank_sources
from monai_medmerge.errors import SettingError

SMALL = "ResNet(block='basic', layers=[1, 1, 1, 1], block_inplanes=[4, 8, 8, 16], spatial_dims=2, n_input_channels={})"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("sources") / "small.pt"
    torch.save(ResNet("basic", [1, 1, 1, 1], [4, 8, 8, 16], 2, 3).state_dict(), path)
    return path


def test_a_bundle_says_how_images_are_prepared(
    bundle_root: Path, phantoms: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = [str(bundle_root / "models" / f"{name}.safetensors") for name in ("natural", "brain_mri")]
    network = str(bundle_root / "configs" / "merge.json")
    arguments = ["rank", "--network", network, "--data", str(phantoms), "--source", models[0], "--source", models[1]]
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == 24
    assert {score["name"] for score in found["scores"]} == {"natural", "brain_mri"}
    assert found["proposed"][0] == found["anchor"] == found["scores"][0]["name"]


def test_a_class_takes_a_size_and_other_channels(
    phantoms: Path, small: Path, bundle_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", str(phantoms), "--labels", "12", "--source", str(small)]
    assert main(["rank", "--network", SMALL.format(3), *data, "--size", "32", "32"]) == 0
    assert "start from: small" in capsys.readouterr().out
    # The source's three channels do not fit one, unless they are asked to.
    assert main(["rank", "--network", SMALL.format(1), *data, "--size", "32", "32"]) == 1
    assert "conv1.weight" in capsys.readouterr().out
    assert main(["rank", "--network", SMALL.format(1), *data, "--size", "32", "32", "--adapt"]) == 0


@pytest.mark.parametrize(
    ("network", "extra", "word"),
    [
        (SMALL.format(3), [], "--size"),
        ("absent.json", [], "absent.json"),
        (SMALL.format(3), ["--size", "32", "32", "--labels", "2"], "from 3 to 24"),
        (SMALL.format(3), ["--size", "32"], "2 positive sizes"),
        (SMALL.format(3), ["--size", "32", "0"], "2 positive sizes"),
        (SMALL.format(3), ["--size", "32", "32", "--section", "train"], "'train'"),
    ],
)
def test_wrong_use_is_one_line_and_two(
    phantoms: Path, small: Path, network: str, extra: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rank", "--network", network, "--data", str(phantoms), "--source", str(small), *extra]) == 2
    error = capsys.readouterr().err
    assert word in error
    assert len(error.strip().splitlines()) == 1


def test_wrong_configurations_are_one_line_and_two(
    phantoms: Path, small: Path, bundle_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {
        "text.json": "{",
        "text.yaml": "network: [",
        "list.yaml": "- 1",
        "none.json": "{}",
        "number.json": '{"network": 3}',
        "raises.json": '{"network": "$1 / 0"}',
        "plain.json": '{"network_def": {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 2}}',
    }
    arguments = ["--data", str(phantoms), "--source", str(small)]
    for name, text in wrong.items():
        (tmp_path / name).write_text(text)
        assert main(["rank", "--network", str(tmp_path / name), *arguments]) == 2, name
        error = capsys.readouterr().err
        assert name in error
        assert len(error.strip().splitlines()) == 1
    config = str(bundle_root / "configs" / "merge.json")
    assert main(["rank", "--network", config, "--data", str(tmp_path), "--source", str(small)]) == 2
    assert "dataset.json" in capsys.readouterr().err


def test_a_seed_is_a_whole_number_from_0(phantoms: Path, small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["rank", "--network", SMALL.format(3), "--data", str(phantoms), "--source", str(small), "--seed", "-1"])
    assert "a whole number from 0, found -1" in capsys.readouterr().err


def test_an_image_that_cannot_be_read_is_told_by_its_number(
    phantoms: Path, small: Path, bundle_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(phantoms, tmp_path / "data")
    content = json.loads((tmp_path / "data" / "dataset.json").read_text())
    slices = [(tmp_path / "data" / entry["image"]).read_bytes() for entry in content["training"]]
    wrong = {"DOE_JANE.dcm": slices[5][:700], "DOE_JANE.png": b"\x89PNG", "DOE_JANE.nii.gz": b"", "DOE_JANE": b"text"}
    config = str(bundle_root / "configs" / "merge.json")
    model = str(bundle_root / "models" / "natural.safetensors")
    data = ["--data", str(tmp_path / "data")]
    for name, damaged in wrong.items():
        (tmp_path / "data" / name).write_bytes(damaged)
        content["training"][5]["image"] = name
        (tmp_path / "data" / "dataset.json").write_text(json.dumps(content))
        for arguments in (
            ["--network", config, "--source", model],
            ["--network", SMALL.format(3), "--source", str(small), "--size", "32", "32"],
        ):
            assert main(["rank", *data, *arguments]) == 2
            error = capsys.readouterr().err
            assert "dataset.json, training[5]: expected an image that can be read" in error
            assert "JANE" not in error
            assert len(error.strip().splitlines()) == 1


def test_images_that_the_network_does_not_take_are_refused(
    phantoms: Path, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = {"_target_": "ResNet", "block": "basic", "layers": [1, 1, 1, 1], "block_inplanes": [4, 8, 8, 16]}
    network |= {"spatial_dims": 2, "n_input_channels": 3}
    load = [{"_target_": "LoadImaged", "keys": "image"}, {"_target_": "EnsureChannelFirstd", "keys": "image"}]
    odd = {"_target_": "RandSpatialCropd", "keys": "image", "roi_size": [8, 8]}
    drop = {"_target_": "DeleteItemsd", "keys": "image"}
    wrong = {"one channel.json": load, "shapes.json": [*load, odd], "none.json": [*load, drop]}
    for name, steps in wrong.items():
        (tmp_path / name).write_text(json.dumps({"network_def": network, "preprocessing": steps}))
        assert main(["rank", "--network", str(tmp_path / name), "--data", str(phantoms), "--source", str(small)]) == 2
        error = capsys.readouterr().err
        assert len(error.strip().splitlines()) == 1, error


def test_a_stage_informs_and_chooses_only_if_asked_to() -> None:
    torch.manual_seed(1)
    images, labels = torch.randn(60, 6), torch.arange(60) % 2
    images[labels == 1, :3] += 2

    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))

    network = build()
    # It looks at the three inputs that tell the classes apart; the other at those that do not.
    good, bad = build(), build()
    with torch.no_grad():
        good[0].weight[:, 3:] = 0
        bad[0].weight[:, :3] = 0
    sources = [Source.from_network(bad, "bad"), Source.from_network(good, "good"), Source.from_network(good, "twin")]
    batches = [{"image": images, "label": labels}]
    assert rank_sources(network, sources, "off", batches) is None
    ranking = rank_sources(network, sources, "choose", batches)
    assert ranking is not None
    assert [score.name for score in ranking.scores] == ["good", "twin", "bad"]
    assert choose_sources(sources, ranking, "inform") == sources
    assert choose_sources(sources, None, "choose") == sources
    assert choose_sources(sources, ranking, "choose") == [sources[1]]
    with pytest.raises(SettingError, match="off, inform, choose"):
        rank_sources(network, sources, "yes", batches)
