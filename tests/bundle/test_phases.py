"""What a phase of `merge.json` has in common with the run that it continues."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from monai.data import CacheDataset, DataLoader
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from monai_medmerge import ResumeError, Source, coefficients, merge
from monai_medmerge.bundle import phase_handlers
from monai_medmerge.bundle.phases import data_sha256
from monai_medmerge.engines import CoefficientTrainer, FineTuner


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


def test_the_log_has_one_line_an_epoch_and_tensorboard_every_source(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 2))
    sources = [
        Source.from_network(nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 2)), name) for name in ("natural", "chest")
    ]
    merged = merge(network, sources)
    items = [{"image": torch.full((2,), float(n)), "label": n % 2} for n in range(6)]
    handlers = phase_handlers("coefficients", tmp_path, 0, None, merged)
    with caplog.at_level(logging.INFO, "monai_medmerge"):
        CoefficientTrainer(
            merged, DataLoader(items, batch_size=2), 3, nn.CrossEntropyLoss(), device="cpu", train_handlers=handlers
        ).run()
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("monai_medmerge")]
    assert [line.split(":")[0] for line in lines] == [f"coefficients, epoch {n} of 3" for n in (1, 2, 3)]
    assert all("mean loss" in line and "natural 0." in line and "chest 0." in line for line in lines)
    events = EventAccumulator(str(tmp_path / "events"), size_guidance={"histograms": 0}).Reload()
    for name in ("natural", "chest"):
        histograms = events.Histograms(f"coefficients/{name}")
        assert [event.step for event in histograms] == [1, 2, 3]
        assert all(0 <= event.histogram_value.min <= event.histogram_value.max <= 1 for event in histograms)
        assert histograms[0].histogram_value.num == sum(t.shape[1] for t in coefficients(merged).values())
