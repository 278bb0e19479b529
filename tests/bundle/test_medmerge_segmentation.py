"""The segmentation bundle, run as a user runs it: merged, trained, evaluated, from NIfTI and DICOM to DICOM SEG."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from monai.bundle import ConfigWorkflow
from monai.transforms import LoadImaged
from phantom_volumes import write_volumes

from monai_medmerge import DatasetError, SettingError, Source
from monai_medmerge.bundle import list_volumes, load_volumes
from monai_medmerge.transforms import LoadDicomSegd

BUNDLE = Path(__file__).parents[2] / "bundles" / "medmerge_segmentation"
EPOCHS = {"probe_epochs": 1, "coefficient_epochs": 1, "finetune_epochs": 4}


def run(config: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", "--bundle_root", str(BUNDLE)]
    command += ["--config_file", str(BUNDLE / "configs" / f"{config}.json")]
    command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_volumes(tmp_path_factory.mktemp("data") / "volumes", training=4, validation=1, test=2, seed=3)


@pytest.fixture(scope="module")
def merged(volumes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("merged")
    done = run("merge", dataset_dir=volumes, output_dir=output, **EPOCHS)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return output


def test_the_whole_way_leaves_what_it_promises(merged: Path) -> None:
    metrics = json.loads((merged / "metrics.json").read_text())
    assert set(metrics["stages"]) == {"merged", "fine_tuned"}
    for stage in metrics["stages"].values():
        low, high = stage["interval"]
        assert 0 <= low <= stage["dice"] <= high <= 1
        assert set(stage["labels"]) == {"front", "tail"}
    # Coefficients and residuals learn first, then all weights once more.
    first, both = (metrics["stages"][name]["parameters_trained"] for name in ("merged", "fine_tuned"))
    assert first < 0.51 * both
    names = ("whole_hippocampus", "reconstruction")
    files = {name: BUNDLE / "models" / f"{name}.safetensors" for name in names}
    assert metrics["sources"] == {name: Source.from_file(path).sha256 for name, path in files.items()}
    assert all(path.stat().st_size <= 4_000_000 for path in files.values())


@pytest.mark.slow
def test_one_seed_gives_the_same_bits(merged: Path, volumes: Path, tmp_path: Path) -> None:
    assert run("merge", dataset_dir=volumes, output_dir=tmp_path, **EPOCHS).returncode == 0
    assert (tmp_path / "metrics.json").read_text() == (merged / "metrics.json").read_text()


def test_train_and_evaluate_go_on_from_the_merged_weights(merged: Path, volumes: Path, tmp_path: Path) -> None:
    done = run(
        "train", dataset_dir=volumes, output_dir=tmp_path, ckpt_dir=tmp_path, initialization=merged / "model.pt",
        epochs=2, val_interval=1,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    done = run("evaluate", dataset_dir=volumes, output_dir=tmp_path, ckpt=tmp_path / "model_finetuned.pt")
    assert done.returncode == 0, done.stderr[-2000:]
    stage = json.loads((tmp_path / "evaluation.json").read_text())["test"]
    assert stage["cases"] == 2
    assert 0 < stage["dice"] <= 1


def test_a_report_is_written_and_a_candidate_is_verified(merged: Path, volumes: Path, tmp_path: Path) -> None:
    report = json.loads((merged / "report.json").read_text())
    assert [row["name"] for row in report["classes"]["rows"]] == ["front", "tail"]
    assert {"Dice", "surface distance 95 %", "lesions invented"} <= set(report["classes"]["measures"])
    assert (merged / "report.html").read_text().count('class="viewer"') == 2
    weights = {"reference": merged / "model.pt", "candidate": merged / "model.pt"}
    done = run("verify", site_data=volumes, output_dir=tmp_path, **weights)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "verification" / "report.json").read_text())
    assert (found["gate"]["outcome"], found["gate"]["equal"]) == ("passed", True)
    state = torch.load(merged / "model.pt", weights_only=True)
    state["conv_final.2.conv.bias"][2] -= 50
    torch.save(state, tmp_path / "worse.pt")
    shutil.copy(merged / "model.json", tmp_path)
    weights["candidate"] = tmp_path / "worse.pt"
    done = run("verify", site_data=volumes, output_dir=tmp_path, **weights)
    assert done.returncode == 3, done.stderr[-2000:]
    found = json.loads((tmp_path / "verification" / "report.json").read_text())
    tail = next(row for row in found["classes"]["rows"] if row["name"] == "tail")
    assert tail["values"]["Dice"]["value"] == 0


def test_nifti_and_dicom_in_nifti_and_dicom_seg_out(merged: Path, volumes: Path, tmp_path: Path) -> None:
    images, output = tmp_path / "images", tmp_path / "segmentations"
    shutil.copytree(volumes / "series", images / "ward")
    shutil.copyfile(volumes / "test" / "000.nii.gz", images / "volume.nii.gz")
    (images / "broken.nii.gz").write_bytes((volumes / "test" / "001.nii.gz").read_bytes()[:2000])
    done = run("inference", dataset_dir=images, output_dir=output, ckpt=merged / "model.pt")
    # The damaged file is named, and costs nothing but itself.
    assert done.returncode != 0
    assert "broken.nii.gz" in done.stderr
    found = sorted(str(path.relative_to(output)) for path in output.rglob("*") if path.is_file())
    assert found == [
        "volume_seg.nii.gz", "ward/000_seg.dcm", "ward/000_seg.nii.gz", "ward/001_seg.dcm", "ward/001_seg.nii.gz",
    ]  # fmt: skip
    load = LoadImaged("image", reader="monai_medmerge.transforms.DicomSeriesReader")
    for name in ("000", "001"):
        data = load({"image": str(images / "ward" / name), "label": str(output / "ward" / f"{name}_seg.dcm")})
        data = LoadDicomSegd("label")(data)
        nifti = nibabel.load(output / "ward" / f"{name}_seg.nii.gz")
        labels = np.asarray(nifti.dataobj)
        assert labels.any()
        assert np.array_equal(data["label"].numpy().reshape(labels.shape), labels)
        assert np.allclose(nifti.affine, data["image"].affine, atol=1e-4)
        if shutil.which("dciodvfy"):
            seg = str(output / "ward" / f"{name}_seg.dcm")
            checked = subprocess.run(["dciodvfy", seg], capture_output=True, text=True, timeout=60, check=False)
            assert "\nError" not in "\n" + checked.stdout + checked.stderr
    # The volume and the first series hold the same image, in another place.
    same = np.asarray(nibabel.load(output / "volume_seg.nii.gz").dataobj)
    series = np.asarray(nibabel.load(output / "ward" / "000_seg.nii.gz").dataobj)
    overlap = 2 * ((same > 0) & (series > 0)).sum() / ((same > 0).sum() + (series > 0).sum())
    assert overlap > 0.6


def test_the_series_of_the_phantoms_are_valid_and_oblique(volumes: Path) -> None:
    slices = sorted((volumes / "series" / "000").iterdir())
    assert len(slices) == 34
    orientation = pydicom.dcmread(slices[0]).ImageOrientationPatient
    assert abs(orientation[1]) > 0.1


@pytest.mark.parametrize(("config", "workflow"), [("train", "train"), ("inference", "infer")])
def test_configurations_have_what_monai_expects(config: str, workflow: str, volumes: Path, tmp_path: Path) -> None:
    configs = BUNDLE / "configs"
    found = ConfigWorkflow(
        config_file=str(configs / f"{config}.json"),
        meta_file=str(configs / "metadata.json"),
        logging_file=str(configs / "logging.conf"),
        workflow_type=workflow,
        bundle_root=str(BUNDLE),
        ckpt_dir=str(tmp_path),
        dataset_dir=str(volumes / "series" if workflow == "infer" else volumes),
    )
    found.initialize()
    assert found.check_properties() == []
    found.finalize()


def test_the_shipped_network_fits_its_metadata() -> None:
    command = [
        sys.executable, "-W", "ignore", "-m", "monai.bundle", "verify_net_in_out", "--net_id", "network_def",
        "--config_file", str(BUNDLE / "configs" / "inference.json"),
        "--meta_file", str(BUNDLE / "configs" / "metadata.json"), "--bundle_root", str(BUNDLE),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    state = torch.load(BUNDLE / "models" / "model.pt", weights_only=True)
    assert state["conv_final.2.conv.weight"].shape[0] == 3


def test_wrong_datasets_are_refused_by_name(volumes: Path, tmp_path: Path) -> None:
    assert len(load_volumes(volumes, "training", 2, seed=0)) == 2
    for section, wanted, words in (("absent", None, "absent"), ("training", 9, "from 1 to 4")):
        with pytest.raises(DatasetError, match=words):
            load_volumes(volumes, section, wanted)
    for content, words in (
        ("{", "JSON"),
        ('{"training": []}', "training"),
        ('{"training": [{"image": "a.nii"}]}', r"training\[0\]"),
        ('{"training": [{"image": "a.nii", "label": "b.nii"}]}', r"no a\.nii"),
    ):
        (tmp_path / "dataset.json").write_text(content)
        with pytest.raises(DatasetError, match=words):
            load_volumes(tmp_path, "training")
    (tmp_path / "dataset.json").unlink()
    with pytest.raises(DatasetError, match="NIfTI"):
        list_volumes(tmp_path)
    with pytest.raises(DatasetError, match="none of that name"):
        list_volumes(tmp_path / "nowhere")


def test_generated_volumes_follow_from_their_seed(tmp_path: Path) -> None:
    folders = [write_volumes(tmp_path / str(n), training=1, validation=1, test=1, seed=5) for n in range(2)]
    one, other = (np.asarray(nibabel.load(folder / "training" / "000.nii.gz").dataobj) for folder in folders)
    assert np.array_equal(one, other)


def test_two_sources_never_share_a_file(tmp_path: Path) -> None:
    from monai.data import MetaTensor

    from monai_medmerge.transforms import SaveSegmentationd

    save = SaveSegmentationd("pred", tmp_path, BUNDLE / "configs" / "codes.json")
    labels = MetaTensor(torch.ones(1, 4, 4, 4))
    written = save({"pred": labels, "source": "a/case.nii.gz"})["pred"].meta["saved_to"]
    assert [Path(path).name for path in written] == ["case_seg.nii.gz"]
    with pytest.raises(SettingError, match=r"two for case_seg\.nii\.gz"):
        save({"pred": labels, "source": "b/case.nii.gz"})
    with pytest.raises(SettingError, match=r"a MetaTensor \(1, x, y, z\)"):
        save({"pred": torch.ones(1, 4, 4, 4), "source": "c.nii.gz"})
