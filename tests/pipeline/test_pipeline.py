"""The whole way in one command: reused, gone on with after a kill, and stopped where something got worse."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from monai_medmerge.__main__ import main
from monai_medmerge.data import write_images
from monai_medmerge.sources import Source

MODELS = Path(__file__).parents[2] / "bundles/medmerge_classification/models"
SHORT = [
    "probe_epochs=1",
    "coefficient_epochs=1",
    "finetune_epochs=1",
    "rank=off",
    "start=uniform",
    "write_report=false",
]


def images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    found, labels = rng.normal(90, 30, (count, 32, 32)), np.arange(count) % 2
    found[labels == 1, 8:24, 8:24] += 90
    return found.clip(0, 255).astype(np.uint8), labels


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "dataset"
    parts = {"training": images(16, 0), "validation": images(8, 1), "test": images(24, 2)}
    write_images(folder, parts, ["empty", "full"])
    return folder


def words(dataset: Path, output: Path, *more: str, settings: list[str] = SHORT) -> list[str]:
    sources = [
        word for name in ("chest_xray", "brain_mri") for word in ("--source", str(MODELS / f"{name}.safetensors"))
    ]
    asked = [word for text in settings for word in ("--set", text)]
    return ["pipeline", "--dataset", str(dataset), "--output", str(output), *sources, *asked, *more]


@pytest.fixture(scope="module")
def done(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("pipeline") / "out"
    assert main(words(dataset, output)) == 0
    return output


@pytest.fixture
def copy(done: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(done, tmp_path / "out"))


def result(output: Path, stage: str) -> dict:
    return json.loads((output / stage / "result.json").read_text())["found"]


def test_a_network_becomes_a_bundle_that_answers_as_it_does(done: Path) -> None:
    assert [path.name for path in sorted(done.iterdir())] == ["1_check", "2_merge", "3_gate", "4_export", "5_parity"]
    assert result(done, "5_parity")["images"] == 24
    assert result(done, "5_parity")["largest"] < 1e-5
    assert result(done, "4_export")["weights"] == result(done, "2_merge")["weights"]
    assert "no network in use" in result(done, "3_gate")["outcome"]
    assert result(done, "1_check")["counts"] == {"training": 16, "validation": 8, "test": 24}


def test_what_is_unchanged_is_reused(dataset: Path, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (copy / "2_merge/model.pt").stat().st_mtime_ns
    assert main(words(dataset, copy, "--dry-run")) == 0
    assert capsys.readouterr().out.count("unchanged, would be reused") == 5
    assert main(words(dataset, copy)) == 0
    assert capsys.readouterr().out.count("unchanged, reused") == 5
    assert (copy / "2_merge/model.pt").stat().st_mtime_ns == before


def test_what_changed_is_told(dataset: Path, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(dataset, copy, "--dry-run", settings=[*SHORT, "seed=3"])) == 0
    said = capsys.readouterr().out
    assert "check: unchanged, would be reused" in said
    assert "merge: would be run: done anew, as settings changed; " in said
    assert "export: would be run: after an earlier stage that is run" in said
    assert main(words(dataset, copy, "--from", "parity")) == 0
    assert "parity: done anew, as you ask for it (--from)" in capsys.readouterr().out


def test_a_network_that_got_worse_is_stopped_at_the_gate(
    dataset: Path, copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = tmp_path / "good"
    good.mkdir()
    tensors = dict(Source.from_file(copy / "2_merge/model.pt").tensors)
    for name in ("model.pt", "model.json", "metrics.json"):
        shutil.copy(copy / "2_merge" / name, good / name)
    assert main(words(dataset, copy, "--in-use", str(good / "model.pt"), "--until", "gate")) == 0
    # Half of the answers are turned around: whatever the network in use knew is lost.
    spoiled = {name: -tensor if name.startswith("fc.") else tensor.clone() for name, tensor in tensors.items()}
    confident = {name: 3 * tensor if name.startswith("fc.") else tensor.clone() for name, tensor in tensors.items()}
    torch.save(confident, good / "model.pt")
    torch.save(spoiled, copy / "2_merge/model.pt")
    capsys.readouterr()
    status = main(words(dataset, copy, "--in-use", str(good / "model.pt")))
    said = capsys.readouterr()
    assert status in (1, 3)
    assert "stopped: gate: expected a gate that is passed" in said.err
    assert "parity" not in said.out
    # Asked again, it is refused again, from what it found.
    assert main(words(dataset, copy, "--in-use", str(good / "model.pt"))) == status


def test_a_wrong_preprocessing_in_the_bundle_is_stopped_at_parity(
    dataset: Path, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = copy / "4_export/bundle"
    changed = 0
    for path in (bundle / "models/model.json", bundle / "configs/inference.json"):
        if path.exists() and "NormalizeIntensityd" in (text := path.read_text()):
            path.write_text(text.replace("NormalizeIntensityd", "ScaleIntensityd"))
            changed += 1
    assert changed
    assert main(words(dataset, copy)) == 1
    said = capsys.readouterr()
    assert "parity: done anew, as exported changed" in said.out
    assert "stopped: parity: expected answers equal to 0.0001, found image 1: " in said.err


def test_killed_at_any_moment_it_ends_in_the_same_network(dataset: Path, done: Path, tmp_path: Path) -> None:
    output = tmp_path / "killed"
    command = [sys.executable, "-W", "ignore", "-m", "monai_medmerge", *words(dataset, output)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    for seconds in (4.0, 7.0):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert main(words(dataset, output)) == 0
    for stage, name in (("2_merge", "weights"), ("4_export", "weights")):
        assert result(output, stage)[name] == result(done, stage)[name]
    assert {path.name for path in output.iterdir()} == {path.name for path in done.iterdir()}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--until", "expotr"], "--until: expected a stage among check, merge, gate, export, parity"),
        (["--from", "nothing"], "--from: expected a stage among"),
        (["--set", "seed=$1+1"], "--set seed: expected a plain value"),
        (["--in-use", "absent.pt"], "absent.pt"),
        (["--bundle", "medmerge_clasification"], "the nearest is medmerge_classification"),
    ],
)
def test_misuse_is_one_line(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    assert main(words(dataset, tmp_path / "out", *more)) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_an_image_in_two_parts_is_refused_before_anything_long(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(shutil.copytree(dataset, tmp_path / "data"))
    shutil.copy(data / "training/00000.png", data / "test/00000.png")
    assert main(words(data, tmp_path / "out")) == 2
    assert "expected an image in one section only, found the same in training and test" in capsys.readouterr().err
    assert not (tmp_path / "out/2_merge").exists()
