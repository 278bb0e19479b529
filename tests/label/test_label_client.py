"""The client on our app; on MONAI Label's own see test_stock_bundles.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from label.own_inference import read
from label.running_client import run_client
from label_client import LabelClient, stem

pytest.importorskip("monailabel", reason="MONAI Label has an environment of its own: make test-label")

Files = tuple[dict[str, Path], dict[str, Path]]


def test_client_labels_trains_and_infers(served: LabelClient, volumes: Files, tmp_path: Path) -> None:
    printed = run_client(served.url, "blocks", volumes, tmp_path, "--epochs", "4", "--merge")
    first, last = (float(word.split()[0]) for word in printed.split("Mean loss ")[1].split(", "))
    assert last < first
    unlabelled = next(iter(volumes[0]))
    (written,) = (tmp_path / "output").iterdir()
    assert stem(written) == unlabelled
    np.testing.assert_array_equal(read(written.read_bytes())[0], read(served.infer("blocks", unlabelled))[0])
