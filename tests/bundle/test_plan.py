"""The plan of an alignment: what moves, what stays, and what matching gains, before anything is merged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from variants import build, example

from monai_medmerge import Source
from monai_medmerge.__main__ import main
from monai_medmerge.bundle import align_sources
from monai_medmerge.bundle.planning import plan
from monai_medmerge.networks.alignment.permutation import channel_groups

VARIANT = "UNet-batch-2d"
NETWORK = (
    "UNet(spatial_dims=2, in_channels=1, out_channels=3, channels=(4, 8, 16), strides=(2, 2), num_res_units=1, "
    "norm='batch')"
)


def permuted_copy() -> dict[str, Tensor]:
    network = build(VARIANT, 1)
    groups = channel_groups(network, example(VARIANT))
    orders = [torch.arange(group.size).flip(0) for group in groups.groups]
    return groups.permute(network.state_dict(), orders)


def sources() -> list[Source]:
    return [Source.from_network(build(VARIANT, 1), "a"), Source("b", permuted_copy())]


def test_a_permuted_copy_is_said_to_be_found_again() -> None:
    network = build(VARIANT, 0)
    found = plan(network, sources(), example_input=example(VARIANT))
    assert found.alignment is not None
    assert list(found.alignment.sources) == ["b"]
    record = found.alignment.sources["b"]
    assert record["similarity_before"] < 0.9
    assert record["similarity_after"] == pytest.approx(1, abs=1e-5)
    # What the stage then does is what was planned.
    assert (
        align_sources(network, sources(), "weights", [{"image": example(VARIANT)}])[1].provenance["alignment"] == record
    )
    text = str(found)
    assert f"{len(found.alignment.groups.groups)} groups" in text
    assert "is an output of the network" in text
    assert "b to a by weights" in text
    assert "now 1.000" in text


def test_none_is_planned_without_an_example_or_for_what_does_not_fit() -> None:
    network = build(VARIANT, 0)
    assert plan(network, sources()).alignment is None
    other = Source.from_network(nn.Linear(2, 1), "other")
    found = plan(network, [*sources(), other], example_input=example(VARIANT))
    assert found.alignment is None
    assert "alignment" not in found.as_dict()


def test_the_command_prints_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(build(VARIANT, 1).state_dict(), tmp_path / "a.pt")
    torch.save(permuted_copy(), tmp_path / "b.pt")
    arguments = ["plan", "--network", NETWORK, "--source", str(tmp_path / "a.pt"), "--source", str(tmp_path / "b.pt")]
    assert main([*arguments, "--align", "weights", "--image", "1,32,32", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)["alignment"]
    assert planned["sources"]["b"]["similarity_after"] > planned["sources"]["b"]["similarity_before"]
    assert sum(group["channels"] for group in planned["groups"]) == planned["sources"]["b"]["channels"]
    assert {row["reason"] for row in planned["stays"]} == {"is an output of the network"}
    for wrong in (["--align", "weights"], ["--image", "1,32,32"], ["--align", "weights", "--image", "3,32,32"]):
        assert main([*arguments, *wrong]) == 2
        assert "--image" in capsys.readouterr().err


def test_the_stage_logs_what_matching_gained(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        align_sources(build(VARIANT, 0), sources(), "activations", [{"image": example(VARIANT)}])
    assert "b to a by activations" in caplog.text
    assert "mean correlation of channels" in caplog.text


def _renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names that nobody knows, and a tensor of the body of another shape."""
    named = {name.replace("0.", "stem/", 1) if name.startswith("0.") else name: t for name, t in state.items()}
    return {**named, "1.weight": torch.zeros(7)}


def test_plan_and_rank_take_other_names_and_leave_tensors_out(
    tmp_path: Path, phantoms: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\nclass Net(nn.Sequential):\n    def __init__(self):\n        super().__init__("
        "nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))\n",
        encoding="utf-8",
    )
    layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Identity(), nn.Identity(), nn.Linear(4, 3))
    torch.save(_renamed(layers.state_dict()), tmp_path / "other.pt")
    (tmp_path / "names.json").write_text('{"^stem/": "0."}', encoding="utf-8")
    given = ["--network", f"{tmp_path / 'net.py'}::Net()", "--source", str(tmp_path / "other.pt")]
    ranking = ["--data", str(phantoms), "--size", "16", "16", "--labels", "12"]
    named = ["--key-map", str(tmp_path / "names.json")]
    for command in (["plan", *given], ["rank", *given, *ranking]):
        assert main([*command, "--exclude", "1.weight"]) == 1
        assert "stem/" in capsys.readouterr().out
        assert main([*command, *named]) == 1
        assert "1.weight" in capsys.readouterr().out
        assert main([*command, *named, "--exclude", "1.weight"]) == 0, capsys.readouterr()
        capsys.readouterr()
        assert main([*command, "--key-map", str(tmp_path / "absent.json")]) == 2
        assert "absent.json" in capsys.readouterr().err
