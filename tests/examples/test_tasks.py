"""Every task of the bundles, from simulated data to measures and predictions, with nothing but settings."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import monai
import nibabel
import numpy as np
import pytest
import tasks
from monai.bundle import run as run_bundle
from sklearn.metrics import average_precision_score, cohen_kappa_score, roc_auc_score

from monai_medmerge.__main__ import main

BUNDLES = Path(__file__).parents[2] / "bundles"
QUICK = {"probe_epochs": 1, "coefficient_epochs": 1, "finetune_epochs": 1, "write_report": False}


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Code that is named is remembered in the test's folder; seeds that a bundle fixes end with the test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    yield
    monai.utils.set_determinism(None)


def ran(bundle: str, config: str, **settings: Any) -> None:
    root = BUNDLES / bundle
    run_bundle(config_file=str(root / "configs" / f"{config}.json"), bundle_root=str(root), **settings)


def merged(task: str, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings, and the measures of the fine-tuned network."""
    settings = tasks.write_task(task, folder)
    ran(tasks.CASES[task].bundle, "merge", **settings, **QUICK)
    stages = json.loads((folder / "out" / "metrics.json").read_text())["stages"]
    return settings, stages["fine_tuned"]


def exported(folder: Path) -> dict[str, list[float]]:
    """Probabilities of the test images by the exported bundle, which is told nothing."""
    bundle = folder / "bundle"
    command = ["export", "--weights", str(folder / "out" / "model.pt"), "--output", str(bundle)]
    assert main([*command, "--no-onnx", "--no-torchscript"]) == 0
    run_bundle(config_file=str(bundle / "configs" / "inference.json"), bundle_root=str(bundle),
               dataset_dir=str(folder / "data" / "test"), output_dir=str(folder / "after"))  # fmt: skip
    rows = csv.reader((folder / "after" / "predictions.csv").read_text().splitlines())
    return {Path(name).name: list(map(float, values)) for name, *values in rows}


def predicted(task: str, folder: Path) -> tuple[np.ndarray, list[Any]]:
    """Probabilities of the test images as inference writes them, and the truth, in the same order.

    An exported bundle has the same of every image.
    """
    data = folder / "data"
    ran(tasks.CASES[task].bundle, "inference", dataset_dir=str(data / "test"), output_dir=str(folder / "said"),
        ckpt=str(folder / "out" / "model.pt"))  # fmt: skip
    with (folder / "said" / "predictions.csv").open() as file:
        rows = {Path(row.pop("file")).name: row for row in csv.DictReader(file)}
    truth = json.loads((data / "dataset.json").read_text())["test"]
    names = tasks.CASES[task].names
    said = [[float(rows[Path(entry["image"]).name][name]) for name in names] for entry in truth]
    if task != "own":  # Its code is run in a process of its own, in the test of the page about it.
        after = exported(folder)
        assert set(after) == set(rows)
        for entry, expected in zip(truth, said, strict=True):
            assert after[Path(entry["image"]).name] == pytest.approx(expected, abs=1e-5)
    return np.array(said), [entry["label"] for entry in truth]


@pytest.mark.parametrize("task", ["classes", "colour", "volumes", "own"])
def test_one_class_an_image(task: str, tmp_path: Path) -> None:
    _, found = merged(task, tmp_path / task)
    said, truth = predicted(task, tmp_path / task)
    assert np.allclose(said.sum(1), 1, atol=1e-5)
    accuracy = (said.argmax(1) == np.array(truth)).mean()
    assert found["results"]["accuracy"]["value"] == pytest.approx(accuracy)
    if task == "own":
        assert (tmp_path / task / "out" / "scripts" / "my_model.py").is_file()


def test_several_labels_an_image(tmp_path: Path) -> None:
    _, found = merged("multilabel", tmp_path / "several")
    said, truth = predicted("multilabel", tmp_path / "several")
    assert not np.allclose(said.sum(1), 1, atol=1e-2)
    results, names = found["results"], tasks.CASES["multilabel"].names
    assert results["mean_average_precision"]["value"] == pytest.approx(average_precision_score(truth, said), abs=1e-4)
    for number, name in enumerate(names):
        expected = roc_auc_score(np.array(truth)[:, number], said[:, number])
        assert results["classes"][name]["auroc"]["value"] == pytest.approx(expected, abs=1e-4)


def test_grades(tmp_path: Path) -> None:
    _, found = merged("ordinal", tmp_path / "grades")
    said, truth = predicted("ordinal", tmp_path / "grades")
    expected = cohen_kappa_score(truth, said.argmax(1), weights="quadratic")
    assert found["results"]["quadratic_kappa"]["value"] == pytest.approx(expected, abs=1e-6)


def test_several_organs(tmp_path: Path) -> None:
    _, found = merged("organs", tmp_path / "organs")
    assert set(found["labels"]) == {"liver", "spleen", "kidney"}
    ran("medmerge_segmentation", "inference", dataset_dir=str(tmp_path / "organs" / "data" / "test"),
        output_dir=str(tmp_path / "said"), ckpt=str(tmp_path / "organs" / "out" / "model.pt"))  # fmt: skip
    maps = [nibabel.load(file) for file in (tmp_path / "said").rglob("*.nii.gz")]
    assert maps
    assert all(set(np.unique(np.asarray(found.dataobj))) <= {0, 1, 2, 3} for found in maps)
