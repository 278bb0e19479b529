"""What a training leaves when it ends, and when it fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.engines import SupervisedTrainer
from torch import nn

from monai_medmerge.errors import UnsafeCheckpointError
from monai_medmerge.label.progress import TrainingRecord

BATCHES = [{"image": torch.ones(2, 1), "label": torch.full((2, 1), 3.0)}] * 3


def trainer(folder: Path, decollate: bool, loss: Any = None) -> tuple[SupervisedTrainer, nn.Module]:
    torch.manual_seed(0)
    network = nn.Linear(1, 1)
    record = TrainingRecord(str(folder / "model_label.pt"), str(folder / "train_stats.json"), "model.pt")
    engine = SupervisedTrainer(
        device=torch.device("cpu"), max_epochs=3, train_data_loader=BATCHES, network=network, decollate=decollate,
        optimizer=torch.optim.SGD(network.parameters(), 0.1), loss_function=loss or nn.MSELoss(),
        train_handlers=[record],
    )  # fmt: skip
    return engine, network


@pytest.mark.parametrize("decollate", [True, False])
def test_losses_and_weights_are_kept(tmp_path: Path, decollate: bool) -> None:
    engine, network = trainer(tmp_path, decollate)
    engine.run()
    stats = json.loads((tmp_path / "train_stats.json").read_text())
    assert (stats["start"], stats["epoch"], stats["max_epochs"]) == ("model.pt", 3, 3)
    assert stats["loss"] == sorted(stats["loss"], reverse=True)
    kept = torch.load(tmp_path / "model_label.pt")
    torch.testing.assert_close(kept, dict(network.state_dict()))


def test_failed_training_leaves_the_weights_before_it(tmp_path: Path) -> None:
    (tmp_path / "model_label.pt").write_bytes(b"before")

    def fail(*_: Any) -> torch.Tensor:
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        trainer(tmp_path, True, fail)[0].run()
    assert [file.name for file in tmp_path.iterdir()] == ["model_label.pt"]
    assert (tmp_path / "model_label.pt").read_bytes() == b"before"


def test_diverged_training_leaves_the_weights_before_it_and_plain_json(tmp_path: Path) -> None:
    (tmp_path / "model_label.pt").write_bytes(b"before")

    def diverge(prediction: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return prediction.sum() * float("nan")

    with pytest.raises(UnsafeCheckpointError, match="diverged"):
        trainer(tmp_path, True, diverge)[0].run()
    assert (tmp_path / "model_label.pt").read_bytes() == b"before"

    def refuse(constant: str) -> Any:
        raise AssertionError(constant)

    stats = json.loads((tmp_path / "train_stats.json").read_text(), parse_constant=refuse)
    assert stats["loss"] == [None, None, None]
