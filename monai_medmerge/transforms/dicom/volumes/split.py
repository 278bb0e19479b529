"""From the frames of one series to its volumes, and what tells them apart.

A volume has one slice for each position. Frames of one position belong to several volumes: the first attribute, or the
first two or three together, that gives each volume one slice for each position is the dimension. Where each position
comes once, but an attribute goes to and fro along the slices, two acquisitions lie between one another.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_medmerge.transforms.dicom.geometry.frames import Frame, normal_of
from monai_medmerge.transforms.dicom.names import code
from monai_medmerge.transforms.dicom.volumes.attributes import (
    ATTRIBUTES,
    TIMES,
    Attribute,
    Value,
    attribute_values,
    index_values,
    vector_values,
)

_UNITS = {attribute.keyword: attribute.unit for attribute in (*ATTRIBUTES, *TIMES)}
_CODED = ("ImageType", "ComplexImageComponent", "ASLContext", "DiffusionDirectionality")
# B30f, Br40d, FC13, STANDARD, ...: what scanners call their kernels.
_KERNEL = re.compile(r"[A-Z][a-z]?\d{1,3}[a-z]?|FC\d{1,2}|STANDARD|SOFT|BONE|BONEPLUS|LUNG|DETAIL|EDGE|CHEST")
_MAX_TOGETHER = 3
_MAX_CANDIDATES = 14


@dataclass(frozen=True)
class Split:
    """The volumes of a series.

    Args:
        volumes: the frames of each.
        names: keywords of what tells them apart, none for a single volume.
        values: of each volume, one value for each name.
        alternates: whether their slices lie between one another, each position once.
        also: what else is the same within each volume and differs between them.
    """

    volumes: tuple[tuple[Frame, ...], ...]
    names: tuple[str, ...] = ()
    values: tuple[tuple[Any, ...], ...] = ()
    alternates: bool = False
    also: tuple[tuple[str, tuple[Any, ...]], ...] = ()

    @property
    def dimension(self) -> str:
        """The name of what tells the volumes apart, such as "EchoTime", or two of them: "EchoTime x ImageType"."""
        return " x ".join(self.names)

    def __str__(self) -> str:
        return f"{len(self.volumes)} volumes by {self.dimension}"

    def describe(self, chosen: Sequence[int]) -> str:
        """Return dimension, unit and values of the chosen volumes as JSON, "{}" for a series of one volume."""
        if not self.names:
            return "{}"
        return json.dumps(
            {
                "dimension": self.dimension,
                "unit": " x ".join(_UNITS.get(name, "") for name in self.names).strip(" x"),
                "values": [
                    _short([shown(name, part) for name, part in zip(self.names, self.values[i], strict=True)])
                    for i in chosen
                ],
                "also": {name: [shown(name, values[i]) for i in chosen] for name, values in self.also},
                "of": len(self.volumes),
            }
        )


def _short(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values


def shown(name: str, value: Any) -> Any:
    """Return a value that says nothing of a patient: numbers, and words where they are coded; free text is left out."""
    if isinstance(value, tuple):
        return _short([shown(name, part) for part in value]) if value else ""
    if isinstance(value, (int, float)):
        return value
    if name == "ConvolutionKernel":
        return value if _KERNEL.fullmatch(value) else ""
    return code(value) if name in _CODED else ""


def split_volumes(frames: Sequence[Frame]) -> Split:
    """Return the volumes that frames make up, a single one where nothing tells them apart.

    Args:
        frames: of one orientation and size.
    """
    if len(frames) < 2:
        return Split((tuple(frames),))
    places = _places(frames)
    if places is None:
        return Split((tuple(frames),))
    if len(set(places.tolist())) == len(frames):
        return _split_alternating(frames, places)
    return _split_repeated(frames, places)


def _places(frames: Sequence[Frame]) -> NDArray[np.int64] | None:
    """Return the rank of each frame's place along the last axis, None where frames have none."""
    if all(frame.is_located for frame in frames) and frames[0].orientation is not None:
        positions = np.stack([frame.position for frame in frames if frame.position is not None])
        distances = positions @ normal_of(frames[0].orientation)
        order = np.argsort(distances, kind="stable")
        gaps = np.diff(distances[order])
        apart = gaps[gaps > 1e-3]
        least = max(1e-3, 0.01 * float(np.median(apart))) if len(apart) else 1e-3
        ranks = np.concatenate([[0], np.cumsum(gaps >= least)])
        places = np.empty(len(frames), np.int64)
        places[order] = ranks
        return places
    if all(frame.place is not None for frame in frames):
        return np.unique([frame.place for frame in frames], return_inverse=True)[1].astype(np.int64)
    if any(frame.vectors for frame in frames):
        return np.zeros(len(frames), np.int64)
    return None


def _candidates(frames: Sequence[Frame], attributes: Sequence[Attribute]) -> dict[str, list[Value]]:
    found = {attribute.keyword: attribute_values(frames, attribute) for attribute in attributes}
    return {name: values for name, values in found.items() if values is not None}


def _split_alternating(frames: Sequence[Frame], places: NDArray[np.int64]) -> Split:
    """Split what comes once at each position by the attributes that go to and fro along them."""
    order = np.argsort(places)
    deciding = _candidates(frames, [attribute for attribute in ATTRIBUTES if attribute.decides])
    found = {**deciding, **index_values(frames), **vector_values(frames)}
    names = tuple(name for name, values in found.items() if _alternate([values[i] for i in order]))
    if not names:
        return Split((tuple(frames),))
    names = _without_repetition(names, found)
    return _make_split(frames, names, {name: found[name] for name in names}, alternates=True)


