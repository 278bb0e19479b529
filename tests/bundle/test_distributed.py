"""Two processes on one machine (gloo): they learn together, end with the same bits, and exit clean."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from phantom_volumes import write_volumes


def on_two_ranks(bundle_root: Path, *settings: str) -> subprocess.CompletedProcess[str]:
    configs = [str(bundle_root / "configs" / f"{name}.json") for name in ("merge", "multi_gpu_train")]
    command = [
        sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
        "-m", "monai.bundle", "run", "--config_file", str(configs), "--bundle_root", str(bundle_root),
        "--probe_epochs", "1", "--coefficient_epochs", "1", "--finetune_epochs", "1", *settings,
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_two_ranks_learn_and_end_with_the_same_weights(bundle_root: Path, phantoms: Path, tmp_path: Path) -> None:
    done = on_two_ranks(bundle_root, "--dataset_dir", str(phantoms), "--output_dir", str(tmp_path), "--batch_size", "4")
    # The configuration itself compares the ranks' weights and raises where they differ.
    assert done.returncode == 0, done.stderr[-3000:]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["stages"]["fine_tuned"]["cases"] == 15
    # Each rank takes half of the 24 images: 3 steps of 4, not 6.
    state = torch.load(tmp_path / "checkpoints" / "finetune_checkpoint_epoch=1.pt", weights_only=True)
    assert state["trainer"]["iteration"] == 3
    assert not any(name.startswith("module.") for name in state["network"])


@pytest.mark.slow
def test_two_ranks_learn_to_segment(bundle_root: Path, tmp_path: Path) -> None:
    volumes = write_volumes(tmp_path / "volumes", training=4, validation=1, test=2, seed=3)
    segmentation = bundle_root.parent / "medmerge_segmentation"
    done = on_two_ranks(segmentation, "--dataset_dir", str(volumes), "--output_dir", str(tmp_path / "output"))
    assert done.returncode == 0, done.stderr[-3000:]
    metrics = json.loads((tmp_path / "output" / "metrics.json").read_text())
    assert metrics["stages"]["fine_tuned"]["cases"] == 2
    assert (tmp_path / "output" / "model.pt").exists()
