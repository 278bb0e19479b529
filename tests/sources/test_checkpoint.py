"""Reading checkpoints of every form, and refusing what is damaged or means harm."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.networks.nets import UNet
from safetensors.torch import save_file
from torch import nn

from monai_medmerge import SettingError, Source, UnsafeCheckpointError
from monai_medmerge.sources import load_sources


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


def same(source: Source, state: dict[str, torch.Tensor]) -> bool:
    return set(source.tensors) == set(state) and all(torch.equal(source.tensors[k], v) for k, v in state.items())


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("wrap", ["", "state_dict", "model", "network", "net", "state_dict.model"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_every_form_of_a_torch_checkpoint(tmp_path: Path, wrap: str, prefix: str, legacy: bool) -> None:
    state = network().state_dict()
    content: object = {prefix + key: value for key, value in state.items()}
    for key in reversed(wrap.split(".") if wrap else []):
        content = {"epoch": 3, "best_metric": torch.tensor(0.5), "optimizer": {"state": {}}, key: content}
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
    source = Source.from_file(tmp_path / "a.pt")
    assert same(source, state)
    assert source.name == "a"
    assert source.sha256 == Source("other name", state).sha256
    assert source.provenance.get("nested_under", "") == wrap


def test_a_prefix_that_is_the_networks_own_stays(tmp_path: Path) -> None:
    state = UNet(2, 1, 2, (4, 8), (2,)).state_dict()
    assert all(key.startswith("model.") for key in state)
    torch.save(state, tmp_path / "unet.pt")
    assert same(Source.from_file(tmp_path / "unet.pt"), state)


def test_safetensors_bundles_and_shards(tmp_path: Path) -> None:
    state = network().state_dict()
    bundle = tmp_path / "my_bundle"
    (bundle / "models").mkdir(parents=True)
    torch.save(state, bundle / "models" / "model.pt")
    save_file(state, tmp_path / "b.safetensors", {"licence": "CC BY 4.0"})
    names = sorted(state)
    shards = {"model-1.safetensors": names[:3], "model-2.safetensors": names[3:]}
    for file, held in shards.items():
        save_file({name: state[name] for name in held}, tmp_path / file)
    index = {"weight_map": {name: file for file, held in shards.items() for name in held}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    found = [Source.from_file(tmp_path / n) for n in ("b.safetensors", "my_bundle", "model.safetensors.index.json")]
    assert all(same(source, state) for source in found)
    assert [source.name for source in found] == ["b", "my_bundle", "model"]
    # What a file says of itself stays apart from what was done to it.
    metadata = [source.provenance.get("metadata") for source in found]
    assert metadata == [{"licence": "CC BY 4.0"}, None, None]
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(UnsafeCheckpointError, match=r"model-2\.safetensors"):
        Source.from_file(tmp_path / "model.safetensors.index.json")
    index["weight_map"][names[0]] = "../outside.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UnsafeCheckpointError, match="plain file name"):
        Source.from_file(tmp_path / "model.safetensors.index.json")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="asks Linux what is mapped")
def test_large_tensors_stay_on_disk(tmp_path: Path) -> None:
    state = {"weight": torch.zeros(64, 2**16)}
    torch.save(state, tmp_path / "a.pt")
    save_file(state, tmp_path / "b.safetensors")
    for path in (tmp_path / "a.pt", tmp_path / "b.safetensors"):
        source = Source.from_file(path)
        address = source.tensors["weight"].data_ptr()
        ranges = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
        mapped = [
            entry[-1]
            for entry in ranges
            if int(entry[0].split("-")[0], 16) <= address < int(entry[0].split("-")[1], 16)
        ]
        assert mapped == [str(path)]


def test_a_source_is_read_only_and_hashes_its_content() -> None:
    source = Source("a", {"x": torch.ones(2), "n": torch.tensor(3)}, {"k": 1})
    with pytest.raises(TypeError):
        source.tensors["x"] = torch.zeros(2)  # type: ignore[index]
    hashes = {
        source.sha256,
        Source("a", {"x": torch.ones(2), "n": torch.tensor(4)}).sha256,
        Source("a", {"y": torch.ones(2), "n": torch.tensor(3)}).sha256,
        Source("a", {"x": torch.ones(2, 1), "n": torch.tensor(3)}).sha256,
        Source("a", {"x": torch.ones(2).double(), "n": torch.tensor(3)}).sha256,
    }
    assert len(hashes) == 5
    assert Source("b", {"n": torch.tensor(3), "x": torch.ones(4)[::2]}).sha256 == source.sha256


class Plant:
    """Pickled, it would write a file when it is loaded."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, (f"open({self.marker!r}, 'w').close()",)


