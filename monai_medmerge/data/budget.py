"""A smaller training set, drawn so that methods can be compared on the same few labels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from monai_medmerge.data.datasets import load_datalist
from monai_medmerge.errors import DatasetError


def label_budget(items: Sequence[dict[str, Any]], labels: int | None, seed: int) -> list[dict[str, Any]]:
    """Some of the labelled images, classes in the proportions of all, the same for the same seed.

    Args:
        items: dictionaries with a class number, or a 0 or 1 for each class, under `label`.
        labels: how many to take; all if None, none if 0.
        seed: of the draw.

    Returns:
        The chosen items in their order; a class that is there at all keeps at least one.

    Raises:
        DatasetError: there are fewer items, or more classes, than labels wanted.

    Example:
        >>> items = [{"label": n % 3} for n in range(30)]
        >>> sorted(item["label"] for item in label_budget(items, 6, seed=0))
        [0, 0, 1, 1, 2, 2]
    """
    if labels is None or labels == len(items):
        return list(items)
    if labels == 0:
        return []
    found = strata([item["label"] for item in items])
    classes, counts = np.unique(found, return_counts=True)
    if not len(classes) <= labels <= len(items):
        raise DatasetError(f"a number from {len(classes)} to {len(items)}", f"{labels}", "labels")
    # Largest remainder: shares are rounded down, and those who lost most get what is left.
    exact = labels * counts / counts.sum()
    share = np.maximum(np.floor(exact).astype(int), 1)
    while share.sum() != labels:
        step = 1 if share.sum() < labels else -1
        open_to_change = (share < counts) if step > 0 else (share > 1)
        share[np.argmax(np.where(open_to_change, step * (exact - share), -np.inf))] += step
    rng = np.random.default_rng(seed)
    chosen = [rng.permutation(np.flatnonzero(found == c))[:n] for c, n in zip(classes, share, strict=True)]
    return [items[index] for index in np.sort(np.concatenate(chosen))]


def strata(labels: Sequence[Any]) -> np.ndarray:
    """A class number for each item: its own, or of several labels the rarest that it has.

    Args:
        labels: class numbers, or a 0 or 1 for each class.

    Example:
        >>> strata([[1, 0], [1, 1], [1, 0], [0, 0]]).tolist()
        [0, 1, 0, 2]
    """
    found = np.array(labels)
    if found.ndim == 1:
        return found
    several = found.astype(bool)
    rarity = np.where(several, several.sum(0), len(several) + 1)
    return np.where(several.any(1), rarity.argmin(1), several.shape[1])


def load_labelled(
    dataset_dir: str | os.PathLike[str],
    classes: int | None,
    labels: int | None,
    seed: int,
    task: str = "classification",
) -> list[dict[str, Any]]:
    """The labelled images that a run may learn from: a budget of the section `training`, which 0 labels do not need.

    Args:
        dataset_dir: folder with a `dataset.json`.
        classes: as of `load_datalist`.
        labels: as of `label_budget`.
        seed: likewise.
        task: as of `load_datalist`.

    Raises:
        DatasetError: as of both.
    """
    return [] if labels == 0 else label_budget(load_datalist(dataset_dir, "training", classes, task), labels, seed)
