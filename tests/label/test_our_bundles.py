"""The bundles of this repository on a real server, against their own `inference.json`."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from label.conftest import OURS
from label.own_inference import read
from label_client import LabelClient

pytest.importorskip("monailabel", reason="MONAI Label has an environment of its own: make test-label")

Files = tuple[dict[str, Path], dict[str, Path]]


def own_inference(bundle: Path, images: Path, output: Path) -> None:
    """`python -m monai.bundle run` as the bundle's README has it."""
    configs = ["--config_file", "configs/inference.json", "--meta_file", "configs/metadata.json", "--bundle_root", "."]
    options = ["--dataset_dir", str(images), "--output_dir", str(output)]
    command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", *configs, *options]
    subprocess.run(command, check=True, cwd=bundle, timeout=120, capture_output=True)


def test_segmentations_are_the_bundles_own(served: LabelClient, volumes: Files, series: Path, tmp_path: Path) -> None:
    name, file = next(iter(volumes[0].items()))
    images = tmp_path / "images"
    images.mkdir()
    shutil.copy(file, images)
    shutil.copytree(series, images / "mr")
    own_inference(OURS / "medmerge_segmentation", images, tmp_path / "output")
    for image, written in ((name, f"{name}_seg.nii.gz"), ("mr", "mr_seg.nii.gz")):
        labels, affine = read(served.infer("medmerge_segmentation", image, model_filename="model.pt"))
        own = nibabel.load(tmp_path / "output" / written)
        np.testing.assert_array_equal(labels, np.asarray(own.dataobj))
        np.testing.assert_allclose(affine, own.affine, atol=1e-4)


def test_classes_are_the_bundles_own(served: LabelClient, pictures: Files, tmp_path: Path) -> None:
    file = next(iter(pictures[0].values()))
    images = tmp_path / "images"
    images.mkdir()
    shutil.copy(file, images)
    own_inference(OURS / "medmerge_classification", images, tmp_path / "output")
    with (tmp_path / "output" / "predictions.csv").open() as table:
        own = next(csv.DictReader(table))
    answer = served.classify("medmerge_classification", served.put_image(file), model_filename="model.pt")
    np.testing.assert_allclose([float(own[kind]) for kind in answer], list(answer.values()), atol=1e-4)


def test_segmentation_is_merged_on_submitted_labels(served: LabelClient, app_folder: Path, volumes: Files) -> None:
    images, labels = volumes
    for labelled in list(images)[1:]:
        served.put_label(labelled, labels[labelled])
    served.train("medmerge_segmentation", merge=True, coefficient_epochs=1, max_epochs=4)
    ended: dict[str, Any] = served.wait(poll=0.2)
    assert ended["status"] == "DONE", "\n".join(ended["details"])
    stats = served.info()["train_stats"]["medmerge_segmentation"]
    assert stats["start"] == "merge of reconstruction.safetensors, whole_hippocampus.safetensors"
    assert stats["loss"][-1] < stats["loss"][0]
    assert (app_folder / "medmerge_segmentation" / "models" / "model_label.pt").is_file()
    name, file = next(iter(images.items()))
    assert read(served.infer("medmerge_segmentation", name))[0].shape == nibabel.load(file).shape


def test_images_are_scored_with_our_network(served: LabelClient) -> None:
    assert served.score("medmerge_segmentation_entropy")["executed"] > 0
    assert 0 < served.next_image("medmerge_segmentation_entropy")["weight"] < 1
