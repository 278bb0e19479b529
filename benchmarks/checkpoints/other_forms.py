"""The forms that are not simply the network: pieces, holes, heads, other files, ties, and what is no checkpoint."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file, save_model
from torch import nn
from torch.nn.utils import parametrizations, prune

from benchmarks.checkpoints.forms import Content, refused, saved, state, whole
from benchmarks.checkpoints.samples import Sample, State, plain
from benchmarks.checkpoints.trial import Form


def _changed(change: Callable[[nn.Module], object]) -> Callable[[Sample], nn.Module]:
    """The trained network with its first convolution changed."""

    def make(s: Sample) -> nn.Module:
        network = copy.deepcopy(s.trained)
        change(network.get_submodule(s.kind.first))
        return network

    return make


def _piece_forms() -> list[Form]:
    group = "weights in pieces"
    changes: dict[str, Callable[[nn.Module], object]] = {
        "pruned": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
        "weight norm": parametrizations.weight_norm,
        "spectral norm": parametrizations.spectral_norm,
        "weight norm, older hooks": _older_weight_norm,
    }
    forms = [Form(group, name, saved(_pieces(change)), _computed(change)) for name, change in changes.items()]
    lora: Content = lambda s: {**s.state, f"{s.kind.first}.lora_A": torch.zeros(2, 2)}  # noqa: E731
    hole: Content = lambda s: {**s.without(s.kind.block), f"{s.kind.block}.lora_A": torch.zeros(2, 2)}  # noqa: E731
    adapters = {"LoRA beside all weights": (lora, "lora_A"), "LoRA in a hole of the body": (hole, "lora_A | absent")}
    return [*forms, *refused(group, adapters)]


def _pieces(change: Callable[[nn.Module], object]) -> Content:
    make = _changed(change)
    return lambda s: make(s).state_dict()


def _computed(change: Callable[[nn.Module], object]) -> Callable[[Sample], State]:
    """The weights, with the one that torch itself computes."""
    make = _changed(change)

    def expected(s: Sample) -> State:
        weight = getattr(make(s).eval().get_submodule(s.kind.first), "weight")  # noqa: B009  (computed)
        return s.with_first(weight.detach())

    return expected


def _older_weight_norm(layer: nn.Module) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.nn.utils.weight_norm(layer)


def _renamed_block(s: Sample) -> State:
    """A block whose layers are those of another version."""
    renamed = s.inside(s.kind.block)
    return {f"{k}.older" if k in renamed else k: v for k, v in s.state.items()}


def _wider(s: Sample) -> State:
    return s.with_first(torch.cat([s.state[f"{s.kind.first}.weight"]] * 2))


def _hole_forms() -> list[Form]:
    first: Content = lambda s: {f"{s.kind.first}.weight": s.state[f"{s.kind.first}.weight"]}  # noqa: E731
    return refused(
        "holes in the body",
        {
            "a block is absent": (lambda s: s.without(s.kind.block), "absent"),
            "a block of another version": (_renamed_block, "absent | there instead"),
            "one kernel is absent": (lambda s: s.without(s.kind.first), "absent"),
            "one kernel is wider": (_wider, "the network's"),
            "almost nothing": (first, ""),
            "norms and biases alone": (lambda s: {k: v for k, v in s.state.items() if v.ndim < 2}, ""),
            "another network": (lambda s: nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2)).state_dict(), ""),
        },
    )


def _body(s: Sample) -> State:
    """The target with all that a network of other classes has in the same shape."""
    other = s.like(classes=14).state_dict()
    own = s.target.state_dict()
    return {name: other[name] if other[name].shape == value.shape else value for name, value in own.items()}


def _one_channel(s: Sample) -> State:
    other = s.like(channels=3).state_dict()
    own = s.state
    return {k: v if v.shape == own[k].shape else v.sum(1, keepdim=True) for k, v in other.items()}


def _three_channels(s: Sample) -> State:
    other = s.like(channels=3).state_dict()
    return {k: v if v.shape == other[k].shape else v.repeat(1, 3, 1, 1) / 3 for k, v in s.state.items()}


def _head_forms() -> list[Form]:
    group = "heads and channels"
    heads: Content = lambda s: s.like(classes=14).state_dict()  # noqa: E731
    rgb: Content = lambda s: s.like(channels=3).state_dict()  # noqa: E731
    for_rgb: Callable[[Sample], nn.Module] = lambda s: s.like(channels=3)  # noqa: E731
    return [
        Form(group, "14 classes for 3", saved(heads), _body, said="all but the head"),
        Form(group, "3 channels for 1", saved(rgb), "--adapt"),
        Form(group, "3 channels for 1, --adapt", saved(rgb), _one_channel, adapted=True),
        Form(group, "1 channel for 3", saved(state), "--adapt", target=for_rgb),
        Form(group, "1 channel for 3, --adapt", saved(state), _three_channels, adapted=True, target=for_rgb),
    ]


def _in_folder(names: tuple[str, ...]) -> Callable[[Sample, Path], Path]:
    def write(s: Sample, folder: Path) -> Path:
        for name in names:
            saved(state, name)(s, folder)
        return folder

    return write


def _hub(s: Sample, folder: Path) -> Path:
    (folder / "config.json").write_text("{}")
    save_file(plain(s.state), folder / "model.safetensors")
    return folder


def _sharded(s: Sample, folder: Path) -> Path:
    tensors = plain(s.state)
    names = sorted(tensors)
    shards = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, held in shards.items():
        save_file({name: tensors[name] for name in held}, folder / file)
    index = {"weight_map": {name: file for file, held in shards.items() for name in held}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder / "model.safetensors.index.json"


def _place_forms() -> list[Form]:
    group = "names of files, folders"
    names = ("weights.pth.tar", "weights.ckpt", "weights.model", "weights.th", "WEIGHTS.PTH", "weights.bin", "weights")
    nested: Content = lambda s: {"state_dict": s.state}  # noqa: E731
    several = _in_folder(("models/best.pt", "models/last.pt"))
    return [
        *(Form(group, name, saved(nested, name), state) for name in names),
        Form(group, "a sharded index", _sharded, state),
        Form(group, "a folder of a hub", _hub, state),
        Form(group, "a bundle", _in_folder(("models/model.pt", "models/other.pt")), state),
        Form(group, "a bundle whose one model has another name", _in_folder(("models/best.pt",)), state),
        Form(group, "a bundle with several models of other names", several, "best.pt | last.pt"),
    ]


def _twice(network: nn.Module) -> nn.Module:
    return nn.ModuleDict({"a": network, "b": network})


def _model_saved(s: Sample, folder: Path) -> Path:
    save_model(_twice(s.trained), str(folder / "weights.safetensors"))
    return folder / "weights.safetensors"


def _tie_forms() -> list[Form]:
    group = "one tensor under several names"
    target: Callable[[Sample], nn.Module] = lambda s: _twice(s.target)  # noqa: E731

    def two(s: Sample, other: State) -> State:
        return {**{f"a.{k}": v for k, v in s.state.items()}, **{f"b.{k}": v for k, v in other.items()}}

    def both(s: Sample) -> State:
        return two(s, s.state)

    half: Content = lambda s: {k: v for k, v in both(s).items() if k.startswith("b.")}  # noqa: E731
    untied: Content = lambda s: {"state_dict": two(s, s.averaged)}  # noqa: E731
    return [
        Form(group, "saved by safetensors' save_model", _model_saved, both, target=target),
        Form(group, "the second name alone", saved(half), both, target=target),
        Form(group, "both names, equal numbers", saved(lambda s: plain(both(s))), both, target=target),
        Form(group, "both names, other numbers", saved(untied), "one tensor in the network", target=target),
    ]


def _bytes(content: bytes, name: str = "weights.pt") -> Callable[[Sample, Path], Path]:
    def write(s: Sample, folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def _scripted(s: Sample, folder: Path) -> Path:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(nn.Linear(2, 2)).save(str(folder / "weights.pt"))
    return folder / "weights.pt"


def _truncated(s: Sample, folder: Path) -> Path:
    path = saved(state)(s, folder)
    path.write_bytes(path.read_bytes()[:-100])
    return path


def _foreign_forms() -> list[Form]:
    group = "what is no checkpoint of a network"
    nan: Content = lambda s: {**s.state, f"{s.kind.first}.weight": torch.full((2, 2), float("nan"))}  # noqa: E731
    files: dict[str, tuple[Callable[[Sample, Path], Path], str]] = {
        "TorchScript": (_scripted, "TorchScript"),
        "ONNX": (_bytes(b"\x08\x08\x12\x07pytorch" + b"\0" * 99, "weights.onnx"), "ONNX"),
        "HDF5": (_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 99, "weights.h5"), "HDF5"),
        "TensorFlow": (_bytes(b"\x0a\x05saved" + b"\0" * 99, "saved_model.pb"), "TensorFlow"),
        "NIfTI": (_bytes(b"\x5c\x01" + b"\0" * 342 + b"n+1\0" + b"\0" * 99, "weights.nii"), "NIfTI"),
        "gzip": (_bytes(b"\x1f\x8b" + b"\0" * 99), "gzip"),
        "a pointer of git-lfs": (_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "git-lfs"),
        "a web page": (_bytes(b"<!DOCTYPE html><html></html>"), "HTML"),
        "an empty file": (_bytes(b""), "empty"),
        "a truncated file": (_truncated, ""),
        "NaN": (saved(nan), "NaN"),
        "no tensors": (saved(lambda s: {"lr": 0.1}), "state dict"),
    }
    return [Form(group, name, write, words) for name, (write, words) in files.items()]


def _circle(s: Sample) -> dict[str, Any]:
    content: dict[str, Any] = {"state_dict": s.state}
    content["itself"] = content
    return content


def _fan(s: Sample) -> dict[str, Any]:
    """Forty names to the fifth lead through it, and five dictionaries."""
    content: dict[str, Any] = {"model": s.state}
    for _ in range(5):
        content = {f"branch{n}": content for n in range(40)}
    return content


def _odd_forms() -> list[Form]:
    group = "content that refers to itself, or claims too much"
    bomb: Content = lambda s: {**s.state, "extra.weight": torch.ones(1).expand(10**13)}  # noqa: E731
    return [
        *whole(group, {"a dictionary in itself": _circle, "a fan of 40 to the 5th": _fan}),
        *refused(group, {"10,000,000,000,000 numbers on 4 bytes": (bomb, "4 bytes")}),
    ]


def further_forms() -> list[Form]:
    """Forms that hold less or something else than the network, in files and folders of any name."""
    return [
        *_piece_forms(), *_hole_forms(), *_head_forms(), *_place_forms(), *_tie_forms(), *_foreign_forms(),
        *_odd_forms(),
    ]  # fmt: skip
