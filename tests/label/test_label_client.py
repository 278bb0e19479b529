"""The client as a user runs it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import label_client
import numpy as np
import pytest
from label.own_inference import read
from label_client import LabelClient, stem

pytest.importorskip("monailabel", reason="MONAI Label has an environment of its own: make test-label")

Files = tuple[dict[str, Path], dict[str, Path]]


def test_client_labels_trains_and_infers(served: LabelClient, volumes: Files, tmp_path: Path) -> None:
    images, labels = volumes
    for folder, files in (("images", list(images.values())), ("labels", list(labels.values())[1:])):
        (tmp_path / folder).mkdir()
        for file in files:
            shutil.copy(file, tmp_path / folder)
    options = ["--url", served.url, "--model", "blocks", "--epochs", "4", "--merge"]
    for option in ("images", "labels", "output"):
        options += [f"--{option}", str(tmp_path / option)]
    command = [sys.executable, label_client.__file__, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    first, last = (float(word.split()[0]) for word in done.stdout.split("Mean loss ")[1].split(", "))
    assert last < first
    unlabelled = next(iter(images))
    (written,) = (tmp_path / "output").iterdir()
    assert stem(written) == unlabelled
    np.testing.assert_array_equal(read(written.read_bytes())[0], read(served.infer("blocks", unlabelled))[0])
