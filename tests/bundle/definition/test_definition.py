"""A definition travels with weights: it is written once, read everywhere, contradicted nowhere, and runs nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from monai.networks.nets import DenseNet
from monai.transforms import Compose
from torch import nn

from monai_medmerge import SettingError
from monai_medmerge.bundle import find_head, load_weights, read_definition
from monai_medmerge.bundle.definition.document import Definition, read_one
from monai_medmerge.bundle.definition.networks import NetworkDef, build_network, check_targets, describe
from monai_medmerge.bundle.definition.steps import for_keys, plain_steps, same_steps
from monai_medmerge.errors import DatasetError, IncompatibleSourcesError, causes

NETWORK = {"_target_": "DenseNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 2, "init_features": 4}
STEPS: list[dict[str, Any]] = [
    {"_target_": "LoadImaged", "keys": ["image", "label"], "reader": "monai_medmerge.transforms.MedicalImageReader"},
    {"_target_": "EnsureChannelFirstd", "keys": ["image", "label"]},
    {"_target_": "Spacingd", "keys": ["image", "label"], "pixdim": [1.0, 1.0], "mode": ["bilinear", "nearest"]},
    {"_target_": "NormalizeIntensityd", "keys": "image"},
]
SYSTEM = {"_target_": "os.system", "command": "touch MARK"}
READER = {"reader": "os.system", "command": "touch MARK"}
OWN = """
import torch
class Net(torch.nn.Module):
    def __init__(self, classes, width=4):
        super().__init__()
        self.features = torch.nn.Conv2d(1, width, 3)
        self.head = torch.nn.Linear(width, classes)
    def forward(self, image):
        return self.head(self.features(image).mean((2, 3)))
