"""Parts that keep patients together and classes in proportion."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from monai_medmerge.data.gathering.items import Item
from monai_medmerge.errors import SettingError


def split(items: Sequence[Item], shares: Mapping[str, float], seed: int = 0) -> list[Item]:
    """Give a part to every labelled item that has none.

    Patients go, the largest first and otherwise in random order, to the part that is furthest from its share of their
    classes; an item without a patient is a patient of its own.

    Args:
        items: those with a part keep it; a part that the user filled gets nothing more, but for the training part.
        shares: `validation` and `test` to fractions from 0 to below 1; the rest is for training.
        seed: of the order.

    Returns:
        All items, in their order, each with a part.

    Raises:
        SettingError: shares are negative or leave nothing for training.

    Example:
        >>> from pathlib import Path
        >>> items = [Item(Path(f"{n}.png"), "ab"[n % 2], f"p{n // 4}") for n in range(80)]
        >>> found = split(items, {"validation": 0.2, "test": 0.2})
        >>> [sum(item.part == part for item in found) for part in ("training", "validation", "test")]
        [48, 16, 16]
    """
    filled = {item.part for item in items}
    wanted = {part: share for part, share in shares.items() if share and part not in filled}
    if any(not 0 <= share < 1 for share in shares.values()) or sum(shares.values()) >= 1:
        raise SettingError("shares from 0 to 1 that leave some for training", f"{dict(shares)}", "--validation, --test")
    wanted["training"] = 1 - sum(wanted.values())
    open_items = [n for n, item in enumerate(items) if item.part is None]
    chosen = _assign([items[n] for n in open_items], wanted, np.random.default_rng(seed))
    found = list(items)
    for n, part in zip(open_items, chosen, strict=True):
        found[n] = replace(found[n], part=part)
    return found


def _assign(items: Sequence[Item], wanted: Mapping[str, float], rng: np.random.Generator) -> list[str]:
    names = sorted({str(item.label) for item in items if isinstance(item.label, str)})
    groups: dict[str, list[int]] = defaultdict(list)
    for n, item in enumerate(items):
        groups[f"patient {item.patient}" if item.patient is not None else f"item {n}"].append(n)
    counts = {group: _counts([items[n] for n in members], names) for group, members in groups.items()}
    shuffled = [list(groups)[n] for n in rng.permutation(len(groups))]
    order = sorted(shuffled, key=lambda group: -len(groups[group]))
    total = np.sum(list(counts.values()), axis=0) if counts else np.zeros(1)
    have = {part: np.zeros_like(total, dtype=float) for part in wanted}
    chosen = [""] * len(items)
    for group in order:
        counted = counts[group]

        # By how much of its share of these classes a part still lacks.
        def lack(part: str, counted: np.ndarray = counted) -> float:
            missing = (wanted[part] * total - have[part]) / np.maximum(wanted[part] * total, 1e-9)
            return float((missing * counted / np.maximum(total, 1)).sum())

        part = max(sorted(wanted), key=lack)
        have[part] = have[part] + counted
        for n in groups[group]:
            chosen[n] = part
    return chosen


def _counts(items: Sequence[Item], names: Sequence[str]) -> np.ndarray:
    """How many of each class; of label maps, how many there are."""
    if not names:
        return np.array([len(items)], float)
    return np.array([sum(item.label == name for item in items) for name in names], float)
