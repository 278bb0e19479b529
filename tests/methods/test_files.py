"""Streaming over files gives what merging in memory gives, bit for bit, whole or not at all."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from variants import build

from monai_medmerge.errors import IncompatibleSourcesError, SettingError, UnsafeCheckpointError
from monai_medmerge.methods import METHODS, Method, merge_files, merge_with
from monai_medmerge.methods.applying import mapped
from monai_medmerge.sources import Source

STREAMING = {name: known for name, known in METHODS.items() if known.streams}
VARIANT = "UNet-batch-2d"


def save(state: dict[str, Tensor], path: Path) -> Path:
    save_file({name: tensor.clone().contiguous() for name, tensor in state.items()}, path)
    return path


def save_sharded(state: dict[str, Tensor], folder: Path) -> Path:
    """The state dict over three files and an index, as large checkpoints are stored."""
    folder.mkdir()
    names, weight_map = list(state), {}
    for n in range(3):
        shard = f"model-{n + 1:05}-of-00003.safetensors"
        save({name: state[name] for name in names[n::3]}, folder / shard)
        weight_map |= dict.fromkeys(names[n::3], shard)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index


@pytest.fixture(scope="module")
def states() -> list[dict[str, Tensor]]:
    states = [build(VARIANT, n).state_dict() for n in range(1, 5)]
    for n, state in enumerate(states):
        counters = {name: torch.tensor(n) for name in state if name.endswith("num_batches_tracked")}
        assert counters
        state |= counters
    return states


@pytest.fixture(scope="module")
def paths(states: list[dict[str, Tensor]], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("sources")
    return [save(state, folder / f"s{n}.safetensors") for n, state in enumerate(states)]


def options_for(known: Method, count: int) -> dict[str, Any]:
    return {name: [1.0, 2.0, 3.0][:count] for name in known.per_source}


def same(path: Path, network: nn.Module) -> bool:
    stored, state = load_file(path), network.state_dict()
    return set(stored) == set(state) and all(
        torch.equal(stored[k], v) and stored[k].dtype == v.dtype for k, v in state.items()
    )


BASES = [
    (known, base) for known in STREAMING.values() for base in (None, "mean", "file") if not base or known.uses("base")
]


@pytest.mark.parametrize(("known", "base"), BASES, ids=lambda value: getattr(value, "name", value))
@pytest.mark.parametrize("most_mapped", [0, 2**30])
def test_bit_for_bit_as_in_memory(
    known: Method,
    base: str | None,
    most_mapped: int,
    paths: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Whether pages are given back after every tensor or never must not show.
    monkeypatch.setattr(mapped, "MOST_MAPPED", most_mapped)
    chosen = paths[: min(known.most or 3, 3)]
    shared: dict[str, Any] = {"anchor": 1, "statistics": "average"} | options_for(known, len(chosen))
    of_files = shared | ({} if base is None else {"base": paths[3] if base == "file" else base})
    in_memory = shared | ({} if base is None else {"base": Source.from_file(paths[3]) if base == "file" else base})
    output = merge_files(known.name, chosen, tmp_path / "merged.safetensors", **of_files)
    sources = [Source.from_file(path) for path in chosen]
    assert same(output, merge_with(known.name, build(VARIANT, 0), sources, **in_memory))


def test_sharded_files_are_read_as_whole_ones(
    paths: list[Path], states: list[dict[str, Tensor]], tmp_path: Path
) -> None:
    indexes = [save_sharded(state, tmp_path / f"sharded{n}") for n, state in enumerate(states)]
    whole = merge_files("ties", paths, tmp_path / "whole.safetensors")
    sharded = merge_files("ties", [*indexes[:2], *paths[2:]], tmp_path / "sharded.safetensors")
    a, b = load_file(whole), load_file(sharded)
    assert set(a) == set(b)
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_half_precision_and_every_kind_of_integer_survive(tmp_path: Path) -> None:
    kinds = [dtype for dtype in mapped.DTYPES.values() if not dtype.is_floating_point]
    state: dict[str, Tensor] = {f"i{n}": torch.tensor([0, 1, 1]).to(dtype) for n, dtype in enumerate(kinds)}
    state |= {"half": torch.randn(3).half(), "bf": torch.randn(2, 2).bfloat16(), "scalar": torch.tensor(2.0)}
    state |= {"double": torch.randn(5, dtype=torch.float64), "empty": torch.zeros(0, 4)}
    paths = [save(state, tmp_path / f"{n}.safetensors") for n in "ab"]
    stored = load_file(merge_files("uniform_average", paths, tmp_path / "merged.safetensors"))
    assert {k: (v.dtype, v.shape) for k, v in stored.items()} == {k: (v.dtype, v.shape) for k, v in state.items()}
    assert all(torch.equal(stored[name], tensor) for name, tensor in state.items())


def test_what_a_file_lacks_the_others_share(tmp_path: Path) -> None:
    a = save({"both": torch.zeros(2), "only_a": torch.ones(2)}, tmp_path / "a.safetensors")
    b = save({"both": torch.ones(2), "only_b": torch.full((3,), 5.0)}, tmp_path / "b.safetensors")
    stored = load_file(merge_files("uniform_average", [a, b], tmp_path / "merged.safetensors"))
    assert {name: tensor.tolist() for name, tensor in stored.items()} == {
        "both": [0.5, 0.5], "only_a": [1.0, 1.0], "only_b": [5.0, 5.0, 5.0]
    }  # fmt: skip


def test_heads_that_differ_have_to_be_excluded(tmp_path: Path) -> None:
    a = save({"w": torch.zeros(2), "fc.weight": torch.ones(2, 3)}, tmp_path / "a.safetensors")
    b = save({"w": torch.ones(2), "fc.weight": torch.ones(4, 3)}, tmp_path / "b.safetensors")
    output = tmp_path / "merged.safetensors"
    with pytest.raises(IncompatibleSourcesError, match=r"b\.safetensors, fc\.weight: .*\(2, 3\).*\(4, 3\)"):
        merge_files("uniform_average", [a, b], output)
    assert not output.exists()
    stored = load_file(merge_files("uniform_average", [a, b], output, exclude=["fc.*"], anchor=1))
    assert stored["fc.weight"].shape == (4, 3)
    assert torch.equal(stored["w"], torch.full((2,), 0.5))


def test_the_header_says_how_the_file_was_made(paths: list[Path], tmp_path: Path) -> None:
    output = merge_files("weighted_average", paths[:2], tmp_path / "merged.safetensors", weights=[1, 3])
    with safe_open(str(output), framework="pt") as file:
        made = json.loads(file.metadata()["monai_medmerge"])
    assert made["method"] == "weighted_average"
    assert made["sources"] == ["s0.safetensors", "s1.safetensors"]
    assert made["options"] == {"weights": [1, 3]}
    assert Source.from_file(output).tensors
    first = output.read_bytes()
    assert merge_files("weighted_average", paths[:2], output, weights=[1, 3]).read_bytes() == first


def test_the_output_may_replace_a_source(paths: list[Path], tmp_path: Path) -> None:
    copies = [Path(shutil.copy(path, tmp_path)) for path in paths[:2]]
    expected = load_file(merge_files("slerp", paths[:2], tmp_path / "other.safetensors"))
    stored = load_file(merge_files("slerp", copies, copies[0]))
    assert all(torch.equal(stored[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("name", "output", "found"),
    [("fisher", "m.safetensors", "only the weights"), ("greedy_soup", "m.safetensors", "only the weights"),
     ("slerp", "m.pt", r"the suffix '\.pt'")],
)  # fmt: skip
def test_methods_that_need_data_and_other_formats_are_refused(
    name: str, output: str, found: str, paths: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(SettingError, match=found):
        merge_files(name, paths[:2], tmp_path / output)


def damaged(kind: str, good: Path, folder: Path) -> Path:
    bad = folder / f"bad.{'pt' if kind == 'pickle' else 'safetensors'}"
    content = good.read_bytes()
    if kind == "cut":
        bad.write_bytes(content[: len(content) // 2])
    elif kind == "empty":
        bad.write_bytes(b"")
    elif kind == "noise":
        bad.write_bytes(bytes(range(256)) * 40)
    elif kind == "pickle":
        torch.save({"w": torch.zeros(1)}, bad)
    elif kind == "nan":
        state = load_file(good)
        next(v for v in state.values() if v.is_floating_point()).view(-1)[0] = float("nan")
        save(state, bad)
    return bad


@pytest.mark.parametrize("kind", ["absent", "empty", "cut", "noise", "pickle", "nan"])
def test_damaged_files_are_refused_by_name_and_nothing_is_left(kind: str, paths: list[Path], tmp_path: Path) -> None:
    bad = damaged(kind, paths[0], tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UnsafeCheckpointError, match=bad.name):
        merge_files("uniform_average", [paths[0], bad], tmp_path / "merged.safetensors")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("known", STREAMING.values(), ids=list(STREAMING))
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", [0, 1, 2])
def test_no_method_loses_a_value_that_is_not_finite(known: Method, value: float, where: int, tmp_path: Path) -> None:
    count, paths = known.most or 3, []
    for n in range(count):
        tensor = torch.randn(40, generator=torch.Generator().manual_seed(n))
        tensor[3] = value if n == where % count else 0.0
        paths.append(save({"weight": tensor}, tmp_path / f"s{n}.safetensors"))
    with pytest.raises(UnsafeCheckpointError, match=rf"s{where % count}\.safetensors, weight: expected finite"):
        merge_files(known.name, paths, tmp_path / "merged.safetensors", **options_for(known, count))
    assert len(list(tmp_path.iterdir())) == count


@pytest.mark.parametrize("shard", ["../s0.safetensors", "/etc/x.safetensors", 3, "absent.safetensors"])
def test_an_index_leads_nowhere_else(shard: object, paths: list[Path], tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": shard}}))
    with pytest.raises(UnsafeCheckpointError):
        merge_files("uniform_average", [paths[0], index], tmp_path / "merged.safetensors")


KILLED = """
import os, signal, sys
from monai_medmerge.methods import merge_files
from monai_medmerge.methods.applying import mapped

