"""The bundles of this repository, copied as they are, on MONAI Label's own monaibundle app, unchanged too."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from label.own_inference import read
from label.running_client import run_client
from label.serving import serving
from label_client import LabelClient
from phantom_lesions import CLASS_NAMES, write_phantoms
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

pytest.importorskip("monailabel", reason="MONAI Label has an environment of its own: make test-label")

Files = tuple[dict[str, Path], dict[str, Path]]
Start = Callable[[str], AbstractContextManager[LabelClient]]
BUNDLES = Path(__file__).parents[2] / "bundles"
SEGMENTATION, CLASSIFICATION = "medmerge_segmentation", "medmerge_classification"
TUNED, LAST = "model_finetuned.pt", "model_final.pt"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MONAI Label's own app with plain copies of our bundles."""
    folder = tmp_path_factory.mktemp("stock_bundles") / "monaibundle"
    shutil.copytree(Path(sys.prefix, "monailabel", "sample-apps", "monaibundle"), folder)
    for bundle in (SEGMENTATION, CLASSIFICATION):
        shutil.copytree(
            BUNDLES / bundle, folder / "model" / bundle, ignore=shutil.ignore_patterns("output", "dataset", "medmerge")
        )
    return folder


@pytest.fixture(scope="module")
def start(app: Path, tmp_path_factory: pytest.TempPathFactory) -> Start:
    """Start a server of one of them, with a folder of studies of its own: the app trains on every label there is."""

    def served(model: str) -> AbstractContextManager[LabelClient]:
        folder = tmp_path_factory.mktemp(model)
        (folder / "studies").mkdir()
        command = ["-m", "monailabel.main", "start_server", "--app", str(app), "--studies", str(folder / "studies")]
        command += ["--conf", "models", model, "--conf", "sam2", "false", "--conf", "zoo_source", "ngc"]
        return serving(command, folder)

    return served


@pytest.fixture(scope="module")
def segmenting(start: Start, volumes: Files, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelClient]:
    """All volumes but the first labelled, with the two structures exchanged, so that there is much to learn."""
    folder = tmp_path_factory.mktemp("exchanged")
    images, labels = volumes
    with start(SEGMENTATION) as client:
        for number, (name, file) in enumerate(images.items()):
            client.put_image(file, name)
            if number:
                image = nibabel.load(labels[name])
                other = np.array([0, 2, 1], np.uint8)[np.asarray(image.dataobj).astype(int)]
                nibabel.save(nibabel.Nifti1Image(other, image.affine), folder / f"{name}.nii.gz")
                client.put_label(name, folder / f"{name}.nii.gz")
        yield client


@pytest.fixture(scope="module")
def lesions(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, int]]:
    """Simulated ultrasound as DICOM files, with their classes."""
    folder = write_phantoms(tmp_path_factory.mktemp("lesions") / "data", training=12, validation=3, test=3)
    listed = json.loads((folder / "dataset.json").read_text())
    return [(folder / entry["image"], entry["label"]) for entry in listed["training"]]


