"""Options of a training as clients send them: words and digits for truths and numbers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from monai_medmerge import SettingError

pytest.importorskip("monailabel", reason="MONAI Label has an environment of its own: make test-label")
from monailabel.datastore.local import LocalDatastore

from monai_medmerge.label.train import MedMergeTrainTask

Files = tuple[dict[str, Path], dict[str, Path]]


@pytest.fixture
def task(bundles: dict[str, Path], tmp_path: Path) -> MedMergeTrainTask:
    return MedMergeTrainTask(shutil.copytree(bundles["blocks"], str(tmp_path / "bundle")), {})


@pytest.fixture
def studies(volumes: Files, tmp_path: Path) -> LocalDatastore:
    (tmp_path / "studies").mkdir()
    names = list(volumes[0])[:3]
    for name in names:
        shutil.copy(volumes[0][name], tmp_path / "studies")
    datastore = LocalDatastore(str(tmp_path / "studies"))
    for name in names:
        datastore.save_label(name, str(volumes[1][name]), "final", {})
    return datastore


def test_words_and_digits_are_understood(task: MedMergeTrainTask, studies: LocalDatastore) -> None:
    request = {"device": "cpu", "merge": "false", "pretrained": "False", "max_epochs": "1", "val_split": "0.4"}
    done = task(request, studies)
    assert done["start"] == "as train.json has it"
    assert len(done["loss"]) == done["max_epochs"] == 1


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("merge", "perhaps", "merge: expected true or false"),
        ("pretrained", 2, "pretrained: expected true or false"),
        ("max_epochs", "many", "max_epochs: expected a number"),
        ("val_split", None, "val_split: expected a number"),
    ],
)
def test_other_words_are_refused(
    task: MedMergeTrainTask, studies: LocalDatastore, option: str, value: Any, expected: str
) -> None:
    with pytest.raises(SettingError, match=expected):
        task({"device": "cpu", option: value}, studies)
