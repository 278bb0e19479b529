"""Checkpoints in the forms in which people have them: whole with the very numbers, or refused with what is wrong."""

from __future__ import annotations

import argparse
import collections
import copy
import datetime
import enum
import functools
import pathlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.networks.nets import DynUNet, ResNet
from safetensors.torch import save_model
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from monai_medmerge import Source, UnsafeCheckpointError, match
from monai_medmerge.sources import adapt, load_sources
from monai_medmerge.sources.filling import load_into

State = dict[str, Tensor]


def resnet(seed: int = 0, channels: int = 1, classes: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return ResNet("basic", [1, 1, 1, 1], [4, 8, 16, 32], 2, channels, conv1_t_size=3, num_classes=classes).eval()


def dynunet(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return DynUNet(2, 1, 2, [3, 3, 3], [1, 2, 2], [2, 2], filters=[4, 8, 16])


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    network = resnet(seed=1)
    for name, buffer in network.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 2)
    return network


@pytest.fixture
def state(trained: nn.Module) -> State:
    return dict(trained.state_dict())


@pytest.fixture
def average(state: State) -> State:
    return {name: value * 0.5 if value.is_floating_point() else value for name, value in state.items()}


def read(content: object, folder: Path, part: str | None = None) -> Source:
    torch.save(content, folder / "weights.pt")
    return Source.from_file(folder / "weights.pt", part=part)


def assert_whole(source: Source, state: State, target: nn.Module | None = None) -> None:
    """The network, filled, has the numbers of a state dict in every tensor."""
    target = resnet() if target is None else target
    report = match(target, [source])
    assert report.compatible, str(report)
    filled = load_into(target, source).state_dict()
    assert filled.keys() == state.keys()
    for name, tensor in filled.items():
        torch.testing.assert_close(tensor, state[name], msg=name)


def begun(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def around(level: str, part: str, state: State) -> State:
    return {name.replace(f"{part}.", f"{part}.{level}."): value for name, value in state.items()}


WRAPPED: dict[str, Callable[[State, State], Any]] = {
    **{
        f"{prefix}.": lambda s, _, prefix=prefix: begun(f"{prefix}.", s)
        for prefix in (
            "module", "_orig_mod", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module",
            "module._orig_mod", "backbone", "module.backbone", "model", "any_name_at_all",
        )
    },
    "AveragedModel": lambda s, _: {"n_averaged": torch.tensor(5), **begun("module.", s)},
    "momentum contrast": lambda s, a: {
        "state_dict": {**begun("encoder_q.", s), **begun("encoder_k.", a), "queue": torch.zeros(4, 4)}
    },
    "Lightning with a loss": lambda s, _: {"state_dict": {**begun("model.", s), "loss.weight": torch.ones(3)}},
    "a compiled part": lambda s, _: around("_orig_mod", "layer1", s),
    "a checkpointed block": lambda s, _: around("_checkpoint_wrapped_module", "layer2.0", s),
    "an unknown level around a part": lambda s, _: around("inner", "layer3", s),
}  # fmt: skip


@pytest.mark.parametrize("form", WRAPPED)
def test_levels_around_the_whole_or_a_part_are_taken_off(
    form: str, state: State, average: State, tmp_path: Path
) -> None:
    assert_whole(read(WRAPPED[form](state, average), tmp_path), state)


def test_a_wrapped_network_in_memory_is_filled_from_a_plain_file(state: State, tmp_path: Path) -> None:
    assert_whole(read(state, tmp_path), begun("module.", state), nn.DataParallel(resnet()))


@pytest.mark.parametrize("path", ["network_weights", "unet", "swa_state_dict", "state.model", "a.b.c.d", "module"])
def test_the_network_is_found_under_any_name(path: str, state: State, tmp_path: Path) -> None:
    content: object = state
    for name in reversed(path.split(".")):
        content = {name: content, "epoch": 3, "optimizer": {"state": {}, "param_groups": []}}
    source = read(content, tmp_path)
    assert_whole(source, state)
    assert source.provenance["nested_under"] == path


PAIRS: dict[str, Callable[[State, State], Any]] = {
    "two dictionaries": lambda t, s: {"student": begun("module.", s), "teacher": begun("module.", t)},
    "one dictionary": lambda t, s: {**begun("student.", s), **begun("teacher.", t)},
}


@pytest.mark.parametrize("form", PAIRS)
def test_of_teacher_and_student_one_has_to_be_named(form: str, state: State, average: State, tmp_path: Path) -> None:
    content = PAIRS[form](state, average)
    path = tmp_path / "weights.pt"
    try:
        reason = match(resnet(), [read(content, tmp_path)]).reasons[0]
    except UnsafeCheckpointError as error:
        reason = str(error)
    assert all(word in reason for word in ("student", "teacher", "part=", "FILE::"))
    assert_whole(Source.from_file(path, part="teacher"), state)
    assert_whole(Source.from_file(path, part="student"), average)
    both = load_sources([f"{path}::teacher", f"{path}::student"])
    assert_whole(both[0], state)
    assert_whole(both[1], average)
    assert len({source.name for source in both}) == 2
    with pytest.raises(UnsafeCheckpointError, match=r"critic.*(student.*teacher|teacher.*student)"):
        Source.from_file(path, part="critic")


def test_of_raw_and_averaged_the_raw_are_taken_and_a_line_says_so(state: State, average: State, tmp_path: Path) -> None:
    content = {"state_dict": state, "state_dict_ema": average}
    source = read(content, tmp_path)
    assert_whole(source, state)
    assert "state_dict_ema: part=" in str(match(resnet(), [source]))
    assert_whole(read(content, tmp_path, part="ema"), average)
    # Where there is nothing but the average, it is the network.
    assert_whole(read({"ema": average}, tmp_path), average)


class Stage(enum.Enum):
    TRAINED = 1


class History:
    def __init__(self) -> None:
        self.values = collections.deque([1.0, 2.0], maxlen=10)


EXTRAS = {
    "NumPy scalar": np.float64(0.5),
    "NumPy array": np.arange(3),
    "Namespace": argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("x")),
    "partial": functools.partial(int, base=2),
    "defaultdict": collections.defaultdict(list, {"a": [1]}),
    "date": datetime.datetime(2024, 1, 1),
    "enum": Stage.TRAINED,
    "object": History(),
    "set": {1, 2},
    "function": max,
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("extra", EXTRAS)
def test_what_else_is_pickled_keeps_no_tensor_from_being_read(
    extra: str, legacy: bool, state: State, tmp_path: Path
) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"model": state, "extra": EXTRAS[extra]}, path, _use_new_zipfile_serialization=not legacy)
    known = dict(torch._weights_only_unpickler._get_user_allowed_globals())
    assert_whole(Source.from_file(path), state)
    # The stand-ins are gone afterwards: other code of the process knows what it knew before.
    assert torch._weights_only_unpickler._get_user_allowed_globals() == known