@pytest.fixture(scope="module")
def classifying(
    start: Start, lesions: list[tuple[Path, int]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LabelClient]:
    folder = tmp_path_factory.mktemp("classes")
    with start(CLASSIFICATION) as client:
        for number, (file, label) in enumerate(lesions):
            client.put_image(file, f"lesion{number}")
            (folder / f"lesion{number}.json").write_text(json.dumps({"label": CLASS_NAMES[label]}))
            client.put_label(f"lesion{number}", folder / f"lesion{number}.json")
        yield client


def own_inference(bundle: Path, images: Path, output: Path, weights: str = "model.pt") -> None:
    command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", "--config_file", "configs/inference.json"]
    command += ["--bundle_root", ".", "--ckpt", f"models/{weights}"]
    command += ["--dataset_dir", str(images), "--output_dir", str(output)]
    subprocess.run(command, check=True, cwd=bundle, timeout=300, capture_output=True)


def train(client: LabelClient, app: Path, model: str, epochs: int, **options: Any) -> list[float]:
    """Train to the end, and see that the merged network stays as the bundle came with it.

    Returns:
        The mean loss of every epoch.
    """
    folder = app / "model" / model
    shutil.rmtree(folder / "output", ignore_errors=True)
    client.train(model, max_epochs=epochs, **options)
    ended = client.wait(poll=0.2)
    assert ended["status"] == "DONE", "\n".join(ended["details"])
    assert (folder / "models" / "model.pt").read_bytes() == (BUNDLES / model / "models" / "model.pt").read_bytes()
    events = EventAccumulator(str(folder / "output" / "events")).Reload()
    losses = np.array([event.value for event in events.Scalars("train_loss")])
    return losses.reshape(epochs, -1).mean(1).tolist()


def check_merge(app: Path, model: str, sources: set[str]) -> None:
    """What a training began with is the merge, though MONAI Label would have loaded `model.pt` over it."""
    merged = app / "model" / model / "medmerge"
    record = json.loads((merged / "merge.json").read_text())
    assert any("model.pt" in loader for loader in record["loaders_set_aside"])
    assert sources <= set(json.dumps(record).replace('"', " ").split())
    start, final = (torch.load(merged / name) for name in ("initialization.pt", "model.pt"))
    before = torch.load(app / "model" / model / "models" / "model.pt")
    moved, apart = (
        sum((start[name].float() - other[name].float()).square().sum().item() for name in start)
        for other in (final, before)
    )
    assert 0 < moved < 0.5 * apart


def test_label_maps_are_the_bundles_own(segmenting: LabelClient, volumes: Files, series: Path, tmp_path: Path) -> None:
    name, file = next(iter(volumes[0].items()))
    (tmp_path / "images").mkdir()
    shutil.copy(file, tmp_path / "images")
    shutil.copytree(series, tmp_path / "images" / "mr")
    own_inference(BUNDLES / SEGMENTATION, tmp_path / "images", tmp_path / "output")
    assert segmenting.info()["models"][SEGMENTATION]["labels"] == {"anterior": 1, "posterior": 2}
    for image, written in ((name, name), (str(series), "mr")):
        labels, affine = read(segmenting.infer(SEGMENTATION, image))
        own = nibabel.load(tmp_path / "output" / f"{written}_seg.nii.gz")
        np.testing.assert_array_equal(labels, np.asarray(own.dataobj))
        np.testing.assert_allclose(affine, own.affine, atol=1e-4)
        assert labels.any()


def test_segmentation_is_tuned_on_submitted_labels(
    segmenting: LabelClient, app: Path, volumes: Files, tmp_path: Path
) -> None:
    # The 3D Slicer client sends every option that /info lists, those that are empty too.
    losses = train(segmenting, app, SEGMENTATION, 8, run_id="", model_filename="model.pt", tracking="None")
    assert losses[-1] < 0.8 * losses[0]
    assert not (app / "model" / SEGMENTATION / "medmerge").exists()
    name, file = next(iter(volumes[0].items()))
    after, _ = read(segmenting.infer(SEGMENTATION, name, model_filename=TUNED))
    before, _ = read(segmenting.infer(SEGMENTATION, name))
    assert (after != before).any()
    (tmp_path / "images").mkdir()
    shutil.copy(file, tmp_path / "images")
    own_inference(app / "model" / SEGMENTATION, tmp_path / "images", tmp_path / "output", TUNED)
    own = nibabel.load(tmp_path / "output" / f"{name}_seg.nii.gz")
    np.testing.assert_array_equal(after, np.asarray(own.dataobj))


def test_segmentation_is_merged_on_submitted_labels(segmenting: LabelClient, app: Path, volumes: Files) -> None:
    # Nothing to validate on, as with a single label: what there is at the end must do.
    losses = train(segmenting, app, SEGMENTATION, 4, run_id="merge", val_split=0)
    assert losses[-1] < losses[0]
    check_merge(app, SEGMENTATION, {"reconstruction", "whole_hippocampus"})
    folder = app / "model" / SEGMENTATION
    torch.testing.assert_close(torch.load(folder / "models" / LAST), torch.load(folder / "medmerge" / "model.pt"))
    name = next(iter(volumes[0]))
    after, _ = read(segmenting.infer(SEGMENTATION, name, model_filename=LAST))
    assert (after != read(segmenting.infer(SEGMENTATION, name))[0]).any()


def test_client_merges_and_answers(segmenting: LabelClient, app: Path, volumes: Files, tmp_path: Path) -> None:
    run_client(segmenting.url, SEGMENTATION, volumes, tmp_path, "--epochs", "1", "--merge", "--weights", LAST)
    check_merge(app, SEGMENTATION, {"reconstruction", "whole_hippocampus"})
    name = next(iter(volumes[0]))
    answer, _ = read((tmp_path / "output" / f"{name}.nii.gz").read_bytes())
    np.testing.assert_array_equal(answer, read(segmenting.infer(SEGMENTATION, name, model_filename=LAST))[0])


def test_classes_are_the_bundles_own(classifying: LabelClient, lesions: list[tuple[Path, int]], tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    shutil.copy(lesions[0][0], tmp_path / "images")
    own_inference(BUNDLES / CLASSIFICATION, tmp_path / "images", tmp_path / "output")
    with (tmp_path / "output" / "predictions.csv").open() as table:
        own = next(csv.DictReader(table))
    assert classifying.info()["models"][CLASSIFICATION]["type"] == "classification"
    for image in ("lesion0", str(lesions[0][0])):
        answer = classifying.classify(CLASSIFICATION, image)
        assert list(answer) == list(CLASS_NAMES)
        np.testing.assert_allclose([float(own[kind]) for kind in answer], list(answer.values()), atol=1e-5)


def test_classification_is_tuned_and_merged_on_submitted_classes(classifying: LabelClient, app: Path) -> None:
    before = classifying.classify(CLASSIFICATION, "lesion0")
    losses = train(classifying, app, CLASSIFICATION, 8)
    assert losses[-1] < 0.9 * losses[0]
    tuned = classifying.classify(CLASSIFICATION, "lesion0", model_filename=TUNED)
    losses = train(classifying, app, CLASSIFICATION, 8, run_id="merge")
    assert losses[-1] < 0.9 * losses[0]
    check_merge(app, CLASSIFICATION, {"natural", "chest_xray", "brain_mri"})
    merged = classifying.classify(CLASSIFICATION, "lesion0", model_filename=TUNED)
    assert len({tuple(answer.values()) for answer in (before, tuned, merged)}) == 3
    assert classifying.classify(CLASSIFICATION, "lesion0") == before