def harmful(folder: Path) -> dict[str, Path]:
    """A file for each way to mean harm or to be damaged."""
    good, plant = network().state_dict(), Plant(str(folder / "marker"))
    files = {name: folder / f"{name}.pt" for name in ("zip", "legacy", "module", "outside", "compressed")}
    torch.save({"state_dict": good, "extra": plant}, files["zip"])
    torch.save({"state_dict": good, "extra": plant}, files["legacy"], _use_new_zipfile_serialization=False)
    torch.save(network(), files["module"])
    whole = io.BytesIO()
    torch.save(good, whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(files["outside"], "w") as target:
        for member in source.infolist():
            target.writestr(member.filename, source.read(member))
        target.writestr("../../outside.txt", "x")
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(files["compressed"], "w", zipfile.ZIP_DEFLATED) as target:
        for member in source.infolist():
            target.writestr(member.filename, source.read(member))
    (folder / "plain.pt").write_bytes(pickle.dumps(plant))
    (folder / "empty.pt").touch()
    (folder / "text.pt").write_text("not a checkpoint")
    (folder / "numbers.npz.pt").write_bytes(np.arange(10).tobytes())
    torch.save({"lr": 0.1, "names": ["a"]}, folder / "nothing.pt")
    torch.save(torch.zeros(3), folder / "bare.pt")
    for name, value in [("nan", float("nan")), ("inf", float("inf"))]:
        torch.save({**good, "0.weight": good["0.weight"] * value}, folder / f"{name}.pt")
    torch.save({"z": torch.zeros(2, dtype=torch.complex64)}, folder / "complex.pt")
    torch.save({"s": torch.eye(3).to_sparse()}, folder / "sparse.pt")
    (folder / "index.safetensors.index.json").write_text('{"weight_map": ["a"]}')
    (folder / "other.txt").write_text("x")
    return {path.name: path for path in folder.iterdir()} | {"absent.pt": folder / "absent.pt"}


def test_harm_and_damage_are_refused_by_name_and_nothing_runs(tmp_path: Path) -> None:
    for name, path in harmful(tmp_path).items():
        with pytest.raises(UnsafeCheckpointError) as caught:
            Source.from_file(path)
        assert path.name.split(".")[0] in str(caught.value), name
        assert "weights_only=False" not in str(caught.value), name
    assert not (tmp_path / "marker").exists()
    assert not (tmp_path.parent / "outside.txt").exists()


def test_zero_dimensional_and_integer_tensors_are_read(tmp_path: Path) -> None:
    state = {"scale": torch.tensor(2.0), "steps": torch.tensor(3), "half": torch.ones(2, dtype=torch.bfloat16)}
    save_file(state, tmp_path / "a.safetensors")
    assert same(Source.from_file(tmp_path / "a.safetensors"), state)


FUZZER = """
import random, sys
from pathlib import Path
import torch
from monai_medmerge import MedMergeError, Source

folder, seed, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
rng = random.Random(seed)
originals = sorted(path for path in folder.iterdir() if path.is_file())
truth = {name: tensor for name, tensor in Source.from_file(folder / "zip.pt").tensors.items()}
read = refused = 0
for number in range(count):
    original = rng.choice(originals)
    data = bytearray(original.read_bytes())
    for _ in range(rng.choice([1, 1, 2, 8])):
        kind, at = rng.randrange(5), rng.randrange(len(data) or 1)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data = data[:at]
        elif kind == 2:
            data[at:at] = rng.randbytes(rng.randrange(1, 20))
        elif kind == 3:
            data[at:at + rng.randrange(1, 40)] = b""
        else:
            span = rng.randrange(1, 9)
            data[at:at + span] = bytes([rng.choice([0, 255])]) * span
        if not data:
            break
    changed = folder / "changed" / original.name
    changed.write_bytes(bytes(data))
    try:
        source = Source.from_file(changed)
    except MedMergeError:
        refused += 1
        continue
    read += 1
    assert all(torch.isfinite(t).all() for t in source.tensors.values() if t.is_floating_point())
    if original.name == "zip.pt":
        # A torch archive has checksums: what is read has the very numbers that were saved.
        for name, tensor in source.tensors.items():
            assert name in truth and torch.equal(tensor, truth[name]), (number, name)
print(read, refused)
"""


def test_a_thousand_damaged_checkpoints_are_read_right_or_refused(tmp_path: Path) -> None:
    state = network().state_dict()
    torch.save(state, tmp_path / "zip.pt")
    torch.save(state, tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "plain.safetensors")
    (tmp_path / "changed").mkdir()
    # In a process of its own, so that a crash of native code would be seen as one.
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FUZZER, str(tmp_path), "0", "1000"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    read, refused = map(int, done.stdout.split())
    assert read + refused == 1000
    assert refused > 500
    assert read > 20


@pytest.mark.parametrize("prefix", ["_orig_mod.module.", "module._orig_mod.", "module.module."])
def test_wrappers_inside_of_wrappers_are_taken_off(prefix: str, tmp_path: Path) -> None:
    torch.save({f"{prefix}weight": torch.ones(1), f"{prefix}bias": torch.ones(1)}, tmp_path / "a.pt")
    source = Source.from_file(tmp_path / "a.pt")
    assert sorted(source.tensors) == ["bias", "weight"]
    assert source.provenance["prefix_removed"] == prefix


def test_a_small_file_asks_for_no_large_memory(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(1).expand(10**13)}, tmp_path / "bomb.pt")
    with pytest.raises(UnsafeCheckpointError, match=r"bomb.pt, weight: .*10,000,000,000,000 numbers on 4 bytes"):
        Source.from_file(tmp_path / "bomb.pt")