PIECES: dict[str, Callable[[nn.Module], object]] = {
    "pruned": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
}


@pytest.mark.parametrize("form", PIECES)
def test_weights_in_pieces_are_computed(form: str, trained: nn.Module, state: State, tmp_path: Path) -> None:
    changed = copy.deepcopy(trained)
    layer = changed.get_submodule("layer1.0.conv1")
    PIECES[form](layer)
    changed.eval()
    expected = {**state, "layer1.0.conv1.weight": layer.weight.detach()}
    source = read(changed.state_dict(), tmp_path)
    assert_whole(source, expected)
    assert "1 tensors" in str(match(resnet(), [source]))


def without(module: str, state: State) -> State:
    return {name: value for name, value in state.items() if not name.startswith(f"{module}.")}


HOLES: dict[str, tuple[Callable[[State], State], list[str]]] = {
    "LoRA in place of a layer": (
        lambda s: {**without("layer3", s), "layer3.0.conv1.lora_A": torch.zeros(2, 2)},
        ["layer3.0.conv1.weight", "lora_A"],
    ),
    "LoRA beside all": (lambda s: {**s, "layer3.0.conv1.lora_A": torch.zeros(2, 2)}, ["lora_A"]),
    "a layer": (lambda s: without("layer2", s), ["layer2.0.conv1.weight"]),
    "the last layer but the head": (lambda s: without("layer4", s), ["layer4.0.conv1.weight"]),
    "a shortcut": (lambda s: without("layer2.0.downsample", s), ["layer2.0.downsample.0.weight"]),
    "a norm": (lambda s: without("layer2.0.bn1", s), ["layer2.0.bn1.weight"]),
    "a block of another version": (
        lambda s: {k.replace("layer2.0.conv", "layer2.0.c"): v for k, v in s.items()},
        ["layer2.0.conv1.weight", "there instead: layer2.0.c1.weight"],
    ),
    "a wider kernel": (
        lambda s: {**s, "conv1.weight": torch.cat([s["conv1.weight"]] * 2)}, ["conv1.weight is 8 x 1", "4 x 1"],
    ),
    "almost all": (lambda s: {"conv1.weight": s["conv1.weight"]}, ["absent"]),
    "all kernels": (lambda s: {k: v for k, v in s.items() if v.ndim < 2}, ["no weight of the network's"]),
}  # fmt: skip


@pytest.mark.parametrize("hole", HOLES)
def test_a_hole_in_the_body_is_no_fit_and_named(hole: str, state: State, tmp_path: Path) -> None:
    change, words = HOLES[hole]
    report = match(resnet(), [read(change(state), tmp_path)])
    assert not report.compatible
    assert all(word in report.reasons[0] for word in words), report.reasons[0]
    assert "does not fit" in str(report)


