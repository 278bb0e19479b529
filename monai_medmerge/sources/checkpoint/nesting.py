"""Which of a checkpoint's dictionaries are networks: found by what they hold, and chosen by name where several are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from monai_medmerge.errors import UnsafeCheckpointError
from monai_medmerge.sources.checkpoint.extras import StandIn

# Words of names under which trainers keep an average of the weights beside the weights.
AVERAGED = {"ema", "swa", "average", "averaged", "avg", "polyak", "shadow", "momentum"}
# Words that tell networks of one checkpoint apart, whatever their numbers are.
ROLES = {"teacher", "student", "generator", "discriminator", "online", "target", "actor", "critic"} | AVERAGED
# What tensors of networks are called, where a name has no dot.
LEAVES = {"weight", "bias", "running_mean", "running_var", "weight_g", "weight_v"}
MOST_SHOWN = 6


@dataclass(frozen=True)
class Part:
    """One dictionary of tensors, and the path of names that leads to it."""

    path: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    left: tuple[str, ...] = ()
    """Keys of what is no tensor with a name."""

    @property
    def name(self) -> str:
        """The path as people write it."""
        return ".".join(self.path)

    @property
    def averaged(self) -> bool:
        """Whether its name says that it is an average of weights."""
        return is_averaged(self.name)


def words(name: str) -> set[str]:
    """The words of a name, however they are put together.

    Args:
        name: of a part or of a tensor.

    Example:
        >>> sorted(words("state_dict_ema")), sorted(words("modelEMA.module"))
        (['dict', 'ema', 'state'], ['ema', 'model', 'module'])
    """
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)}


def is_averaged(name: str) -> bool:
    """Whether a name says that what it names is an average of weights: EMA, SWA, MoCo's key encoder.

    Args:
        name: of a part, or the beginning of tensors' names.

    Example:
        >>> is_averaged("model_ema"), is_averaged("encoder_k"), is_averaged("state_dict")
        (True, True, False)
    """
    return bool(words(name) & AVERAGED) or bool(re.search(r"(^|\.)encoder_k($|\.)|key_encoder", name))


def choose_part(content: object, part: str | None, where: str) -> tuple[Part, dict[str, Any]]:
    """The network that is meant, and what the reading found beside it, in plain types.

    Args:
        content: of a checkpoint, as it was read.
        part: its name where there are several: a whole path, an end or a word of it, or what its tensors' names begin
            with.
        where: the file, for errors.

    Raises:
        UnsafeCheckpointError: there is no network, several and none is named, or none of that name.
    """
    found = networks_in(content)
    if not found:
        raise UnsafeCheckpointError("a state dict of tensors", _instead(content), where)
    if part is not None:
        return _named(found, part, where), {}
    raw = [candidate for candidate in found if not candidate.averaged] or found
    if len(raw) > 1:
        names = ", ".join(candidate.name for candidate in found[:MOST_SHOWN])
        first = raw[0].name
        expected = f"one network: name it, part={first!r} in Python and FILE::{first} elsewhere"
        raise UnsafeCheckpointError(expected, f"{len(found)} of them: {names}", where)
    averaged = [candidate.name for candidate in found if candidate is not raw[0]]
    return raw[0], ({"averaged": averaged} if averaged else {})


def networks_in(content: object) -> list[Part]:
    """All dictionaries that hold the tensors of a network; one object under two names counts once.

    Args:
        content: of a checkpoint; it may refer to itself.
    """
    holders = [part for part in _holders(content) if part.tensors]
    kernels = [part for part in holders if any(tensor.ndim > 1 for tensor in part.tensors.values())]
    named = [part for part in kernels if any("." in key or key in LEAVES for key in part.tensors)]
    chosen = named or kernels or holders
    largest = max((_size(part) for part in chosen), default=0)
    # A loss or a class head with weights of its own is no second network.
    return [part for part in chosen if 100 * _size(part) >= largest]


def _holders(content: object) -> Iterator[Part]:
    """Every dictionary once, but for those of optimizers."""
    seen: set[int] = set()
    waiting: list[tuple[tuple[str, ...], object]] = [((), content)]
    while waiting:
        path, value = waiting.pop()
        if not isinstance(value, Mapping | list | tuple) or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Mapping):
            yield _part(path, value)
            optimizer = "param_groups" in value or b"param_groups" in value
            below = [] if optimizer else [(key, item) for key, item in value.items()]
        else:
            below = [(number, item) for number, item in enumerate(value)]
        # The last in is the first out, and the first name shall come first.
        waiting += [((*path, str(_text(key) or key)), item) for key, item in reversed(below) if _holds(item)]


def _part(path: tuple[str, ...], content: Mapping[Any, Any]) -> Part:
    tensors = {
        text: item for key, item in content.items() if isinstance(item, Tensor) and (text := _text(key)) is not None
    }
    return Part(path, tensors, tuple(sorted(str(_text(key) or key) for key in content if _text(key) not in tensors)))


def _holds(value: object) -> bool:
    return isinstance(value, Mapping | list | tuple) and bool(value)


def _text(key: object) -> str | None:
    """A key of a state dict; Python 2 wrote bytes."""
    if isinstance(key, bytes):
        return key.decode("utf-8", "replace")
    return key if isinstance(key, str) else None


def _size(part: Part) -> int:
    return sum(tensor.numel() for tensor in part.tensors.values())


def _named(found: Sequence[Part], part: str, where: str) -> Part:
    """The one part of a name: what agrees with the whole path counts more than what agrees with a word of it."""
    ways = (
        lambda name: name == part,
        lambda name: name.endswith(f".{part}") or name.startswith(f"{part}."),
        lambda name: part.lower() in words(name),
    )
    for way in ways:
        if len(hits := [candidate for candidate in found if way(candidate.name)]) == 1:
            return hits[0]
    for way in (ways[0], ways[2]):
        begun = [(candidate, begin) for candidate in found for begin in beginnings(candidate.tensors) if way(begin)]
        exact = [hit for hit in begun if not hit[0].averaged] if len(begun) > 1 else begun
        if len(exact) == 1:
            return _below(*exact[0])
    for candidate in found:
        below = part.removeprefix(f"{candidate.name}.")
        if any(key.startswith(f"{below}.") for key in candidate.tensors):
            return _below(candidate, below)
    names = [candidate.name for candidate in found if candidate.name]
    names += [begin for candidate in found for begin in beginnings(candidate.tensors)]
    shown = ", ".join(names[:MOST_SHOWN]) + (", ..." if names[MOST_SHOWN:] else "")
    raise UnsafeCheckpointError(f"a part named {part!r}", f"parts named {shown}" if names else "no parts", where)


def _below(part: Part, begin: str) -> Part:
    length = len(begin) + 1
    inside = {key[length:]: value for key, value in part.tensors.items() if key.startswith(f"{begin}.")}
    return Part((*part.path, begin), inside)


def beginnings(names: Mapping[str, Tensor]) -> list[str]:
    """What comes before the first dot of names, each once.

    Args:
        names: of tensors.
    """
    return list(dict.fromkeys(name.split(".")[0] for name in names if "." in name))


def _instead(content: object) -> str:
    """What a checkpoint without any network is."""
    how = "save its state_dict() instead"
    if isinstance(content, StandIn):
        return f"a whole pickled {type(content).origin}: {how}"
    if isinstance(content, Mapping):
        pickled = next(((key, value) for key, value in content.items() if isinstance(value, StandIn)), None)
        if pickled is not None:
            return f"a {type(content).__name__} without any; {pickled[0]!r} is a {type(pickled[1]).origin}: {how}"
    if isinstance(content, list | tuple) and any(isinstance(item, Tensor) for item in content):
        return "tensors without names"
    return f"a {type(content).__name__} without any"
