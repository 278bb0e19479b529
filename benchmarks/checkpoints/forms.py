"""The forms: how people save networks, one short line each."""

from __future__ import annotations

import argparse
import collections
import datetime
import enum
import functools
import os
import pathlib
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks.checkpoints.samples import Sample, State, plain
from benchmarks.checkpoints.trial import Form

Content = Callable[[Sample], Any]


class Stage(enum.Enum):
    """A word of a training's state."""

    TRAINED = 1


class History:
    """What a training script keeps beside the weights."""

    def __init__(self) -> None:
        self.values = collections.deque([1.0, 2.0], maxlen=10)


class Harm:
    """Pickled, it would run a command."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return self.call


def saved(content: Content, name: str = "weights.pt", **options: Any) -> Callable[[Sample, Path], Path]:
    """What writes a content by torch.save."""

    def write(sample: Sample, folder: Path) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content(sample), path, **options)
        return path

    return write


def state(sample: Sample) -> State:
    """The weights that are written."""
    return sample.state


def begun(prefix: str, tensors: Mapping[str, Tensor]) -> State:
    """Tensors whose names begin otherwise."""
    return {prefix + key: value for key, value in tensors.items()}


def cast(dtype: torch.dtype) -> Content:
    """The weights in another precision."""
    return lambda s: {k: v.to(dtype) if v.is_floating_point() else v for k, v in s.state.items()}


def whole(group: str, contents: Mapping[str, Content], **options: Any) -> list[Form]:
    """Forms that fill the network."""
    return [Form(group, name, saved(content), state, **options) for name, content in contents.items()]


def refused(group: str, contents: Mapping[str, tuple[Content, str]], **options: Any) -> list[Form]:
    """Forms that are refused, with words of the refusal."""
    return [Form(group, name, saved(content), words, **options) for name, (content, words) in contents.items()]


def _as_safetensors(sample: Sample, folder: Path) -> Path:
    save_file(plain(sample.state), folder / "weights.safetensors", {"format": "pt"})
    return folder / "weights.safetensors"


def _plain_forms() -> list[Form]:
    group = "a state dict"
    forms = whole(
        group,
        {
            "as it is": state,
            "as an OrderedDict with metadata": lambda s: s.trained.state_dict(),
            "of parameters": lambda s: s.trained.state_dict(keep_vars=True),
            "of views into one storage": lambda s: {k: v.clone().unsqueeze(0)[0] for k, v in s.state.items()},
            "of MetaTensor": lambda s: {k: MetaTensor(v) if v.ndim > 1 else v for k, v in s.state.items()},
            "of bytes, as Python 2 wrote it": lambda s: {k.encode(): v for k, v in s.state.items()},
            "with a number among its names": lambda s: {**s.state, 0: torch.ones(1), "epoch": 3},
            "in float64": cast(torch.float64),
        },
    )
    for name, dtype in {"float16": torch.float16, "bfloat16": torch.bfloat16}.items():
        forms.append(Form(group, f"in {name}", saved(cast(dtype)), cast(dtype)))
    older = saved(state, _use_new_zipfile_serialization=False)
    return [
        *forms,
        Form(group, "in torch's older form", older, state),
        Form(group, "as safetensors", _as_safetensors, state),
    ]


WRAPPERS = (
    "module", "_orig_mod", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_module",
    "module._orig_mod", "_orig_mod.module", "model", "net", "network", "_model", "backbone", "module.backbone",
    "my_own_name", "system.core.net",
)  # fmt: skip


def _level(level: str) -> Content:
    """A level put in around a part."""

    def content(s: Sample) -> State:
        part = f"{s.kind.block}."
        return {k.replace(part, f"{part}{level}.") if k.startswith(part) else k: v for k, v in s.state.items()}

    return content


def _wrapper_forms() -> list[Form]:
    prefixed: dict[str, Content] = {f"{level}.": _prefixed(f"{level}.") for level in WRAPPERS}
    around = "levels around the whole or a part"
    momentum: Content = lambda s: {  # noqa: E731
        **begun("encoder_q.", s.state), **begun("encoder_k.", s.averaged), "queue": torch.zeros(4, 4),
    }  # fmt: skip
    forms = whole(
        around,
        {
            **prefixed,
            "AveragedModel, with n_averaged": lambda s: {"n_averaged": torch.tensor(5), **begun("module.", s.state)},
            "Lightning, with a loss beside it": lambda s: {
                "state_dict": {**begun("model.", s.state), "criterion.weight": torch.ones(3)},
                "pytorch-lightning_version": "2.4.0",
            },
            "encoder_q and encoder_k": momentum,
            "torch.compile around a part": _level("_orig_mod"),
            "checkpointing around a part": _level("_checkpoint_wrapped_module"),
            "FSDP around a part": _level("_fsdp_wrapped_module"),
        },
    )
    # The network in memory is wrapped, and the file is not.
    for wrapper, prefix in ((nn.DataParallel, "module."), (nn.Sequential, "0.")):
        name = f"{wrapper.__name__} around the network in memory"
        forms.append(Form(around, name, saved(state), _prefixed(prefix), target=_wrapped(wrapper)))
    return forms


def _wrapped(wrapper: Callable[[nn.Module], nn.Module]) -> Callable[[Sample], nn.Module]:
    return lambda s: wrapper(s.target)


def _prefixed(prefix: str) -> Content:
    return lambda s: begun(prefix, s.state)


UNDER = (
    "state_dict", "model", "model_state_dict", "net", "network", "network_weights", "module", "unet",
    "unet_state_dict", "params", "weights", "swa_state_dict", "ema", "state.model", "a.b.c.d", "my_own_name",
)  # fmt: skip


def _under(path: str) -> Content:
    def content(s: Sample) -> object:
        found: object = s.state
        for name in reversed(path.split(".")):
            found = {name: found, "epoch": 3, "optimizer": {"state": {}, "param_groups": []}}
        return found

    return content


def _with_adam(s: Sample) -> dict[str, Any]:
    optimizer = torch.optim.Adam(s.trained.parameters())
    for parameter in s.trained.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    s.trained.zero_grad(set_to_none=True)
    return {"net": s.state, "optimizer": optimizer.state_dict(), "iteration": 3}


def _nesting_forms() -> list[Form]:
    return whole(
        "under a name",
        {
            **{path: _under(path) for path in UNDER},
            "in a list": lambda s: [3, s.state],
            "in a tuple in a dictionary": lambda s: {"run": (s.state, 0.5)},
            "beside an optimizer with tensors": _with_adam,
        },
    )


def _several_forms() -> list[Form]:
    group = "several networks"
    pair: Content = lambda s: {"student": begun("module.", s.averaged), "teacher": begun("module.", s.state)}  # noqa: E731
    flat: Content = lambda s: {**begun("student.", s.averaged), **begun("teacher.", s.state)}  # noqa: E731
    both: Content = lambda s: {"state_dict": s.state, "state_dict_ema": s.averaged}  # noqa: E731
    critic: Content = lambda s: {  # noqa: E731
        "generator": s.state, "discriminator": nn.Sequential(nn.Linear(64, 16), nn.Linear(16, 1)).state_dict(),
    }  # fmt: skip
    file = saved(pair)
    return [
        Form(group, "teacher and student", file, "student | teacher | part="),
        Form(group, "teacher and student, part='teacher'", file, state, part="teacher"),
        Form(group, "teacher and student, FILE::teacher", lambda s, f: f"{file(s, f)}::teacher", state),
        Form(group, "teacher and student, a part that is not there", file, "critic", part="critic"),
        Form(group, "teacher. and student. in one state dict", saved(flat), "student | teacher | part="),
        Form(group, "teacher. and student. in one, part='teacher'", saved(flat), state, part="teacher"),
        Form(group, "generator and discriminator", saved(critic), "generator | discriminator | part="),
        Form(group, "generator and discriminator, part='generator'", saved(critic), state, part="generator"),
        Form(group, "raw and averaged", saved(both), state, said="state_dict_ema"),
        Form(group, "raw and averaged, part='ema'", saved(both), lambda s: s.averaged, part="ema"),
    ]


def _extra_forms() -> list[Form]:
    extras: dict[str, Any] = {
        "a NumPy scalar": np.float64(0.5),
        "a NumPy array": np.arange(3),
        "NumPy's random state": np.random.default_rng(0).bit_generator.state,
        "a Namespace": argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("x")),
        "a Path": pathlib.PurePosixPath("a/b"),
        "a partial": functools.partial(int, base=2),
        "a defaultdict with values": collections.defaultdict(list, {"a": [1]}),
        "a deque": collections.deque([1, 2], maxlen=3),
        "a Counter": collections.Counter("aab"),
        "a date": datetime.datetime(2024, 1, 1),
        "an enum": Stage.TRAINED,
        "an object of a class": History(),
        "a set": {1, 2},
        "a complex number and a slice": [1j, slice(3)],
        "a dtype and a size": [torch.float16, torch.Size([1, 2])],
        "a function": max,
    }
    group = "pickled extras"
    forms = whole(group, {what: _beside(extra) for what, extra in extras.items()})
    unknown = "a class that is not installed"
    forms.append(Form(group, unknown, _not_installed, state))
    harm = {
        "os.system": Harm(os.system, "false"),
        "eval": Harm(eval, "0"),
        "eval within a partial": functools.partial(eval, "0"),
    }
    contents: dict[str, tuple[Content, str]] = {
        f"{what}, which means harm": (_beside(extra), "nothing of it was run") for what, extra in harm.items()
    }
    module: Content = lambda s: s.trained  # noqa: E731
    return [*forms, *refused(group, {**contents, "the whole network, pickled": (module, "state_dict()")})]


def _beside(extra: object) -> Content:
    return lambda s: {"model": s.state, "extra": extra}


def _not_installed(sample: Sample, folder: Path) -> Path:
    """An object of a class whose module is gone when the file is read."""
    module = types.ModuleType("a_lab_of_its_own")
    gone = type("Config", (), {"__module__": module.__name__})
    module.Config = gone  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    try:
        return saved(lambda s: {"model": s.state, "config": gone()})(sample, folder)
    finally:
        del sys.modules[module.__name__]


def first_forms() -> list[Form]:
    """Forms of whole networks: what they are saved in, under and beside."""
    return [
        *_plain_forms(), *_wrapper_forms(), *_nesting_forms(), *_several_forms(), *_extra_forms(),
    ]  # fmt: skip
