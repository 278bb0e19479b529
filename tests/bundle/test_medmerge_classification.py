"""The classification bundle, run as a user runs it: in processes of its own, killed, resumed, given wrong input."""

from __future__ import annotations

import csv
import hashlib
import json
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigWorkflow
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from monai_medmerge import Source

Command = Callable[..., list[str]]
EPOCHS = {"probe_epochs": 3, "coefficient_epochs": 3, "finetune_epochs": 3}
PHASES = ("probe", "coefficients", "finetune")
# What costs seconds and is no part of training.
BARE = {"rank": "off", "write_report": False}


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def outcome(output: Path) -> tuple[str, str]:
    """SHA-256 of the final weights' bytes, and the metrics as written."""
    state = torch.load(output / "model.pt", weights_only=True)
    digest = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in state.values())).hexdigest()
    return digest, (output / "metrics.json").read_text()


@pytest.fixture(scope="module")
def undisturbed(bundle_command: Command, phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("undisturbed")
    done = run(bundle_command("merge", dataset_dir=phantoms, output_dir=output, **EPOCHS))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return output


def test_the_whole_way_leaves_what_it_promises(undisturbed: Path, bundle_root: Path) -> None:
    metrics = json.loads((undisturbed / "metrics.json").read_text())
    assert set(metrics["stages"]) == {"merged", "fine_tuned"}
    for stage in metrics["stages"].values():
        low, high = stage["interval"]
        assert 0 <= low <= stage["macro_f1"] <= high <= 1
    # Under two per cent of what fine-tuning trains.
    parameters = [metrics["stages"][name]["parameters_trained"] for name in ("merged", "fine_tuned")]
    assert parameters[0] < 0.02 * parameters[1]
    files = {name: bundle_root / "models" / f"{name}.safetensors" for name in metrics["sources"]}
    assert metrics["sources"] == {name: Source.from_file(path).sha256 for name, path in files.items()}
    assert (undisturbed / "contributions.png").read_bytes().startswith(b"\x89PNG")
    assert list((undisturbed / "events").glob("events.out.tfevents.*"))


def test_the_whole_way_ends_in_a_report(undisturbed: Path) -> None:
    report = json.loads((undisturbed / "report.json").read_text())
    names = ["natural", "chest_xray", "brain_mri"]
    assert [source["name"] for source in report["sources"]] == names
    assert report["sources"][1]["licence"] == "CC BY 4.0"
    assert sorted(score["name"] for score in report["ranking"]["scores"]) == sorted(names)
    assert set(report["curves"]) == set(PHASES)
    assert [epoch for epoch, _ in report["curves"]["finetune"]] == [1, 2, 3]
    assert {name: [epoch for epoch, _ in points] for name, points in report["course"].items()} == {
        name: [0, 1, 2, 3] for name in names
    }
    assert report["gate"] is None
    assert (undisturbed / "report.html").stat().st_size < 3_000_000
    assert (undisturbed / "MODEL_CARD.md").read_text().startswith("# MedMerge classification")
    with (undisturbed / "contributions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["tensor"] == "conv1.weight"
    assert all(sum(float(row[name]) for name in names) == pytest.approx(1, abs=1e-6) for row in rows)
    assert {"similarity.csv", "course.csv"} <= {path.name for path in undisturbed.iterdir()}
    # Pictures of the shares at the start, now and then, and at the end.
    events = EventAccumulator(str(undisturbed / "events"), size_guidance={"images": 0}).Reload()
    assert [picture.step for picture in events.Images("contributions")] == [0, 3]


@pytest.mark.slow
def test_one_seed_gives_the_same_bits(
    bundle_command: Command, phantoms: Path, undisturbed: Path, tmp_path: Path
) -> None:
    assert run(bundle_command("merge", dataset_dir=phantoms, output_dir=tmp_path, **EPOCHS, **BARE)).returncode == 0
    assert outcome(tmp_path) == outcome(undisturbed)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES)
def test_killed_in_any_phase_it_ends_with_the_same_bits(
    bundle_command: Command, phantoms: Path, undisturbed: Path, tmp_path: Path, phase: str
) -> None:
    reported = phase == "coefficients"
    command = bundle_command("merge", dataset_dir=phantoms, output_dir=tmp_path, **EPOCHS, **({} if reported else BARE))
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    first = tmp_path / "checkpoints" / f"{phase}_checkpoint_epoch=1.pt"
    deadline = time.monotonic() + 200
    while not first.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "model.pt").exists()
    resumed = run(command)
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    assert "Resumed from" in resumed.stdout + resumed.stderr or phase == "probe"
    assert outcome(tmp_path) == outcome(undisturbed)
    if reported:
        # What was seen before the kill is in the report too.
        assert (tmp_path / "report.json").read_text() == (undisturbed / "report.json").read_text()


