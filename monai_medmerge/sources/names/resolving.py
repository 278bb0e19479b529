"""A source under the names of a network: pieces put together, known origins mapped, wrappers taken off, ties filled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from monai_medmerge.sources.checkpoint.nesting import ROLES, is_averaged, words
from monai_medmerge.sources.checkpoint.source import Source
from monai_medmerge.sources.names.composing import composed
from monai_medmerge.sources.names.identity import names_of, state_of
from monai_medmerge.sources.names.keymaps import KEY_MAPS, rename
from monai_medmerge.sources.names.wrappers import Reading, readings

RIVAL = 0.9
"""Two readings are rivals if the one explains at least this share of what the other does."""


@dataclass(frozen=True)
class _Candidate:
    """A reading, the known map before it, the tensors that it gives, and how many numbers agree in shape."""

    reading: Reading
    key_map: str
    tensors: Mapping[str, Tensor]
    agreeing: int

    @property
    def size(self) -> tuple[int, int]:
        return self.agreeing, len(self.tensors)

    @property
    def label(self) -> str:
        return self.reading.label + (f" by {self.key_map}" if self.key_map else "")


def resolve(network: nn.Module, source: Source) -> Source:
    """The source under the network's names.

    Weights in pieces are computed, names of a known origin mapped, wrappers taken off by comparison with the network's
    names, and a tensor that the network has under several names is filled under all of them from any.

    Args:
        network: the network to be merged into; only its names and shapes are looked at.
        source: a source whose names may be those of another library or wrapper.

    Returns:
        A source with tensors of the network's names, and under their own names those that the network lacks;
        ``provenance["conflicts"]`` says what could be understood in more than one way.

    Raises:
        SettingError: a layer of the network is lazy and has no shape yet.
    """
    state = state_of(network)
    signature = tuple((name, tuple(tensor.shape)) for name, tensor in state.items())
    kept = source.__dict__.get("_resolved")
    if kept is not None and kept[0] == signature:
        resolved: Source = kept[1]
        return resolved
    resolved = _resolved(state, source)
    source.__dict__["_resolved"] = (signature, resolved)
    return resolved


def _resolved(state: Mapping[str, Tensor], source: Source) -> Source:
    tensors, notes = composed(source.tensors, state.keys())
    candidates = list(_candidates(state, tensors, source.name))
    provenance: dict[str, Any] = dict(source.provenance)
    conflicts: list[str] = []
    if candidates:
        best, others = _choose(candidates)
        if rivals := [other for other in others if not is_averaged(other.reading.removed)]:
            conflicts.append(_both(best, rivals[0]))
        elif others:
            notes.append(
                f"read from {best.reading.label}; averaged weights lie under {others[0].reading.removed.rstrip('.')}, "
                "which part= (FILE::PART) takes"
            )
        tensors, provenance = _applied(best, tensors, provenance, state)
    tensors, tied = _tied(state, tensors)
    if found := [*notes, *provenance.get("computed", ())]:
        provenance["computed"] = list(dict.fromkeys(found))
    if conflicts or tied:
        provenance["conflicts"] = [*conflicts, *tied]
    return source.under_other_names(tensors, provenance)


def _candidates(state: Mapping[str, Tensor], tensors: Mapping[str, Tensor], where: str) -> Iterator[_Candidate]:
    """All ways to understand the names; known maps only where the names as they are leave something empty."""
    full = sum(tensor.numel() for name, tensor in state.items())
    filled = False
    for key_map in ("", *KEY_MAPS):
        renamed = dict(tensors) if not key_map else _mapped(tensors, key_map, where)
        if renamed is None or filled:
            continue
        for reading in readings(renamed.keys(), state.keys()):
            given = {name: renamed[stored] for name, stored in reading.names.items()}
            agreeing = sum(t.numel() for name, t in given.items() if t.shape == state[name].shape)
            filled = filled or agreeing == full
            yield _Candidate(reading, key_map, given, agreeing)


def _mapped(tensors: Mapping[str, Tensor], key_map: str, where: str) -> dict[str, Tensor] | None:
    """Under a known map's names; None where it changes nothing, or makes two names one."""
    try:
        renamed = rename(tensors, key_map, where)
    except ValueError:
        return None
    return renamed if renamed.keys() != tensors.keys() else None


def _choose(candidates: list[_Candidate]) -> tuple[_Candidate, list[_Candidate]]:
    """The candidate that explains most, and those that explain as much otherwise."""
    best = max(candidates, key=lambda candidate: candidate.size)
    near = [
        c for c in candidates if c.agreeing >= RIVAL * best.agreeing and len(c.tensors) >= RIVAL * len(best.tensors)
    ]
    # Names as they are need no explanation; an average gives way to what it is an average of.
    near.sort(key=lambda c: (bool(c.reading.removed or c.reading.added), is_averaged(c.reading.removed)))
    first = near[0]
    if is_averaged(first.reading.removed) or not (first.reading.removed or first.reading.added):
        first = max((c for c in near if c.reading.label == first.reading.label), key=lambda candidate: candidate.size)
    else:
        first = max((c for c in near if not is_averaged(c.reading.removed)), key=lambda candidate: candidate.size)
    exact = not (first.reading.removed or first.reading.added)
    return first, [other for other in near if not exact and _contradicts(first, other)]


def _contradicts(one: _Candidate, other: _Candidate) -> bool:
    """Whether two candidates give some name of the network different numbers, or are networks of different roles."""
    roles = [words(candidate.reading.removed) & ROLES for candidate in (one, other)]
    return roles[0] != roles[1] or any(
        not _equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items() if name in other.tensors
    )


def _equal(one: Tensor, other: Tensor) -> bool:
    if one is other or one.shape != other.shape or one.dtype != other.dtype:
        return one is other
    return (one.data_ptr() == other.data_ptr() and one.stride() == other.stride()) or torch.equal(one, other)


def _both(best: _Candidate, rival: _Candidate) -> str:
    labels = [candidate.label for candidate in (best, rival)]
    prefix = best.reading.removed.rstrip(".")
    how = f"name one, part={prefix!r} in Python and FILE::{prefix} elsewhere" if prefix else "give a key_map"
    return f"two networks in it fit, {labels[0]} and {labels[1]}: {how}"


def _applied(
    chosen: _Candidate, tensors: Mapping[str, Tensor], provenance: Mapping[str, Any], state: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors by the network's names, what is left over by its own."""
    used = {id(tensor) for tensor in chosen.tensors.values()}
    spare = {name: tensor for name, tensor in tensors.items() if id(tensor) not in used and name not in state}
    new = dict(provenance)
    if chosen.key_map:
        given = new.get("key_map")
        new["key_map"] = (
            chosen.key_map if given in (None, chosen.key_map) else "the given patterns, then " + chosen.key_map
        )
    if chosen.reading.removed:
        new["prefix_removed"] = f"{new.get('prefix_removed', '')}{chosen.reading.removed}"
    if chosen.reading.added:
        new["prefix_added"] = chosen.reading.added
    return {**chosen.tensors, **spare}, new


def _tied(state: Mapping[str, Tensor], tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Fill every name of a tensor from the one that is there; name those that differ although they are one."""
    found, conflicts = dict(tensors), []
    for names in names_of(state).values():
        there = [name for name in names if name in tensors]
        if len(names) < 2 or not there:
            continue
        first = tensors[there[0]]
        if other := next((name for name in there[1:] if not _equal(first, tensors[name])), ""):
            conflicts.append(f"{there[0]} and {other} are one tensor in the network, and differ here")
        found |= dict.fromkeys(names, first)
    return found, conflicts
