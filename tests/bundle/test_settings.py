"""Options that do not exist are refused by name, and a refusal is one line, with a status of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from monai_medmerge import SettingError
from monai_medmerge.bundle.settings import refuse_unknown, unused

BUNDLES = Path(__file__).parents[2] / "bundles"
RUN = {"evaluate", "inference", "merge", "train", "verify"}
CONFIGURATIONS = sorted(file for file in BUNDLES.glob("medmerge_*/configs/*.json") if file.stem in RUN)
Command = Callable[..., list[str]]


def content(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def of_several_processes() -> Mapping[str, Any]:
    for folder in sorted({file.parent for file in CONFIGURATIONS}):
        yield {**content(folder / "merge.json"), **content(folder / "multi_gpu_train.json")}


@pytest.mark.parametrize("file", CONFIGURATIONS, ids=lambda file: f"{file.parts[-3]}-{file.stem}")
def test_every_setting_of_ours_is_used_and_another_is_refused(file: Path) -> None:
    settings = content(file)
    assert unused(settings) == []
    assert any("check_settings(@verbose)" in text for text in settings["initialize"])
    with pytest.raises(SettingError, match=r"^patients: expected a setting of this configuration"):
        refuse_unknown({**settings, "patients": "x.csv"})
    with pytest.raises(SettingError, match="the nearest is device"):
        refuse_unknown({**settings, "devise": "cpu"})
    with pytest.raises(SettingError, match=r"^epoch"):
        refuse_unknown({**settings, "epoch": "$3"})


def test_several_processes_use_what_they_set() -> None:
    assert [unused(settings) for settings in of_several_processes()] == [[], []]


def run(command: list[str]) -> tuple[int, str]:
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    return ended.returncode, ended.stderr + ended.stdout


def test_a_refusal_is_one_line(bundle_command: Command, tmp_path: Path) -> None:
    status, log = run(bundle_command("merge", output_dir=tmp_path, finetune_epoch=3))
    assert status == 2
    assert "error: finetune_epoch: expected a setting of this configuration" in log
    assert "the nearest is finetune_epochs" in log
    assert "Traceback" not in log
    assert not any(tmp_path.iterdir())


def test_what_breaks_is_no_result_of_a_verification(bundle_command: Command, tmp_path: Path) -> None:
    # 1 means that the candidate has failed.
    status, log = run(bundle_command("verify", reference="a.pt", output_dir=tmp_path, seed="$1 / 0"))
    assert status == 2
    assert "Traceback" not in log
    status, log = run(bundle_command("verify", reference="a.pt", output_dir=tmp_path, device="$1 / 0", verbose=True))
    assert status == 2
    assert "Traceback" in log
