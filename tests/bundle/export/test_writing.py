"""Exported bundles hold what the model zoo's checks ask for, and every format answers as the network does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import onnxruntime
import pytest
import torch
from monai.bundle import ConfigWorkflow, ckpt_export, verify_metadata, verify_net_in_out
from PIL import Image

from monai_medmerge import IncompatibleSourcesError, SettingError, Source, fold, merge
from monai_medmerge.__main__ import main
from monai_medmerge.bundle.export.texts import BundleCard
from monai_medmerge.bundle.export.writing import export_bundle, network_config
from monai_medmerge.errors import MedMergeError
from monai_medmerge.files import save_weights

CLASSIFIER = {
    "_target_": "monai.networks.nets.DenseNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 3,
    "init_features": 8, "growth_rate": 4, "block_config": [2, 2],
}  # fmt: skip
SEGMENTER = {
    "_target_": "monai.networks.nets.UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 2,
    "channels": [4, 8], "strides": [2], "num_res_units": 1, "norm": "batch",
}  # fmt: skip
CARDS = {
    "lesion_classification": (
        CLASSIFIER,
        BundleCard("classification", (32, 32), ("cyst", "benign", "malignant"), "softmax"),
    ),
    "organ_segmentation": (SEGMENTER, BundleCard("segmentation", (16, 16, 16), ("background", "organ"), "softmax")),
}
# In our words, what the zoo's schema of July 2024 requires of a metadata file.
TENSOR = {
    "type": "object",
    "required": ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range"],
    "properties": {
        "type": {"type": "string"}, "format": {"type": "string"}, "num_channels": {"type": "integer"},
        "spatial_shape": {"type": "array"}, "dtype": {"type": "string"},
        "value_range": {"type": "array", "items": {"type": "number"}},
        "is_patch_data": {"type": "boolean"}, "channel_def": {"type": "object"},
    },
}  # fmt: skip
METADATA = {
    "type": "object",
    "required": [
        "schema", "version", "changelog", "monai_version", "pytorch_version", "numpy_version",
        "required_packages_version", "task", "description", "authors", "copyright", "network_data_format",
    ],
    "properties": {
        "schema": {"type": "string", "pattern": "meta_schema_20240725.json$"},
        "changelog": {"type": "object"},
        "version": {"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
        "monai_version": {"type": "string", "pattern": r"^\d+\.\d+"},
        "pytorch_version": {"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
        "required_packages_version": {"type": "object"},
        "network_data_format": {
            "type": "object",
            "required": ["inputs", "outputs"],
            "properties": {
                "inputs": {"type": "object", "required": ["image"], "properties": {"image": TENSOR}},
                "outputs": {"type": "object", "required": ["pred"], "properties": {"pred": TENSOR}},
            },
        },
    },
}  # fmt: skip


def merged_network(network_def: dict[str, Any]) -> torch.nn.Module:
    from monai.bundle import ConfigParser

    def network(seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        made: torch.nn.Module = ConfigParser({"n": network_def}).get_parsed_content("n")
        return made

    return fold(merge(network(0), [Source.from_network(network(seed), f"s{seed}") for seed in (1, 2)])).eval()


@pytest.fixture(scope="module", params=list(CARDS))
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.nn.Module]:
    """A folder as the zoo's `models`, with one bundle in it, and the network that it came from."""
    folder = tmp_path_factory.mktemp("models")
    network_def, card = CARDS[request.param]
    network = merged_network(network_def)
    save_weights(folder / "run" / "model.pt", network)
    record = {"sources": [{"name": "chest", "sha256": "0" * 64}]}
    (folder / "run" / "merge.json").write_text(json.dumps(record))
    return export_bundle(folder / request.param, network_def, folder / "run" / "model.pt", card, "generic"), network


def test_the_zoos_minimal_checks(exported: tuple[Path, torch.nn.Module], tmp_path: Path) -> None:
    root, _ = exported
    for file in ("LICENSE", "configs/metadata.json", "configs/inference.json", "models/model.pt", "docs/README.md"):
        assert (root / file).is_file(), file
    (tmp_path / "schema.json").write_text(json.dumps(METADATA))
    verify_metadata(meta_file=str(root / "configs" / "metadata.json"), filepath=str(tmp_path / "schema.json"))
    metadata = json.loads((root / "configs" / "metadata.json").read_text())
    assert metadata["version"] in metadata["changelog"]
    classes = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    assert list(classes) == [str(number) for number in range(len(classes))]
    assert "chest" in (root / "docs" / "README.md").read_text()
    assert all(path.stat().st_size < 25_000_000 for path in root.rglob("*"))