"""


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that a test names is remembered in the test's folder."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def definition(**changes: Any) -> Definition:
    content: dict[str, Any] = {
        "task": "classification", "class_names": ("a", "b"), "network_def": NetworkDef(NETWORK),
        "preprocessing": tuple(STEPS), "activation": "softmax",
    }  # fmt: skip
    return Definition(**{**content, **changes})


def asked(file: Path, config: dict[str, Any], wanted: str) -> Any:
    """What a configuration makes of an id, when its definition comes from beside some weights."""
    content = {
        "imports": ["$import monai_medmerge", "$import monai_medmerge.bundle"], "ckpt": str(file),
        "definition": "$monai_medmerge.bundle.read_definition(@ckpt)",
        "network_def": "$@definition.network()", "preprocessing": "$@definition.transforms('image')",
        "class_names": "$@definition.names()",
    }  # fmt: skip
    return ConfigParser({**content, **config}).get_parsed_content(wanted)


def make_all(file: Path) -> None:
    found = read_one(file)
    found.transforms()
    found.network()


def last_line(error: BaseException) -> str:
    return str([*causes(error)][-1])


def test_what_is_written_is_read_and_made(tmp_path: Path) -> None:
    definition().write(tmp_path)
    found = read_one(tmp_path / "model.json")
    assert found.sha256 == definition().sha256
    assert isinstance(found.network(), DenseNet)
    assert [type(step).__name__ for step in found.transforms()] == [
        "LoadImaged", "EnsureChannelFirstd", "Spacingd", "NormalizeIntensityd",
    ]  # fmt: skip
    # MONAI's own parser reads it.
    parser = ConfigParser()
    parser.read_config(tmp_path / "model.json")
    assert isinstance(parser.get_parsed_content("network_def"), DenseNet)
    assert isinstance(Compose(parser.get_parsed_content("preprocessing")), Compose)


def test_a_configuration_takes_everything_from_beside_the_weights(tmp_path: Path) -> None:
    definition().write(tmp_path)
    assert isinstance(asked(tmp_path / "other.pt", {}, "network_def"), DenseNet)
    assert asked(tmp_path / "other.pt", {}, "class_names") == ["a", "b"]
    # An override that says the same in other words is no contradiction.
    same = {**NETWORK, "_target_": "monai.networks.nets.DenseNet", "out_channels": "$len(@class_names)"}
    assert asked(tmp_path / "model.pt", {"network_def": same}, "definition").class_names == ("a", "b")
    assert asked(tmp_path / "model.pt", {"preprocessing": for_keys(STEPS, "image")}, "definition").task


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"network_def": {**NETWORK, "init_features": 8}}, "init_features=4.*found DenseNet.*init_features=8"),
        ({"preprocessing": for_keys(STEPS[:3], "image")}, "the preprocessing that model.pt was trained with"),
        ({"class_names": ["b", "a"]}, "expected a, b, found b, a"),
    ],
)
def test_a_contradiction_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    definition().write(tmp_path)
    with pytest.raises(Exception, match="definition") as caught:
        asked(tmp_path / "model.pt", change, "definition")
    assert re.search(words, last_line(caught.value))


def test_weights_without_a_definition_are_asked_for_it(tmp_path: Path) -> None:
    found = read_definition(tmp_path / "model.pt")
    for question in (found.network, found.transforms, found.answers, found.names, found.window):
        with pytest.raises(SettingError, match=r"model\.pt: expected .*, or a model\.json beside the weights"):
            question()
    with pytest.raises(SettingError, match=r"model\.json beside"):
        found.write(tmp_path)


def test_two_weights_must_be_of_one_definition(tmp_path: Path) -> None:
    definition().write(tmp_path / "one")
    definition(class_names=("b", "a")).write(tmp_path / "two")
    with pytest.raises(SettingError, match="class_names"):
        read_definition(tmp_path / "one" / "model.pt", tmp_path / "two" / "model.pt")
    with pytest.raises(SettingError, match=r"class_names: expected .*'b', 'a'.*"):
        definition().write(tmp_path / "two")


def test_classes_of_the_data_must_be_those_of_the_weights(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"class_names": ["b", "a"]}))
    with pytest.raises(DatasetError, match="a, b, found b, a"):
        definition().names(tmp_path)
    assert definition().names(tmp_path / "absent") == ["a", "b"]


def test_other_data_makes_another_definition(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = definition(codes={"b": "of b"})
    assert first.for_data(tmp_path / "absent") is first
    (tmp_path / "dataset.json").write_text(json.dumps({"class_names": ["c", "d", "e"]}))
    second = first.for_data(tmp_path)
    assert (second.class_names, second.codes) == (("c", "d", "e"), {})
    network, weights = second.network(), tmp_path / "old.pt"
    old = first.network().state_dict()
    torch.save(old, weights)
    # The head is new, all else is loaded.
    with pytest.raises(IncompatibleSourcesError):
        load_weights(network, weights)
    load_weights(network, weights, find_head(network, 3))
    assert "learned anew" in caplog.text
    assert torch.equal(network.state_dict()["features.conv0.weight"], old["features.conv0.weight"])
    assert network.eval()(torch.zeros(1, 1, 32, 32)).shape == (1, 3)
    # Beside weights of the first, those of the second have a definition of their own name.
    first.write(tmp_path)
    with pytest.raises(SettingError, match="out_channels"):
        second.write(tmp_path)
    second.write(tmp_path, ["new.pt"])
    assert read_definition(tmp_path / "new.pt").names() == ["c", "d", "e"]
    assert read_definition(weights).names() == ["a", "b"]
    unknown = definition(network_def=NetworkDef({"_target_": "torch.nn.Linear", "in_features": 2, "bias": True}))
    with pytest.raises(SettingError, match=r"network_def: expected one argument of num_classes.* that is 2"):
        unknown.for_data(tmp_path)


@pytest.mark.parametrize(
    "planted",
    [
        {"network_def": SYSTEM},
        {"network_def": {"_target_": "DenseNet", "spatial_dims": "$__import__('os').system('touch MARK')"}},
        {
            "network_def": {
                "_target_": "torch.nn.Sequential",
                "args": {"_target_": "os.system", "command": "touch MARK"},
            }
        },
        {
            "preprocessing": [
                {"_target_": "LoadImaged", "keys": "image", "reader": "os.system", "command": "touch MARK"}
            ]
        },
        {"preprocessing": [{"_target_": "SaveImaged", "keys": "image"}]},
        {"preprocessing": [{"_target_": "Lambdad", "keys": "image", "func": "$lambda x: x"}]},
        {"preprocessing": [{"_target_": "monai.bundle.run", "keys": "image"}]},
        {"code": {"../../evil.py": "0" * 64}},
    ],
)
def test_nothing_that_a_definition_says_is_run(
    tmp_path: Path, planted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps({**definition().as_dict(), **planted}))
    with pytest.raises(SettingError):
        make_all(tmp_path / "model.json")
    assert not (tmp_path / "MARK").exists()


def test_code_that_only_came_along_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    made = describe(f"{tmp_path / 'mine.py'}::Net(3, width=5)")
    assert made.config == {"_target_": "scripts.mine.Net", "classes": 3, "width": 5}
    definition(network_def=made).write(tmp_path / "run")
    found = read_one(tmp_path / "run" / "model.json")
    assert found.network()(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
    # Somebody else's machine has never been told of it.
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))
    with pytest.raises(SettingError, match=r"mine\.py: expected code that you have named yourself"):
        found.network()
    (tmp_path / "run" / "scripts" / "mine.py").write_text(OWN + "# changed\n")
    with pytest.raises(SettingError, match="another content"):
        read_one(tmp_path / "run" / "model.json")


def test_own_code_that_needs_other_files_or_has_no_such_class_is_told(tmp_path: Path) -> None:
    (tmp_path / "needy.py").write_text("import beside_me\n")
    with pytest.raises(SettingError, match=r"needy\.py: expected code that runs by itself.*beside_me"):
        build_network(f"{tmp_path / 'needy.py'}::Net()")
    (tmp_path / "mine.py").write_text(OWN)
    for wrong, words in (("Nets()", "named Nets"), ("Net(4, 5, 6)", "arguments"), ("torch", "another thing")):
        with pytest.raises(SettingError, match=words):
            build_network(f"{tmp_path / 'mine.py'}::{wrong}")
    for wrong in ("open('MARK', 'w')", "[print(1)]", "{[]: 1}", "1 + 'a'", "f'{1}'"):
        with pytest.raises(
            SettingError, match=r"^Net: expected arguments that are plain numbers, texts and lists, found "
        ):
            build_network(f"{tmp_path / 'mine.py'}::Net(classes={wrong})")
    with pytest.raises(SettingError, match="none of that name"):
        build_network(f"{tmp_path / 'absent.py'}::Net()")


def test_steps_lose_labels_and_keep_what_images_need() -> None:
    assert for_keys(STEPS, "image")[2]["mode"] == "bilinear"
    assert for_keys(STEPS, "label")[-1]["mode"] == "nearest"
    assert same_steps(STEPS, for_keys(STEPS, "image"))
    assert not same_steps(STEPS, STEPS[:2])
    with pytest.raises(SettingError, match=r"preprocessing::0::func: expected plain data"):
        plain_steps([{"_target_": "Lambdad", "keys": "image", "func": "$lambda x: x"}])


def test_the_head_is_found_or_asked_for() -> None:
    assert find_head(DenseNet(2, 1, 3, block_config=(2,)), 3) == ["class_layers.out.*"]
    early = nn.ModuleDict({"head": nn.Linear(8, 3), "body": nn.Conv2d(1, 8, 3)})
    assert find_head(early, 3) == ["head.*"]
    several = nn.ModuleDict({"one": nn.Linear(8, 3), "two": nn.Linear(8, 3), "body": nn.Linear(4, 8)})
    with pytest.raises(SettingError, match=r"candidates: one \(3\), two \(3\)"):
        find_head(several, 3)
    with pytest.raises(SettingError, match=r"2 outputs.*candidates: one \(3\), two \(3\), body \(8\)"):
        find_head(several, 2)
    assert find_head(several, 2, ["one.*"]) == ["one.*"]
    with pytest.raises(SettingError, match=r"head: expected a pattern of .*'fc\.\*'; candidates: one \(3\)"):
        find_head(several, 2, ["one.*", "fc.*"])


def test_targets_are_networks_and_transforms() -> None:
    check_targets({"_target_": "UNet", "act": ["prelu", {"init": 0.2}]}, "network_def")
    with pytest.raises(SettingError, match="a network or a transform"):
        check_targets([{"_target_": "subprocess.Popen"}], "preprocessing")
