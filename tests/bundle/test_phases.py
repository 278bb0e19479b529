"""What a phase of `merge.json` has in common with the run that it continues."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from monai.data import CacheDataset, DataLoader
from torch import nn

from monai_medmerge import ResumeError
from monai_medmerge.bundle import phase_handlers
from monai_medmerge.bundle.phases import data_sha256
from monai_medmerge.engines import FineTuner


def learn(folder: Path, seed: int, labels: Sequence[int], batch_size: int = 2, bias: float = 0.0) -> None:
    items = [{"image": torch.full((2,), float(n)), "label": label} for n, label in enumerate(labels)]
    data = CacheDataset(items, transform=lambda item: item, progress=False)
    network = nn.Linear(2, 2)
    nn.init.constant_(network.weight, 1.0)
    nn.init.constant_(network.bias, bias)
    loader = DataLoader(data, batch_size=batch_size)
    handlers = phase_handlers("finetune", folder, seed, data)
    FineTuner(network, loader, 1, nn.CrossEntropyLoss(), device="cpu", train_handlers=handlers).run()


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    learn(tmp_path, 0, [0, 1, 0, 1])
    learn(tmp_path, 0, [0, 1, 0, 1])
    with pytest.raises(ResumeError, match="seed: expected 1, found 0"):
        learn(tmp_path, 1, [0, 1, 0, 1])
    with pytest.raises(ResumeError, match="data_sha256"):
        learn(tmp_path, 0, [0, 1, 1, 0])
    with pytest.raises(ResumeError, match="batches: expected 1, found 2"):
        learn(tmp_path, 0, [0, 1, 0, 1], batch_size=4)
    with pytest.raises(ResumeError, match="start_sha256"):
        learn(tmp_path, 0, [0, 1, 0, 1], bias=1.0)


def test_other_pixels_are_other_data_and_another_folder_is_not(tmp_path: Path) -> None:
    digests = []
    for name, value in (("a", 0), ("b", 0), ("c", 1)):
        folder = tmp_path / name
        (folder / "series").mkdir(parents=True)
        (folder / "1.nii").write_bytes(bytes(9000) + bytes([value]) + bytes(8000))
        (folder / "series" / "1.dcm").write_bytes(bytes(100))
        digests.append(data_sha256([{"image": str(folder / "1.nii"), "label": 1, "prior": folder / "series"}]))
    assert digests[0] == digests[1] != digests[2]