def _alternate(values: Sequence[Value]) -> bool:
    changes = sum(one != other for one, other in pairwise(values))
    return changes >= len(set(values)) > 1


def _without_repetition(names: Sequence[str], values: dict[str, list[Value]]) -> tuple[str, ...]:
    """Leave out names that split no further than those before them."""
    kept: list[str] = []
    groups = 1
    for name in names:
        together = len(set(zip(*(values[word] for word in (*kept, name)), strict=True)))
        if together > groups:
            kept.append(name)
            groups = together
    return tuple(kept)


def _split_repeated(frames: Sequence[Frame], places: NDArray[np.int64]) -> Split:
    """Split what comes several times at a position; a single volume where nothing explains the repetitions."""
    found = {**_candidates(frames, ATTRIBUTES), **vector_values(frames), **index_values(frames)}
    codes = {name: _numbered(values) for name, values in found.items()}
    most = int(np.bincount(places).max())
    useful = [name for name in found if _varies_within(codes[name], places)][:_MAX_CANDIDATES]
    # First volumes of the same positions, then those of which some lack slices, as where a scan was ended early.
    for whole in (True, False):
        for count in range(1, _MAX_TOGETHER + 1):
            for names in combinations(useful, count):
                if _explains([codes[name] for name in names], places, most, whole):
                    return _make_split(frames, names, found)
        if whole and (ranked := _split_by_time(frames, places, found, useful)) is not None:
            return ranked
    return Split((tuple(frames),))


def _numbered(values: Sequence[Value]) -> NDArray[np.int64]:
    known: dict[Value, int] = {}
    return np.array([known.setdefault(value, len(known)) for value in values])


def _varies_within(codes: NDArray[np.int64], places: NDArray[np.int64]) -> bool:
    return len(set(zip(places.tolist(), codes.tolist(), strict=True))) > len(set(places.tolist()))


def _explains(parts: Sequence[NDArray[np.int64]], places: NDArray[np.int64], most: int, whole: bool) -> bool:
    """Whether values together give each volume at most one slice for each position, or exactly one if `whole`."""
    together = np.zeros(len(places), np.int64)
    for part in parts:
        together = together * (int(part.max()) + 1) + part
    keys, together = np.unique(together, return_inverse=True)
    pairs = np.unique(together * (int(places.max()) + 1) + places)
    if len(pairs) != len(places):
        return False
    volumes, positions = len(keys), int(places.max()) + 1
    return volumes * positions == len(places) if whole else volumes == most


def _split_by_time(
    frames: Sequence[Frame], places: NDArray[np.int64], found: dict[str, list[Value]], useful: Sequence[str]
) -> Split | None:
    """Split by the order in time of the frames of each position, alone or within what another attribute tells apart."""
    for time in TIMES:
        values = attribute_values(frames, time)
        if values is None or not all(values):
            continue
        for name in (None, *useful):
            outer = _numbered(found[name]) if name else np.zeros(len(frames), np.int64)
            ranks = _rank_within(values, places, outer)
            if ranks is not None and _explains([outer, ranks], places, 0, whole=True):
                ranked = {**found, time.keyword: [(float(rank),) for rank in ranks]}
                split = _make_split(frames, (name, time.keyword) if name else (time.keyword,), ranked)
                return _with_times(split, frames, values)
    return None


def _rank_within(
    values: Sequence[Value], places: NDArray[np.int64], outer: NDArray[np.int64]
) -> NDArray[np.int64] | None:
    """Return each frame's rank by value among those of its place, None where two have the same value."""
    ranks = np.zeros(len(values), np.int64)
    groups: dict[tuple[int, int], list[int]] = {}
    for i, key in enumerate(zip(places.tolist(), outer.tolist(), strict=True)):
        groups.setdefault(key, []).append(i)
    for members in groups.values():
        members.sort(key=lambda i: values[i])
        if any(values[a] == values[b] for a, b in pairwise(members)):
            return None
        ranks[members] = range(len(members))
    return ranks


def _with_times(split: Split, frames: Sequence[Frame], values: Sequence[Value]) -> Split:
    """Say the time of each volume's first slice rather than its rank, where that is a number."""
    time = {id(frame): value for frame, value in zip(frames, values, strict=True)}
    firsts = [min(time[id(frame)] for frame in volume) for volume in split.volumes]
    if split.names[-1] not in ("FrameReferenceTime", "TriggerTime"):
        return split
    stated = tuple((*key[:-1], first) for key, first in zip(split.values, firsts, strict=True))
    return Split(split.volumes, split.names, stated, split.alternates, split.also)


def _make_split(
    frames: Sequence[Frame], names: tuple[str, ...], found: dict[str, list[Value]], alternates: bool = False
) -> Split:
    groups: dict[tuple[Value, ...], list[int]] = {}
    for i, key in enumerate(zip(*(found[name] for name in names), strict=True)):
        groups.setdefault(key, []).append(i)
    keys = sorted(groups, key=_sorting)
    also = []
    for name, values in found.items():
        inside = [{values[i] for i in groups[key]} for key in keys]
        if name not in names and all(len(kinds) == 1 for kinds in inside):
            also.append((name, tuple(next(iter(kinds)) for kinds in inside)))
    volumes = tuple(tuple(frames[i] for i in groups[key]) for key in keys)
    return Split(volumes, names, tuple(keys), alternates, tuple(also))


def _sorting(key: tuple[Value, ...]) -> tuple[Any, ...]:
    """Order numbers by size and before words."""
    return tuple((isinstance(part, str), part if isinstance(part, str) else 0, part) for value in key for part in value)
