"""The rows of the segmentation demo are what they are called."""

from __future__ import annotations

from pathlib import Path

import demo_segmentation
import pytest
import torch
from phantom_volumes import write_volumes

from monai_medmerge import Source


def test_the_uniform_average_is_the_mean_of_both_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = {"probe_epochs": 0, "coefficient_epochs": 0, "finetune_epochs": 0}
    for epochs in ("EPOCHS", "FINETUNED", "SCRATCH"):
        monkeypatch.setattr(demo_segmentation, epochs, nothing)
    dataset = write_volumes(tmp_path / "volumes", training=2, validation=1, test=1, seed=0)
    demo_segmentation.compare(dataset, tmp_path / "output")
    models = demo_segmentation.BUNDLE / "models"
    a, b = (Source.from_file(models / f"{name}.safetensors").tensors for name in demo_segmentation.SOURCES)
    written = torch.load(tmp_path / "output" / "rivals" / "uniform" / "model.pt", weights_only=True)
    kernels = [name for name in a.keys() & b.keys() if not name.startswith("conv_final.2")]
    assert kernels
    assert all(torch.allclose(written[name], (a[name] + b[name]) / 2, atol=1e-6) for name in kernels)
