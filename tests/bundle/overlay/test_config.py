"""How the overlay finds the trainer of a configuration."""

from __future__ import annotations

from typing import Any

import pytest
from monai.bundle import ConfigParser

from monai_medmerge import SettingError
from monai_medmerge.bundle.overlay.config import find_trainer


def component(**more: Any) -> dict[str, Any]:
    return {"_target_": "SupervisedTrainer", "max_epochs": 1, **more}


@pytest.mark.parametrize(
    ("config", "run_id", "expected"),
    [
        ({"train": {"trainer": component()}, "run": ["$@train#trainer.run()"]}, "run", "train::trainer"),
        ({"trainer": component(), "training": ["$import x", "$@trainer.run()"]}, "training", "trainer"),
        ({"first": component(), "trainer": component(), "run": "$@first.run()"}, "run", "first"),
        ({"trainer": "@train#trainer", "train": {"trainer": component()}, "run": ["$@trainer.run()"]}, "run",
         "train::trainer"),
        ({"train": {"trainer": "$make()"}, "run": ["$go(@train::trainer)"]}, "run", "train::trainer"),
        ({"validate": {"evaluator": {"_target_": "E"}}, "train": {"trainer": component()},
          "run": ["$@validate#evaluator.run()", "$@train#trainer.run()"]}, "run", "train::trainer"),
    ],
)  # fmt: skip
def test_the_trainer_is_found(config: dict[str, Any], run_id: str, expected: str) -> None:
    assert find_trainer(ConfigParser(config), run_id) == expected


def test_a_configuration_without_trainer_says_what_to_add() -> None:
    with pytest.raises(SettingError, match=r"train::trainer or trainer.*--medmerge::trainer_id.*engines::gan"):
        find_trainer(ConfigParser({"engines": {"gan": component()}, "run": ["$print()"]}), "run")