def test_train_and_evaluate_go_on_from_the_merged_weights(
    bundle_command: Command, phantoms: Path, undisturbed: Path, tmp_path: Path
) -> None:
    options = {"dataset_dir": phantoms, "output_dir": tmp_path}
    start = undisturbed / "model.pt"
    trained = run(bundle_command("train", initialization=start, ckpt_dir=tmp_path, epochs=2, **options))
    assert trained.returncode == 0, trained.stderr[-2000:]
    evaluated = run(bundle_command("evaluate", ckpt=tmp_path / "model_finetuned.pt", **options))
    assert evaluated.returncode == 0, evaluated.stderr[-2000:]
    assert 0 <= json.loads((tmp_path / "evaluation.json").read_text())["test"]["macro_f1"] <= 1


def test_one_corrupt_image_costs_only_itself(bundle_command: Command, phantoms: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(phantoms / "test", images)
    whole = sorted(path.name for path in images.iterdir())
    damaged = images / whole[3]
    damaged.write_bytes(damaged.read_bytes()[:600])
    from PIL import Image

    Image.new("L", (50, 40), 90).save(images / "one.png")
    (images / "two.png").write_bytes((images / "one.png").read_bytes()[:60])
    done = run(bundle_command("inference", dataset_dir=images, output_dir=tmp_path))
    assert done.returncode != 0
    assert all(name in done.stderr for name in (damaged.name, "two.png"))
    with (tmp_path / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == sorted([*(name for name in whole if name != damaged.name), "one.png"])
    for row in rows:
        probabilities = [float(row[name]) for name in ("cyst", "benign", "malignant")]
        assert sum(probabilities) == pytest.approx(1, abs=1e-4)


class _Plant:
    """Pickled, it would write a file when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, (f"open({str(self.marker)!r}, 'w').close()",)


def wrong_sources(folder: Path, good: Path) -> dict[str, tuple[Path, str]]:
    """A name for each kind of wrong source: its file, and what the error must say."""
    tensors = load_file(good)
    torch.save({"conv1.weight": _Plant(folder / "marker")}, folder / "code.pt")
    (folder / "plain.pt").write_bytes(pickle.dumps(_Plant(folder / "marker")))
    (folder / "truncated.safetensors").write_bytes(good.read_bytes()[:-5000])
    save_file({**tensors, "conv1.weight": tensors["conv1.weight"] * float("nan")}, folder / "nan.safetensors")
    save_file({**tensors, "layer1.0.conv1.weight": torch.zeros(16, 16, 1, 1)}, folder / "other.safetensors")
    return {
        "missing file": (folder / "absent.safetensors", "absent.safetensors"),
        "truncated file": (folder / "truncated.safetensors", "truncated.safetensors"),
        "pickled object": (folder / "code.pt", "code.pt"),
        "bare pickle": (folder / "plain.pt", "plain.pt"),
        "NaN weights": (folder / "nan.safetensors", "conv1.weight"),
        "another architecture": (folder / "other.safetensors", "layer1.0.conv1.weight"),
    }


def in_process(bundle_root: Path, dataset: Path, output: Path, sources: list[Path]) -> None:
    """merge.json without a process of its own, which is quicker, for errors that come before anything is learned."""
    workflow = ConfigWorkflow(
        config_file=str(bundle_root / "configs" / "merge.json"), workflow_type="train", bundle_root=str(bundle_root),
        dataset_dir=str(dataset), output_dir=str(output), source_files=[str(path) for path in sources],
    )  # fmt: skip
    workflow.initialize()
    workflow.run()


def message_of(error: BaseException) -> str:
    """All messages of a chain: MONAI's parser wraps what a configuration raises."""
    return str(error) + (message_of(error.__cause__) if error.__cause__ else "")


def test_each_wrong_source_is_refused_by_name(bundle_root: Path, phantoms: Path, tmp_path: Path) -> None:
    good = bundle_root / "models" / "natural.safetensors"
    for kind, (path, word) in wrong_sources(tmp_path, good).items():
        with pytest.raises((RuntimeError, ValueError)) as caught:
            in_process(bundle_root, phantoms, tmp_path / "output", [good, path])
        assert word in message_of(caught.value), kind
        if kind == "another architecture":
            assert "tensor" in message_of(caught.value)
            assert "16 x 16 x 1 x 1" in message_of(caught.value)
    assert not (tmp_path / "marker").exists()
    assert not (tmp_path / "output" / "model.pt").exists()


def test_wrong_data_is_refused_by_name(bundle_root: Path, phantoms: Path, tmp_path: Path) -> None:
    sources = [bundle_root / "models" / "natural.safetensors"]
    labels = tmp_path / "labels"
    shutil.copytree(phantoms, labels)
    content = json.loads((labels / "dataset.json").read_text())
    content["training"][2]["label"] = 3
    (labels / "dataset.json").write_text(json.dumps(content))
    (tmp_path / "empty").mkdir()
    for folder, word in [(labels, "from 0 to 2"), (tmp_path / "empty", "dataset.json")]:
        with pytest.raises((RuntimeError, ValueError, OSError)) as caught:
            in_process(bundle_root, folder, tmp_path / "output", sources)
        assert word in message_of(caught.value)


def test_inference_on_an_empty_folder_is_an_error(bundle_command: Command, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    done = run(bundle_command("inference", dataset_dir=tmp_path / "images", output_dir=tmp_path))
    assert done.returncode != 0
    assert "images: expected an image" in done.stderr
    assert not (tmp_path / "predictions.csv").exists()


@pytest.mark.parametrize(("config", "kind"), [("train", "train"), ("inference", "infer")])
def test_required_properties(bundle_root: Path, phantoms: Path, config: str, kind: str) -> None:
    configs = bundle_root / "configs"
    workflow = ConfigWorkflow(
        config_file=str(configs / f"{config}.json"), meta_file=str(configs / "metadata.json"), workflow_type=kind,
        bundle_root=str(bundle_root), dataset_dir=str(phantoms),
    )  # fmt: skip
    workflow.initialize()
    assert workflow.check_properties() == []


@pytest.mark.parametrize("check", ["verify_net_in_out", "ckpt_export"])
def test_monai_checks_the_bundle(bundle_root: Path, tmp_path: Path, check: str) -> None:
    configs = bundle_root / "configs"
    options = ["--net_id", "network_def", "--meta_file", str(configs / "metadata.json")]
    options += ["--config_file", str(configs / "inference.json")]
    if check == "ckpt_export":
        options += ["--filepath", str(tmp_path / "model.ts"), "--ckpt_file", str(bundle_root / "models" / "model.pt")]
    done = run([sys.executable, "-W", "ignore", "-m", "monai.bundle", check, *options])
    assert done.returncode == 0, done.stderr[-2000:]
    if check == "ckpt_export":
        assert torch.jit.load(tmp_path / "model.ts")(torch.zeros(1, 1, 64, 64)).shape == (1, 3)


def test_models_are_small_and_the_card_tells_their_hashes(bundle_root: Path) -> None:
    card = (bundle_root / "models" / "MODEL_CARD.md").read_text()
    files = sorted((bundle_root / "models").glob("*.safetensors"))
    assert len(files) == 3
    for path in files:
        assert path.stat().st_size <= 3_000_000
        assert hashlib.sha256(path.read_bytes()).hexdigest() in card
