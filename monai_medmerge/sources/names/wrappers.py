"""What wrappers add to names, found by comparison with the names that a network has.

A file may hold a whole network below any prefix, a network in memory may be wrapped as well, and levels may be put in
around a part. A *reading* says, for the names of a network, which stored tensor each of them is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

# Levels that DistributedDataParallel, torch.compile, DeepSpeed, FSDP, activation checkpointing and Opacus put in.
KNOWN_WRAPPERS = (
    "module", "_orig_mod", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_fpw_module",
    "_module", "_wrapped_module",
)  # fmt: skip
MOST_READINGS = 12
MOST_LEVELS = 4


@dataclass(frozen=True)
class Reading:
    """One way to understand stored names.

    Args:
        names: of the network, to those stored.
        removed: what stored names begin with and the network's do not.
        added: what the network's names begin with and the stored ones do not.
    """

    names: Mapping[str, str]
    removed: str = ""
    added: str = ""

    @property
    def label(self) -> str:
        """How a report calls it: what its stored names begin with."""
        return f"{self.removed or '(no prefix)'}" + (f" as {self.added}" if self.added else "")


def plain(name: str) -> str:
    """A name without the levels of known wrappers.

    Args:
        name: of a tensor.

    Example:
        >>> plain("module.layer1._orig_mod.0.weight")
        'layer1.0.weight'
    """
    return ".".join(level for level in name.split(".") if level not in KNOWN_WRAPPERS)


def readings(stored: Collection[str], wanted: Collection[str]) -> list[Reading]:
    """Ways to understand stored names, those that explain most of them first.

    Args:
        stored: names in a file.
        wanted: the network's names.

    Example:
        >>> [dict(r.names) for r in readings(["net._orig_mod.fc.weight"], ["fc.weight"])]
        [{'fc.weight': 'net._orig_mod.fc.weight'}]
    """
    have, want = _by_plain_name(stored), _by_plain_name(wanted)
    found = []
    for removed, added in _prefixes(have.keys(), want.keys()):
        inside = {name[len(removed) :]: have[name] for name in have if name.startswith(removed)}
        outside = {name[len(added) :]: want[name] for name in want if name.startswith(added)}
        names = {outside[name]: inside[name] for name in outside if name in inside}
        names |= _level_put_in(
            {name: full for name, full in inside.items() if name not in outside},
            {name: full for name, full in outside.items() if name not in inside},
            inside.keys(),
            outside.keys(),
        )
        if names:
            found.append(Reading(names, removed, added))
    found.sort(key=lambda reading: (-len(reading.names), len(reading.removed) + len(reading.added)))
    # Two ways to say the same are one.
    return [reading for n, reading in enumerate(found) if all(dict(reading.names) != dict(r.names) for r in found[:n])]


def _by_plain_name(names: Iterable[str]) -> dict[str, str]:
    """Plain names to full ones; where two would become one, each keeps its own."""
    names = list(names)
    times = Counter(map(plain, names))
    return {plain(name) if times[plain(name)] == 1 else name: name for name in names}


def _prefixes(stored: Collection[str], wanted: Collection[str]) -> list[tuple[str, str]]:
    """Pairs of a prefix to take away and one to put before, as many as explain some names."""
    counts: Counter[tuple[str, str]] = Counter()
    known, asked = set(stored), set(wanted)
    for name in stored:
        for begin, end in _cuts(name):
            if end in asked:
                counts[begin, ""] += 1
    for name in wanted:
        for begin, end in _cuts(name):
            if begin and end in known:
                counts["", begin] += 1
    if max(counts.values(), default=0) < 0.5 * min(len(stored), len(wanted)):
        # A part of the file is a part of the network, under another name.
        for removed in _outer(known):
            ends = {name[len(removed) :] for name in known if name.startswith(removed)}
            for added in _outer(asked):
                if hits := sum(name.startswith(added) and name[len(added) :] in ends for name in asked):
                    counts[removed, added] += hits
    most = max(counts.values(), default=0)
    likely = [pair for pair, count in counts.most_common(MOST_READINGS) if count >= 0.2 * most]
    # The names as they are, and levels put in around parts of them.
    return [("", ""), *(pair for pair in likely if pair != ("", ""))]


def _outer(names: Iterable[str]) -> list[str]:
    """Beginnings of one or two levels."""
    return sorted({begin for name in names for begin, _ in _cuts(name) if 0 < begin.count(".") <= 2})[:64]


def _cuts(name: str) -> list[tuple[str, str]]:
    """A name's beginnings and ends, the whole as an end first."""
    levels = name.split(".")
    return [("".join(f"{level}." for level in levels[:n]), ".".join(levels[n:])) for n in range(len(levels))]


def _level_put_in(
    spare: Mapping[str, str], lacking: Mapping[str, str], stored: Collection[str], wanted: Collection[str]
) -> dict[str, str]:
    """Names that agree but for a level that is alone at its place, on either side: a wrapper of an unknown name."""
    found: dict[str, str] = {}
    for _ in range(MOST_LEVELS):
        spare = {name: full for name, full in spare.items() if full not in found.values()}
        lacking = {name: full for name, full in lacking.items() if full not in found}
        if not spare or not lacking:
            break
        new = _without_levels(spare, lacking, _children(stored))
        if not new:
            turned = _without_levels(lacking, spare, _children(wanted))
            new = {value: key for key, value in turned.items()}
        if not new:
            break
        found |= new
    return found


def _children(names: Collection[str]) -> dict[str, set[str]]:
    """What comes after every beginning of names, if it goes on from there."""
    found: dict[str, set[str]] = {}
    for name in names:
        for begin, end in _cuts(name):
            if "." in end:
                found.setdefault(begin, set()).add(end.split(".")[0])
    return found


def _without_levels(
    longer: Mapping[str, str], shorter: Mapping[str, str], children: Mapping[str, set[str]]
) -> dict[str, str]:
    """Full names of the shorter to those of the longer, where one level less makes them agree."""
    found: dict[str, str] = {}
    for name, full in longer.items():
        for begin, end in _cuts(name):
            _, _, rest = end.partition(".")
            less = begin + rest
            if rest and less in shorter and len(children.get(begin, ())) == 1 and shorter[less] not in found:
                found[shorter[less]] = full
    return found
