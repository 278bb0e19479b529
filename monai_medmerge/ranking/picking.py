"""Which source a few labels pick: by the log loss of a linear probe that has not seen the label it is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from torch import nn

from monai_medmerge.ranking.features import extract
from monai_medmerge.ranking.transferability import cross_validated

PULL = 0.1
"""Inverse strength of the probe's L2 penalty: features are many, labels few."""
FLOOR = 1e-6


def probe_log_loss(
    features: Float[np.ndarray, "case feature"],
    labels: Int[np.ndarray, " case"],
    groups: Int[np.ndarray, " case"] | None = None,
    folds: int = 5,
    seed: int = 0,
) -> float:
    """Cross-validated log loss of a logistic regression on standardised features; lower is better.

    Log loss tells sources apart with fewer labels than accuracy or F1 do, which only see which class is likeliest.

    Args:
        features: float (case, feature).
        labels: class numbers, int (case,).
        groups: cases of one group (voxels of an image, images of a patient) stay in one fold.
        folds: at the most; fewer where a class has fewer cases or groups.
        seed: of the folds.

    Returns:
        Mean of ``-log p(label)`` over held-out cases; NaN where a class has fewer than two cases or groups.

    Example:
        >>> labels = np.repeat([0, 1], 20)
        >>> noise = np.random.default_rng(0).normal(size=(40, 3))
        >>> probe_log_loss(noise + 5 * labels[:, None], labels) < 0.3 < probe_log_loss(noise, labels)
        True
    """
    said = held_out_probabilities(features, labels, groups, folds, seed)
    if said is None:
        return float("nan")
    numbers = np.unique(labels, return_inverse=True)[1]
    return float(-np.log(np.maximum(said[np.arange(len(labels)), numbers], FLOOR)).mean())


def held_out_probabilities(
    features: Float[np.ndarray, "case feature"],
    labels: Int[np.ndarray, " case"],
    groups: Int[np.ndarray, " case"] | None = None,
    folds: int = 5,
    seed: int = 0,
) -> Float[np.ndarray, "case class"] | None:
    """What the same regression says of each case when it was fitted to the others.

    Args:
        features: as of `probe_log_loss`.
        labels: as of `probe_log_loss`.
        groups: as of `probe_log_loss`.
        folds: as of `probe_log_loss`.
        seed: as of `probe_log_loss`.

    Returns:
        Probabilities of the classes that there are, in their order; None where one has fewer than two cases or groups.
    """
    numbers = np.unique(labels, return_inverse=True)[1]
    return cross_validated(features, numbers, groups, folds, seed, pull=PULL, method="predict_proba")


def probe_losses(
    networks: Sequence[nn.Module], batches: Iterable[Any], layer: str | None = None, seed: int = 0
) -> list[float]:
    """The same for several networks of one architecture on labelled images, of their features before the head.

    Args:
        networks: recalibrated, if they have batch norm; modes are put back.
        batches: labelled images without augmentation: dictionaries with `image` and `label`.
        layer: as of `extract`.
        seed: of folds and voxels.

    Returns:
        One loss for each network.
    """
    found = extract(networks, batches, layer, seed)
    groups = found[0].images if found[0].voxels else None
    return [probe_log_loss(features.values, features.labels, groups, seed=seed) for features in found]