def test_the_zoos_full_checks(exported: tuple[Path, torch.nn.Module], tmp_path: Path) -> None:
    root, _ = exported
    files = {
        "config_file": str(root / "configs" / "inference.json"), "meta_file": str(root / "configs" / "metadata.json"),
    }  # fmt: skip
    (tmp_path / "input").mkdir()
    options = {"dataset_dir": str(tmp_path / "input"), "output_dir": str(tmp_path)}
    workflow = ConfigWorkflow(workflow_type="inference", bundle_root=str(root), **files, **options)
    workflow.initialize()
    assert workflow.check_properties() == []
    verify_net_in_out(net_id="network_def", bundle_root=str(root), **files)
    again = tmp_path / "again.ts"
    extra = {"metadata.json": "", "inference.json": ""}
    weights = str(root / "models" / "model.pt")
    ckpt_export(net_id="network_def", filepath=str(again), ckpt_file=weights, bundle_root=str(root), **files)
    assert again.is_file()
    torch.jit.load(str(root / "models" / "model.ts"), _extra_files=extra)
    # What MONAI Deploy reads of a TorchScript file.
    assert all(json.loads(content) for content in extra.values())


def test_every_format_answers_as_the_network_for_one_image_and_for_three(
    exported: tuple[Path, torch.nn.Module],
) -> None:
    root, network = exported
    script = torch.jit.load(str(root / "models" / "model.ts"))
    session = onnxruntime.InferenceSession(str(root / "models" / "model.onnx"))
    shape = json.loads((root / "configs" / "metadata.json").read_text())["network_data_format"]["inputs"]["image"]
    for batch in (1, 3):
        images = torch.rand(batch, 1, *shape["spatial_shape"], generator=torch.Generator().manual_seed(batch))
        with torch.no_grad():
            expected = network(images)
            torch.testing.assert_close(script(images), expected, rtol=0, atol=1e-4)
        (answer,) = session.run(["pred"], {"image": images.numpy()})
        np.testing.assert_allclose(answer, expected.numpy(), rtol=0, atol=1e-4)


def run_inference(root: Path, images: Path, **overrides: Any) -> ConfigWorkflow:
    """As a user runs it, with stock MONAI; the outputs are in `out` beside the images."""
    workflow = ConfigWorkflow(
        str(root / "configs" / "inference.json"), str(root / "configs" / "metadata.json"), workflow_type="inference",
        bundle_root=str(root), dataset_dir=str(images), output_dir=str(images.parent / "out"), **overrides,
    )  # fmt: skip
    workflow.initialize()
    workflow.run()
    return workflow


