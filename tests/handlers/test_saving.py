"""Checkpoints of trainers: whole, no more than are wanted, and the old one there until the new one is."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events
from processes import Forked
from torch import nn

from monai_medmerge.errors import OutputError
from monai_medmerge.handlers import ProbabilityWriter, ResumeHandler, WholeCheckpointSaver, saving


def trainer(saver: WholeCheckpointSaver | ResumeHandler | ProbabilityWriter, scores: list[float]) -> Engine:
    engine = Engine(lambda engine, batch: None)
    engine.state.key_metric_name = "score"  # type: ignore[attr-defined]
    engine.logger.setLevel("CRITICAL")

    @engine.on(Events.EPOCH_COMPLETED)
    def measure() -> None:
        engine.state.metrics = {"score": scores[engine.state.epoch - 1]}

    saver.attach(engine)
    return engine


def best(folder: Path, network: nn.Module, **keywords: object) -> WholeCheckpointSaver:
    return WholeCheckpointSaver(str(folder), {"model": network}, save_key_metric=True, **keywords)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("keywords", [{"key_metric_filename": "best.pt"}, {}])
def test_killed_while_a_better_network_is_saved_the_last_best_one_is_there(
    keywords: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, save = nn.Linear(2, 2), saving.save_state

    def dying(path: Path, content: dict[str, torch.Tensor]) -> None:
        if content["weight"][0, 0] == 2:
            monkeypatch.setattr(torch, "save", lambda content, file: (file.write(b"half"), os.kill(os.getpid(), 9)))
        save(path, content)

    def run() -> None:
        monkeypatch.setattr(saving, "save_state", dying)
        engine = trainer(best(tmp_path / "models", network, **keywords), [0.1, 0.2])
        engine.add_event_handler(
            Events.EPOCH_STARTED, lambda: nn.init.constant_(network.weight, float(engine.state.epoch))
        )
        engine.run([0], max_epochs=2)

    assert Forked(run, tmp_path / "told").wait() == -signal.SIGKILL
    (file,) = (tmp_path / "models").glob("*.pt")
    assert torch.load(file, weights_only=True)["weight"].eq(1).all()
    nn.init.constant_(network.weight, 3)
    trainer(best(tmp_path / "models", network, **keywords), [0.3]).run([0], max_epochs=1)
    assert not list((tmp_path / "models").glob(".medmerge-*"))


def test_only_the_best_one_stays(tmp_path: Path) -> None:
    network = nn.Linear(2, 2)
    trainer(best(tmp_path, network), [0.1, 0.3, 0.2]).run([0], max_epochs=3)
    assert names(tmp_path) == ["model_key_metric=0.3000.pt"]


def test_what_monai_saves_is_what_this_saves(tmp_path: Path) -> None:
    from monai.handlers import CheckpointSaver

    network = nn.Linear(2, 2)
    for folder, kind in (("ours", WholeCheckpointSaver), ("monai", CheckpointSaver)):
        saver = kind(
            str(tmp_path / folder), {"model": network}, save_final=True, final_filename="last.pt", save_interval=1,
            n_saved=2, save_key_metric=True, key_metric_filename="best.pt",
        )  # fmt: skip
        trainer(saver, [0.2, 0.1, 0.3]).run([0], max_epochs=3)
    assert names(tmp_path / "ours") == names(tmp_path / "monai")
    for name in names(tmp_path / "ours"):
        one, other = (torch.load(tmp_path / folder / name, weights_only=True) for folder in ("ours", "monai"))
        assert all(torch.equal(one[key], other[key]) for key in other | one)


def test_a_run_that_goes_on_keeps_two_checkpoints_in_all(tmp_path: Path) -> None:
    network = nn.Linear(2, 2)
    for stop in (3, 4, 9):
        engine = Engine(lambda engine, batch: None)
        ResumeHandler(tmp_path, "fit", {"network": network, "trainer": engine}).attach(engine)
        engine.add_event_handler(Events.EPOCH_STARTED(once=stop + 1), engine.terminate)
        engine.run([0], max_epochs=5)
    assert names(tmp_path) == ["fit_checkpoint_epoch=4.pt", "fit_checkpoint_epoch=5.pt"]


def test_a_table_of_a_run_that_fails_is_the_older_one(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    for fails in (False, True):

        def step(engine: Engine, batch: object, fails: bool = fails) -> dict[str, torch.Tensor]:
            if fails and engine.state.iteration == 2:
                raise RuntimeError("on the way")
            return {"pred": torch.tensor([[2.0, 0.0]])}

        engine = Engine(step)  # type: ignore[arg-type]
        engine.logger.setLevel("CRITICAL")
        ProbabilityWriter(path, ["a", "b"]).attach(engine)
        batches = [{"file": [f"{n}{fails}.png"]} for n in range(2)]
        if fails:
            with pytest.raises(RuntimeError, match="on the way"):
                engine.run(batches)
        else:
            engine.run(batches)
    assert (
        path.read_bytes()
        == b"file,prediction,a,b\r\n0False.png,a,0.880797,0.119203\r\n1False.png,a,0.880797,0.119203\r\n"
    )
    assert names(tmp_path) == ["predictions.csv"]


def test_a_folder_of_checkpoints_that_is_a_file_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a")
    engine = Engine(lambda engine, batch: None)
    engine.logger.setLevel("CRITICAL")
    ResumeHandler(tmp_path / "file", "fit", {"network": nn.Linear(1, 1)}).attach(engine)
    with pytest.raises(OutputError, match=r"^fit_checkpoint_epoch=1.pt: .* found (Not a directory|File exists)$"):
        engine.run([0], max_epochs=1)