def test_one_kernel_is_no_body_even_where_it_is_most_of_the_network() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 64, 9), *(nn.Conv2d(64, 1, 1) if n % 2 else nn.Conv2d(1, 64, 1) for n in range(1, 6))
    )
    source = Source("one", {"0.weight": torch.ones(64, 1, 9, 9)})
    assert not match(network, [source]).compatible


@pytest.mark.parametrize(("found", "wanted"), [(3, 1), (1, 3), (4, 1), (3, 4)])
def test_other_channels_are_a_conflict_that_names_adapt(found: int, wanted: int, tmp_path: Path) -> None:
    target, source = resnet(channels=wanted), read(resnet(1, channels=found).state_dict(), tmp_path)
    report = match(target, [source])
    assert not report.compatible
    shapes = f"conv1.weight is 4 x {found} x 3 x 3, the network's 4 x {wanted} x 3 x 3"
    assert shapes in report.reasons[0]
    assert "--adapt" in report.reasons[0]
    assert match(target, [adapt(target, source)]).compatible


def test_other_classes_are_the_head_and_can_be_excluded(tmp_path: Path) -> None:
    source = read(resnet(1, classes=14).state_dict(), tmp_path)
    for exclude in ((), ("fc.*",)):
        report = match(resnet(), [source], exclude)
        assert report.compatible
        assert set(report.unmatched) == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize(
    "name", ["a.pth.tar", "a.ckpt", "a.model", "a.th", "A.PTH", "a.bin", "a", "a.b.c", "no suffix at all"]
)
def test_a_file_may_have_any_name(name: str, state: State, tmp_path: Path) -> None:
    torch.save({"state_dict": state}, tmp_path / name)
    assert_whole(Source.from_file(tmp_path / name), state)


def test_circles_and_fans_of_dictionaries_end_soon(state: State, tmp_path: Path) -> None:
    circle: dict[str, Any] = {"state_dict": state}
    circle["itself"] = circle
    circle["list"] = [circle, [circle]]
    fan: dict[str, Any] = {"model": state}
    for _ in range(5):
        fan = {f"branch{n}": fan for n in range(40)}
    deep: dict[str, Any] = {"model": state}
    for _ in range(200):
        deep = {"x": deep}
    for content in (circle, fan, deep):
        torch.save(content, tmp_path / "weights.pt")
        start = time.perf_counter()
        assert_whole(Source.from_file(tmp_path / "weights.pt"), state)
        assert time.perf_counter() - start < 2


def test_a_tensor_of_several_names_is_filled_from_any_of_them(tmp_path: Path) -> None:
    trained = dynunet(1)
    state = dict(trained.state_dict())
    save_model(trained, str(tmp_path / "a.safetensors"))
    assert_whole(Source.from_file(tmp_path / "a.safetensors"), state, dynunet())
    second = {name: value for name, value in state.items() if not name.startswith(("input_block.", "bottleneck."))}
    assert len(second) < len(state)
    assert_whole(read(second, tmp_path), state, dynunet())


def test_a_tied_network_takes_an_untied_source_only_if_its_values_are_equal(tmp_path: Path) -> None:
    trained, layer = resnet(1), resnet()
    tied = nn.ModuleDict({"a": layer, "b": layer})
    one, other = trained.state_dict(), resnet(2).state_dict()
    equal = {**begun("a.", one), **begun("b.", {name: value.clone() for name, value in one.items()})}
    assert_whole(read(equal, tmp_path), equal, tied)
    report = match(tied, [read({**equal, **begun("b.", other)}, tmp_path)])
    assert "are one tensor in the network, and differ here" in report.reasons[0]
    assert "a.conv1.weight and b.conv1.weight" in report.reasons[0]
    # The reverse loses nothing: what was one becomes two of the same numbers.
    untied = nn.ModuleDict({"a": resnet(3), "b": resnet(4)})
    twins = nn.ModuleDict({"a": trained, "b": trained})
    assert_whole(read(twins.state_dict(), tmp_path), dict(twins.state_dict()), untied)


def test_a_key_map_goes_before_what_is_found_by_itself(state: State, tmp_path: Path) -> None:
    stored = {name.replace("layer2.0.", "enc.2."): value for name, value in begun("module.", state).items()}
    (tmp_path / "names.json").write_text(r'{"^enc\\.(\\d+)\\.": "layer\\1.0."}')
    read({"state_dict": stored}, tmp_path)
    source = Source.from_file(tmp_path / "weights.pt", key_map=tmp_path / "names.json")
    assert_whole(source, state)
    # A report shows the map's name, and no folder of whoever wrote it.
    assert "names mapped by names.json" in str(match(resnet(), [source]))
    assert str(tmp_path) not in str(match(resnet(), [source]))