@pytest.mark.parametrize("exported", ["lesion_classification"], indirect=True)
@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_table_has_the_probabilities_of_every_image(
    exported: tuple[Path, torch.nn.Module], tmp_path: Path, batch_size: int
) -> None:
    root, network = exported
    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(0)
    expected = {}
    for name in ("a", "b", "c"):
        pixels = rng.integers(0, 255, (32, 32), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{name}.png")
        # Pillow's rows are MONAI's second axis.
        image = torch.from_numpy(pixels.T.astype(np.float32))[None, None]
        with torch.no_grad():
            answer = network((image - image.min()) / (image.max() - image.min()))
        expected[f"{name}.png"] = answer.softmax(1)[0].tolist()
    run_inference(root, tmp_path / "images", **{"dataloader#batch_size": batch_size})
    (table,) = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    rows = [line.split(",") for line in table.read_text().splitlines()]
    assert [Path(row[0]).name for row in rows] == list(expected)
    for file, *probabilities in rows:
        assert list(map(float, probabilities)) == pytest.approx(expected[Path(file).name], abs=1e-5)
    assert "the probability of cyst, benign, malignant" in (root / "docs" / "README.md").read_text()


@pytest.mark.parametrize("exported", ["organ_segmentation"], indirect=True)
def test_a_label_map_lies_in_the_space_of_its_image(exported: tuple[Path, torch.nn.Module], tmp_path: Path) -> None:
    root, network = exported
    (tmp_path / "images").mkdir()
    affine = np.diag([2.0, 1.0, 3.0, 1.0])
    pixels = np.random.default_rng(0).random((16, 16, 16), np.float32)
    nibabel.save(nibabel.Nifti1Image(pixels, affine), tmp_path / "images" / "a.nii.gz")
    workflow = run_inference(root, tmp_path / "images")
    (written,) = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    found = nibabel.load(written)
    image = torch.from_numpy(pixels)[None, None]
    with torch.no_grad():
        answer = network((image - image.min()) / (image.max() - image.min()))
    assert np.array_equal(np.asarray(found.dataobj).squeeze(), answer.argmax(1)[0].numpy())
    np.testing.assert_allclose(found.affine, affine)
    restored = workflow.network_def.state_dict()
    assert all(torch.equal(restored[name], value) for name, value in network.state_dict().items())


def test_the_command_exports_from_a_configuration(tmp_path: Path) -> None:
    config = tmp_path / "train.json"
    config.write_text(json.dumps({"classes": 3, "network_def": {**CLASSIFIER, "out_channels": "@classes"}}))
    save_weights(tmp_path / "model.pt", merged_network(CLASSIFIER))
    command = ["export", "--network", str(config), "--weights", str(tmp_path / "model.pt"), "--task", "classification"]
    command += ["--spatial-shape", "32", "32", "--no-onnx", "--no-torchscript", "--modality", "US"]
    command += ["--activation", "softmax", "--preprocessing", "generic"]
    assert main([*command, "--output", str(tmp_path / "bundle")]) == 0
    metadata = json.loads((tmp_path / "bundle" / "configs" / "metadata.json").read_text())
    assert metadata["network_data_format"]["inputs"]["image"]["modality"] == "US"
    inference = json.loads((tmp_path / "bundle" / "configs" / "inference.json").read_text())
    assert inference["network_def"] == CLASSIFIER
    assert not (tmp_path / "bundle" / "models" / "model.onnx").exists()
    assert main([*command, "--output", str(tmp_path / "bundle")]) == 2


def test_a_file_too_large_for_the_zoo_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("monai_medmerge.bundle.export.writing.LARGE_FILE", 1000)
    save_weights(tmp_path / "model.pt", merged_network(CLASSIFIER))
    card = BundleCard("classification", (32, 32), activation="softmax")
    export_bundle(tmp_path / "a", CLASSIFIER, tmp_path / "model.pt", card, "generic", torchscript=False, onnx=False)
    assert "model.pt" in caplog.text
    assert "large_files.yml" in caplog.text


def test_wrong_input_is_named(tmp_path: Path) -> None:
    save_weights(tmp_path / "model.pt", merged_network(CLASSIFIER))
    card = BundleCard("classification", (32, 32), activation="softmax")
    with pytest.raises(IncompatibleSourcesError, match=r"class_layers\.out\.weight"):
        export_bundle(tmp_path / "a", {**CLASSIFIER, "out_channels": 4}, tmp_path / "model.pt", card, "generic")
    card = BundleCard("classification", (32, 32), ("a",), "softmax")
    with pytest.raises(SettingError, match="classes: expected 3"):
        export_bundle(tmp_path / "b", CLASSIFIER, tmp_path / "model.pt", card, "generic")
    card = BundleCard("segmentation", (32, 32), activation="softmax")
    with pytest.raises(SettingError, match="1 x classes x 32 x 32 as the answer for a segmentation, found"):
        export_bundle(tmp_path / "d", CLASSIFIER, tmp_path / "model.pt", card, "generic")
    with pytest.raises(SettingError, match="task"):
        BundleCard("detection", (32, 32))
    with pytest.raises(SettingError, match="spatial_shape"):
        BundleCard("segmentation", (32,), activation="softmax")
    with pytest.raises(SettingError, match="classes: expected a name of its own"):
        BundleCard("segmentation", (32, 32), ("a", "b", "a"), "softmax")
    with pytest.raises(SettingError, match="version: expected three numbers"):
        BundleCard("segmentation", (32, 32), activation="none", version="one")
    (tmp_path / "c.json").write_text(json.dumps({"network_def": {"_target_": "torch.nn.Linear", "bias": "$int"}}))
    with pytest.raises(SettingError, match="plain"):
        network_config(str(tmp_path / "c.json"))
    with pytest.raises(SettingError, match=r"'net'.*FILE::ID.*only network_def"):
        network_config(f"{tmp_path / 'c.json'}::net")
    assert not (tmp_path / "a").exists()


class Unscriptable(torch.nn.Conv2d):
    """Runs, and traces, but its code is none that torch.jit compiles: an argument of any number."""

    def forward(self, *images: torch.Tensor) -> torch.Tensor:
        return super().forward(images[0])


class Refusing(torch.nn.Conv2d):
    """A forward with a statement that torch.jit has no node for."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        try:
            return super().forward(image)
        except RuntimeError:
            return image


@pytest.mark.parametrize("name", ["Unscriptable", "Refusing"])
def test_a_network_that_cannot_be_scripted_leaves_nothing_and_is_traced_if_asked(tmp_path: Path, name: str) -> None:
    network_def = {"_target_": f"{__name__}.{name}", "in_channels": 1, "out_channels": 2, "kernel_size": 1}
    save_weights(tmp_path / "model.pt", torch.nn.Conv2d(1, 2, 1))
    card = BundleCard("segmentation", (8, 8), activation="softmax")
    with pytest.raises(SettingError, match=r"TorchScript: .*--trace"):
        export_bundle(tmp_path / "a", network_def, tmp_path / "model.pt", card, "generic", onnx=False)
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]
    root = export_bundle(tmp_path / "a", network_def, tmp_path / "model.pt", card, "generic", onnx=False, trace=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "model.pt"]
    # It was made in another folder, of which nothing tells.
    for file in root.rglob("*"):
        assert file.is_dir() or (b"a.part" not in file.read_bytes() and str(tmp_path).encode() not in file.read_bytes())


def test_what_cannot_be_read_is_told_before_any_work(tmp_path: Path) -> None:
    # Nothing is built: the weights are not even there.
    weights, card = tmp_path / "run" / "model.pt", BundleCard("classification", (32, 32), activation="softmax")
    weights.parent.mkdir()
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\xff")
    for licence in ("absent.txt", "run", "picture.png"):
        with pytest.raises(SettingError, match=f"{licence}: expected a text file"):
            export_bundle(tmp_path / "a", CLASSIFIER, weights, card, "generic", licence=tmp_path / licence)
    records = {
        "{": "JSON text", "[1]": None, '{"sources": "$@chosen"}': None, '{"sources": [{"name": "chest"}]}': "`sha256`",
        '{"sources": ["chest"]}': "`sha256`",
    }  # fmt: skip
    for record, words in records.items():
        (weights.parent / "merge.json").write_text(record)
        with pytest.raises(MedMergeError, match="model.pt" if words is None else rf"merge\.json.*{words}"):
            export_bundle(tmp_path / "a", CLASSIFIER, weights, card, "generic")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("content", "name", "words"),
    [
        ("{", "c.json", "JSON or YAML"),
        ("a: [", "c.yaml", "JSON or YAML"),
        ("\xff\xfe", "c.json", "JSON or YAML"),
        ("[1, 2]", "c.json", "a list"),
        ("network_def: 1", "c.txt", "the suffix '.txt'"),
        ('{"network_def": {"_target_": "DenseNet", "spatial_dims": "@absent"}}', "c.json", "absent"),
        ('{"network_def": {"_target_": "DenseNet", "spatial_dims": "$1 / 0"}}', "c.json", "division by zero"),
        ('{"network_def": "$@net.bit_length()", "net": 3}', "c.json", "FILE::ID"),
        ('{"network_def": 3}', "c.json", "FILE::ID"),
    ],
)
def test_configurations_that_tell_no_network_are_named(tmp_path: Path, content: str, name: str, words: str) -> None:
    (tmp_path / name).write_text(content, encoding="latin-1")
    with pytest.raises(SettingError, match=words) as caught:
        network_config(str(tmp_path / name))
    assert str(caught.value).startswith(name)
    assert str(tmp_path) not in str(caught.value)
    with pytest.raises(SettingError, match="a folder"):
        network_config(str(tmp_path))


def test_networks_that_cannot_be_made_or_do_not_take_the_input_are_named(tmp_path: Path) -> None:
    save_weights(tmp_path / "model.pt", merged_network(SEGMENTER))
    save_weights(tmp_path / "dense.pt", merged_network(CLASSIFIER))
    cards = (
        BundleCard("segmentation", (16, 16), activation="softmax"),
        BundleCard("classification", (32, 32), activation="softmax"),
    )
    with pytest.raises(SettingError, match="takes an input of 1 x 1 x 16 x 16,"):
        export_bundle(tmp_path / "a", SEGMENTER, tmp_path / "model.pt", cards[0], "generic", in_channels=1)
    with pytest.raises(SettingError, match="takes an input of 1 x 2 x 32 x 32"):
        export_bundle(tmp_path / "a", CLASSIFIER, tmp_path / "dense.pt", cards[1], "generic", in_channels=2)
    with pytest.raises(SettingError, match="in_channels: expected one or more"):
        export_bundle(tmp_path / "a", CLASSIFIER, tmp_path / "dense.pt", cards[1], "generic", in_channels=-1)
    for wrong in ({**CLASSIFIER, "growth": 3}, {"_target_": "monai.networks.nets.DenseNets"}, {"_target_": "no.Such"}):
        with pytest.raises(SettingError, match="network_def: expected a class"):
            export_bundle(tmp_path / "a", wrong, tmp_path / "dense.pt", cards[1], "generic")
    assert not (tmp_path / "a").exists()


@pytest.mark.slow
def test_the_example_runs(tmp_path: Path) -> None:
    script = Path(__file__).parents[3] / "examples" / "overlay_on_bundle.py"
    command = [sys.executable, "-W", "ignore", str(script), "--folder", str(tmp_path / "work")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "work" / "exported" / "models" / "model.onnx").is_file()