def test_what_is_left_aside_is_told(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(1), 0: torch.ones(1), "epoch": 3}, tmp_path / "a.pt")
    assert Source.from_file(tmp_path / "a.pt").provenance["ignored"] == ["0", "epoch"]


def test_sources_of_one_file_name_are_told_apart(tmp_path: Path) -> None:
    for folder in ("chest", "brain"):
        (tmp_path / folder).mkdir()
        for version in ("v1.2", "v1.3"):
            torch.save({"weight": torch.ones(1)}, tmp_path / folder / f"{version}.pt")
    chest, brain = tmp_path / "chest", tmp_path / "brain"
    names = [source.name for source in load_sources([chest / "v1.2.pt", chest / "v1.3.pt"])]
    assert names == ["v1.2", "v1.3"]
    names = [source.name for source in load_sources([chest / "v1.2.pt", brain / "v1.2.pt"])]
    assert names == ["chest/v1.2", "brain/v1.2"]
    assert [source.name for source in load_sources({"a": brain / "v1.2.pt"})] == ["a"]


def test_the_folder_that_one_stands_in_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "chest" / "models").mkdir(parents=True)
    torch.save({"weight": torch.ones(1)}, tmp_path / "chest" / "models" / "model.pt")
    monkeypatch.chdir(tmp_path / "chest" / "models")
    assert [source.name for source in load_sources("..")] == ["chest"]
    monkeypatch.chdir(tmp_path / "chest")
    (source,) = load_sources(Path())
    assert (source.name, source.provenance["bundle"]) == ("chest", "chest")


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        ([], "sources: .*none"), ({}, "sources: .*none"), (None, "sources: .*none"), (3, "sources: .*an? int"),
        (["a.pt", 3], r"sources\[1\]: .*an? int"), ([None], r"sources\[0\]: .*None"), ("", r"sources\[0\]: .*''"),
        ({"a": ["b.pt"]}, r"sources\[0\]: .*a list"),
    ],
)  # fmt: skip
def test_sources_that_are_no_paths_are_refused(paths: Any, found: str) -> None:
    with pytest.raises(SettingError, match=found):
        load_sources(paths)
