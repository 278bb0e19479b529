"""An exported bundle answers as the user's network does: activation, overlaps, preprocessing, forms of images."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from PIL import Image
from torch import nn

from monai_medmerge import SettingError
from monai_medmerge.__main__ import main
from monai_medmerge.bundle.export.choosing import Stated, choose
from monai_medmerge.bundle.export.configured import configured_activation
from monai_medmerge.bundle.export.formats import _compare
from monai_medmerge.bundle.export.texts import BundleCard
from monai_medmerge.bundle.export.writing import export_bundle

FLAT = {"_target_": "DenseNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 1, "init_features": 4,
        "growth_rate": 4, "block_config": [2]}  # fmt: skip
UNET = {"_target_": "BasicUNet", "spatial_dims": 3, "in_channels": 4, "out_channels": 3,
        "features": [4, 4, 4, 4, 4, 4]}  # fmt: skip
BOTH = ["image", "label"]
PNG = {"_target_": "BasicUNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 3, "features": [4] * 6}
OWN = """
import torch
from .parts import Head
class Net(torch.nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.body = torch.nn.Conv2d(1, 4, 3)
        self.head = Head(classes)
    def forward(self, image):
        return self.head(self.body(image).mean((2, 3)))
"""
PARTS = """
import torch
class Head(torch.nn.Linear):
    def __init__(self, classes):
        super().__init__(4, classes)
"""


def bundle(folder: Path, network_def: dict[str, Any], **entries: Any) -> tuple[list[str], nn.Module]:
    """A configuration and weights of a user; the command that exports them to `out`, and the network."""
    (folder / "configs").mkdir(parents=True, exist_ok=True)
    (folder / "configs" / "train.json").write_text(json.dumps({"network_def": network_def, **entries}))
    torch.manual_seed(1)
    network: nn.Module = ConfigParser({"n": network_def}).get_parsed_content("n")
    torch.save(network.state_dict(), folder / "w.pt")
    command = ["export", "--network", str(folder / "configs" / "train.json"), "--weights", str(folder / "w.pt"),
               "--output", str(folder / "out"), "--no-onnx", "--no-torchscript"]  # fmt: skip
    return command, network.eval()


def infer(root: Path, images: Path, output: Path) -> None:
    workflow = ConfigWorkflow(
        str(root / "configs" / "inference.json"), str(root / "configs" / "metadata.json"), workflow_type="inference",
        bundle_root=str(root), dataset_dir=str(images), output_dir=str(output),
    )  # fmt: skip
    workflow.initialize()
    workflow.run()


def picture(path: Path, size: tuple[int, int], seed: int = 0) -> torch.Tensor:
    """A grey picture, and what it is to a network: Pillow's rows are MONAI's second axis; intensities from 0 to 1."""
    pixels = np.random.default_rng(seed).integers(0, 255, size, np.uint8)
    Image.fromarray(pixels).save(path)
    image = torch.from_numpy(np.asarray(Image.open(path)).T.astype(np.float32))[None, None]
    return (image - image.min()) / (image.max() - image.min())


def test_one_channel_is_a_sigmoid_and_its_answers_differ(tmp_path: Path) -> None:
    command, network = bundle(tmp_path, FLAT, loss_function={"_target_": "torch.nn.BCEWithLogitsLoss"})
    command += ["--task", "classification", "--spatial-shape", "32", "32", "--preprocessing", "generic"]
    assert main([*command, "--classes", "tumor"]) == 0
    images = tmp_path / "images"
    images.mkdir()
    with torch.no_grad():
        expected = [float(network(picture(images / f"{n}.png", (32, 32), n)).sigmoid()) for n in range(3)]
    infer(tmp_path / "out", images, tmp_path / "answers")
    with (tmp_path / "answers" / "predictions.csv").open() as file:
        assert [float(row[1]) for row in csv.reader(file)] == pytest.approx(expected, abs=1e-6)
    assert json.loads((tmp_path / "out" / "configs" / "metadata.json").read_text())["activation"] == "sigmoid"
    assert "answered by itself (sigmoid)" in (tmp_path / "out" / "docs" / "README.md").read_text()
    card = BundleCard("classification", (32, 32), activation="softmax")
    with pytest.raises(SettingError, match="activation: expected sigmoid or none for a network of one output"):
        export_bundle(tmp_path / "b", FLAT, tmp_path / "w.pt", card, "generic", onnx=False, torchscript=False)


def test_regions_overlap_and_a_case_has_several_files(tmp_path: Path) -> None:
    steps = [
        {"_target_": "LoadImaged", "keys": BOTH},
        {"_target_": "ConvertToMultiChannelBasedOnBratsClassesd", "keys": "label"},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "Spacingd", "keys": BOTH, "pixdim": [2.0, 2.0, 2.0], "mode": ["bilinear", "nearest"]},
        {"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True, "channel_wise": True},
    ]
    train = {"deterministic_transforms": steps, "preprocessing": [*steps, {"_target_": "RandFlipd", "keys": BOTH}]}
    command, network = bundle(tmp_path, UNET, loss={"_target_": "DiceLoss", "sigmoid": True}, train=train)
    command += ["--task", "segmentation", "--spatial-shape", "32", "32", "32", "--classes", "TC", "WT", "ET"]
    assert main(command) == 0
    rng, parts = np.random.default_rng(0), []
    (tmp_path / "images" / "case").mkdir(parents=True)
    for number in range(4):
        parts.append(rng.random((32, 32, 32), np.float32) + 1)
        nibabel.save(
            nibabel.Nifti1Image(parts[-1], np.diag([2.0, 2, 2, 1])), tmp_path / "images" / "case" / f"{number}.nii"
        )
    infer(tmp_path / "out", tmp_path / "images", tmp_path / "answers")
    image = torch.from_numpy(np.stack(parts))
    image = (image - image.mean((1, 2, 3), keepdim=True)) / image.std((1, 2, 3), keepdim=True, unbiased=False)
    with torch.no_grad():
        expected = (network(image[None]).sigmoid()[0] >= 0.5).numpy()
    found = nibabel.load(next((tmp_path / "answers").rglob("*.nii.gz")))
    answer = np.moveaxis(np.asarray(found.dataobj).squeeze(), -1, 0)
    assert answer.shape == expected.shape
    assert (answer != expected).mean() < 1e-4
    # There is what no single label could say.
    assert (expected.sum(0) == 0).any()
    assert (expected.sum(0) > 1).any()
    told = (tmp_path / "out" / "docs" / "README.md").read_text()
    assert "1 where the probability is 0.5 or more, of TC, WT, ET, a channel for each" in told
    assert "a folder with a file for each" in told


def test_the_grid_of_the_image_comes_back(tmp_path: Path) -> None:
    steps = [
        {"_target_": "LoadImaged", "keys": "image"}, {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "Spacingd", "keys": "image", "pixdim": [1.0, 1.0, 1.0]},
        {"_target_": "EnsureTyped", "keys": "image", "track_meta": False},
    ]  # fmt: skip
    command, _ = bundle(tmp_path, {**UNET, "in_channels": 1}, preprocessing=steps)
    command += ["--task", "segmentation", "--spatial-shape", "32", "32", "32", "--activation", "softmax"]
    assert main(command) == 0
    (tmp_path / "images").mkdir()
    affine = np.diag([2.0, 1.5, 3.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(np.ones((10, 12, 9), np.float32), affine), tmp_path / "images" / "a.nii.gz")
    infer(tmp_path / "out", tmp_path / "images", tmp_path / "answers")
    found = nibabel.load(next((tmp_path / "answers").rglob("*.nii.gz")))
    assert found.shape[:3] == (10, 12, 9)
    np.testing.assert_allclose(found.affine, affine)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_a_flat_segmentation_takes_png_and_jpeg(tmp_path: Path, activation: str) -> None:
    command, network = bundle(tmp_path, PNG)
    command += ["--task", "segmentation", "--spatial-shape", "32", "32", "--activation", activation]
    assert main([*command, "--preprocessing", "generic", "--classes", "none", "cyst", "a/b"]) == 0
    (tmp_path / "images").mkdir()
    images = {name: picture(tmp_path / "images" / name, (32, 32)) for name in ("a.png", "b.jpg", "c.jpeg")}
    infer(tmp_path / "out", tmp_path / "images", tmp_path / "answers")
    for name, image in images.items():
        with torch.no_grad():
            scores = network(image)[0]
        stem = Path(name).stem
        expected = {"seg": scores.argmax(0)} if activation == "softmax" else {
            f"seg_{word}": (scores[n].sigmoid() >= 0.5) for n, word in enumerate(("none", "cyst", "a_b"))
        }  # fmt: skip
        for postfix, labels in expected.items():
            found = np.asarray(Image.open(tmp_path / "answers" / stem / f"{stem}_{postfix}.png"))
            assert np.array_equal(found.T, labels.numpy().astype(np.uint8)), (name, postfix)


class Spatial(nn.Conv2d):
    """A classifier that ends in 1 x classes x 1 x 1."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return super().forward(image).mean((2, 3), keepdim=True)


def test_a_classifier_may_end_in_one_pixel(tmp_path: Path) -> None:
    network_def = {"_target_": f"{__name__}.Spatial", "in_channels": 1, "out_channels": 3, "kernel_size": 3}
    command, network = bundle(tmp_path, network_def, loss={"_target_": "torch.nn.CrossEntropyLoss"})
    command += ["--task", "classification", "--spatial-shape", "32", "32", "--preprocessing", "generic"]
    assert main(command) == 0
    (tmp_path / "images").mkdir()
    with torch.no_grad():
        expected = network(picture(tmp_path / "images" / "a.png", (32, 32))).softmax(1).flatten().tolist()
    infer(tmp_path / "out", tmp_path / "images", tmp_path / "answers")
    (row,) = (tmp_path / "answers" / "predictions.csv").read_text().splitlines()
    assert list(map(float, row.split(",")[1:])) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", ["scripts of a bundle", "one file"])
def test_own_code_goes_along_and_runs_from_anywhere(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    user = tmp_path / "user"
    command = ["export", "--weights", str(user / "w.pt"), "--output", str(tmp_path / "out"), "--no-onnx",
               "--task", "classification", "--spatial-shape", "16", "16", "--classes", "a", "b", "c",
               "--activation", "softmax", "--preprocessing", "generic"]  # fmt: skip
    (user / "scripts").mkdir(parents=True)
    if kind == "one file":
        own = user / "my_model.py"
        own.write_text(PARTS + OWN.replace("from .parts import Head\n", ""))
        command += ["--network", f"{own}::Net(classes=3)"]
    else:
        (user / "scripts" / "net.py").write_text(OWN)
        (user / "scripts" / "parts.py").write_text(PARTS)
        (user / "configs").mkdir()
        network_def = {"_target_": "scripts.net.Net", "classes": 3}
        (user / "configs" / "train.json").write_text(json.dumps({"network_def": network_def}))
        command += ["--network", str(user / "configs" / "train.json")]
    torch.manual_seed(0)
    weights = {"body.weight": torch.randn(4, 1, 3, 3), "body.bias": torch.zeros(4), "head.weight": torch.randn(3, 4),
               "head.bias": torch.zeros(3)}  # fmt: skip
    torch.save(weights, user / "w.pt")
    before, path = set(sys.modules), list(sys.path)
    assert main(command) == 0
    assert not any(name.split(".")[0] == "scripts" for name in set(sys.modules) - before)
    assert sys.path == path
    shutil.rmtree(user)
    (tmp_path / "images").mkdir()
    image = picture(tmp_path / "images" / "a.png", (16, 16))
    expected = nn.functional.conv2d(image, weights["body.weight"]).mean((2, 3)) @ weights["head.weight"].T
    run = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", "--bundle_root", str(tmp_path / "out"),
           "--config_file", str(tmp_path / "out" / "configs" / "inference.json"), "--dataset_dir",
           str(tmp_path / "images"), "--output_dir", str(tmp_path / "answers")]  # fmt: skip
    done = subprocess.run(run, cwd=tmp_path / "images", capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (row,) = (tmp_path / "answers" / "predictions.csv").read_text().splitlines()
    assert list(map(float, row.split(",")[1:])) == pytest.approx(expected.softmax(1)[0].tolist(), abs=1e-5)
    assert not [file for file in (tmp_path / "out").rglob("*") if file.is_file() and b"/user/" in file.read_bytes()]


def test_differences_are_measured_by_the_largest_answer() -> None:
    example, large = torch.ones(1, 2), nn.Linear(2, 3)
    nn.init.constant_(large.weight, 100.0)
    nn.init.zeros_(large.bias)
    answer = large(example).detach()
    _compare("ONNX", large, example, answer + 0.01)
    with pytest.raises(SettingError, match=r"where the largest answer is 2\.00e\+02"):
        _compare("ONNX", large, example, answer + 0.03)
    nn.init.constant_(large.weight, 1e-5)
    nn.init.zeros_(large.bias)
    with pytest.raises(SettingError, match=r"ONNX: expected answers within 0\.0001 of the largest"):
        _compare("ONNX", large, example, large(example) + 1e-5)


def test_a_definition_tells_all_and_is_not_contradicted(bundle_root: Path, tmp_path: Path) -> None:
    for name in ("model.pt", "model.json"):
        shutil.copy(bundle_root / "models" / name, tmp_path)
    command = ["export", "--weights", str(tmp_path / "model.pt"), "--output", str(tmp_path / "out"), "--no-onnx"]
    assert main([*command, "--no-torchscript"]) == 0
    (tmp_path / "images").mkdir()
    for number, size in enumerate([(64, 64), (80, 50)]):
        picture(tmp_path / "images" / f"{number}.png", size, number)
    infer(tmp_path / "out", tmp_path / "images", tmp_path / "exported")
    infer(bundle_root, tmp_path / "images", tmp_path / "before")
    rows = [
        list(csv.reader((tmp_path / name / "predictions.csv").read_text().splitlines()))
        for name in ("before", "exported")
    ]
    for one, other in zip(rows[0][1:], rows[1], strict=True):
        assert list(map(float, one[2:])) == pytest.approx(list(map(float, other[1:])), abs=1e-5)
    definition = json.loads((tmp_path / "out" / "models" / "model.json").read_text())
    assert definition == json.loads((tmp_path / "model.json").read_text())
    needed = json.loads((tmp_path / "out" / "configs" / "metadata.json").read_text())["required_packages_version"]
    assert "monai_medmerge" in needed
    for stated, words in (
        (Stated(activation="sigmoid"), "--activation: expected softmax, as model.json beside model.pt says, found sig"),
        (Stated(classes=["a", "b", "c"]), "--classes: expected"),
        (Stated(network="DenseNet121(spatial_dims=2, in_channels=1, out_channels=3)"), "--network"),
        (Stated(preprocessing="generic"), "--preprocessing: expected the preprocessing of model.json"),
    ):
        with pytest.raises(SettingError, match=words):
            choose(tmp_path / "model.pt", stated)


def test_what_is_stated_nowhere_is_asked_for(tmp_path: Path) -> None:
    bundle(tmp_path, FLAT)
    file = str(tmp_path / "configs" / "train.json")
    with pytest.raises(SettingError, match=r"w\.pt: expected --network, or a model\.json"):
        choose(tmp_path / "w.pt", Stated())
    with pytest.raises(SettingError, match=r"--activation .*; --preprocessing .*; --task; --spatial-shape: or a model"):
        choose(tmp_path / "w.pt", Stated(network=file))
    with pytest.raises(SettingError, match=r"train\.json: expected an entry absent with steps"):
        choose(tmp_path / "w.pt", Stated(network=file, preprocessing=f"{file}::absent"))
    with pytest.raises(SettingError, match="activation: expected softmax, sigmoid, none, as the network was trained"):
        BundleCard("classification", (32, 32))


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ({"loss": {"_target_": "DiceCELoss", "to_onehot_y": True, "softmax": True}}, "softmax"),
        ({"train": {"loss_function": "@loss"}, "loss": {"_target_": "torch.nn.CrossEntropyLoss"}}, "softmax"),
        ({"loss": {"_target_": "DeepSupervisionLoss", "loss": {"_target_": "DiceLoss", "sigmoid": True}}}, "sigmoid"),
        ({"loss": {"_target_": "FocalLoss"}}, "sigmoid"),
        ({"loss": {"_target_": "DiceLoss"}}, None),
        (
            {
                "loss": {"_target_": "torch.nn.CrossEntropyLoss"},
                "validate": {"postprocessing": {"_target_": "Compose", "transforms": [
                    {"_target_": "Activationsd", "keys": "pred", "sigmoid": "@several"}]}}, "several": True,
            },
            "sigmoid",
        ),
    ],
)  # fmt: skip
def test_postprocessing_or_loss_tell_the_activation(entries: dict[str, Any], expected: str | None) -> None:
    assert configured_activation(ConfigParser(entries)) == expected