class Killed(mapped.MappedCheckpoints):
    def read(self, checkpoint, name):
        if name == "layer7":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(checkpoint, name)

import monai_medmerge.methods.applying.files as streaming
streaming.MappedCheckpoints = Killed
merge_files("uniform_average", sys.argv[1:3], sys.argv[3])
"""


def test_killed_in_the_middle_leaves_no_output(tmp_path: Path) -> None:
    state = {f"layer{n}": torch.full((64, 64), float(n)) for n in range(10)}
    paths = [save(state, tmp_path / f"{name}.safetensors") for name in "ab"]
    output = tmp_path / "merged.safetensors"
    process = subprocess.run([sys.executable, "-c", KILLED, *map(str, [*paths, output])], check=False)
    assert process.returncode == -signal.SIGKILL
    # It had begun to write, under another name.
    assert list(tmp_path.glob(".medmerge-*.part/merged.safetensors"))
    assert not output.exists()
    stored = load_file(merge_files("uniform_average", paths, output))
    assert all(torch.equal(stored[name], tensor) for name, tensor in state.items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors", "merged.safetensors"]


def test_one_pattern_may_be_given_as_text(paths: list[Path], tmp_path: Path) -> None:
    one, listed = (
        merge_files("uniform_average", paths, tmp_path / f"{n}.safetensors", exclude=exclude)
        for n, exclude in enumerate(("model.0.*", ["model.0.*"]))
    )
    assert one.read_bytes() == listed.read_bytes()
    same = {name: torch.equal(tensor, load_file(paths[0])[name]) for name, tensor in load_file(one).items()}
    assert {name for name, kept in same.items() if kept} >= {name for name in same if name.startswith("model.0.")}
    assert not all(same.values())


def test_files_without_a_common_name_are_refused(tmp_path: Path) -> None:
    first = save({"weight": torch.ones(2)}, tmp_path / "first.safetensors")
    second = save({"module.weight": torch.ones(2)}, tmp_path / "second.safetensors")
    with pytest.raises(IncompatibleSourcesError, match=r"second.safetensors: expected names of first.*module.weight"):
        merge_files("uniform_average", [first, second], tmp_path / "merged.safetensors")
