"""The page "Your own network, your own images": its every command, as it stands there, in a user's folder."""

from __future__ import annotations

import csv
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import monai
import pytest
import tasks

from monai_medmerge.bundle.definition import networks
from monai_medmerge.bundle.definition.networks import build_network
from monai_medmerge.errors import SettingError

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs" / "own_network.md"
BUNDLE = REPOSITORY / "bundles" / "medmerge_classification"


def commands() -> list[list[str]]:
    lines = re.findall(r"^python -m .*$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [[word.replace("BUNDLE", str(BUNDLE)) for word in shlex.split(line)[2:]] for line in lines]


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's folder, which is where the commands are typed."""
    folder = tmp_path / "mine"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    tasks.write_task("own", folder)
    shutil.copytree(folder / "data" / "test", folder / "new_images")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    yield folder
    monai.utils.set_determinism(None)


def typed(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m MODULE ...` in this process, which has imported MONAI already."""
    monkeypatch.setattr(sys, "argv", command)
    with pytest.MonkeyPatch.context() as path:
        path.setattr(sys, "path", list(sys.path))
        status: object = 0
        try:
            runpy.run_module(command[0], run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            status = ended.code
        assert not status, command


def probabilities(file: Path, first: int) -> dict[str, list[float]]:
    rows = [row for row in csv.reader(file.read_text().splitlines()) if not row[-1].isalpha()]
    return {Path(row[0]).name: [float(value) for value in row[first:]] for row in rows}


def test_every_command_of_the_page(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    *here, last = commands()
    assert [command[0] for command in here].count("monai_medmerge") == 3
    for command in here:
        typed(command, monkeypatch)
    assert json.loads((user / "out" / "model.json").read_text())["network_def"]["_target_"] == "scripts.my_model.Net"
    results = json.loads((user / "out" / "evaluation.json").read_text())["test"]
    assert results == json.loads((user / "out" / "metrics.json").read_text())["stages"]["fine_tuned"] | {
        "parameters_trained": results["parameters_trained"]
    }
    # From anywhere: what the bundle was made of is gone, and another process knows nothing of it.
    for name in ("my_model.py", "chest.pt", "brain.pt"):
        (user / name).unlink()
    shutil.rmtree(user / "out")
    done = subprocess.run([sys.executable, "-m", *last], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    names = len(tasks.CASES["own"].names)
    before, after = (probabilities(user / name / "predictions.csv", -names) for name in ("before", "after"))
    assert set(before) == {path.name for path in (user / "new_images").iterdir()}
    assert set(after) == set(before)
    for name, expected in before.items():
        assert after[name] == pytest.approx(expected, abs=1e-5), name


@pytest.mark.parametrize(
    ("package", "text"),
    [
        ("torchvision", "torchvision.models.resnet18(num_classes=3)"),
        ("timm", "timm.create_model('resnet18', num_classes=3)"),
    ],
)
def test_networks_of_other_packages(package: str, text: str) -> None:
    pytest.importorskip(package)
    assert build_network(text).state_dict()["fc.weight"].shape[0] == 3
    with pytest.raises(SettingError, match="without weights"):
        build_network(text.replace("num_classes=3", "pretrained=True"))


FACTORY = """
from torch import nn

def small(num_classes, weights=None, **others):
    return nn.Linear(2, num_classes)
"""


def test_functions_that_make_networks_fetch_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "factory_of_networks.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SettingError, match="a class of networks, found a function"):
        build_network("factory_of_networks.small(num_classes=3)")
    monkeypatch.setattr(networks, "FACTORIES", ("factory_of_networks", "timm"))
    assert build_network("factory_of_networks.small(num_classes=3)").out_features == 3
    for wrong in ("weights='DEFAULT'", "pretrained=True", "model_name='hf-hub:somebody/something'"):
        with pytest.raises(SettingError, match="network_def: expected a network without weights"):
            build_network(f"factory_of_networks.small(num_classes=3, {wrong})")
