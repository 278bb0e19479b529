"""What coefficients a merge may be told to begin with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

import torch
from torch import Tensor

from monai_medmerge.errors import SettingError

Start = str | Tensor | Mapping[str, Tensor]
NAMED = ("uniform", "anchor")
TOLERANCE = 1e-3
"""By how much coefficients that must sum to one may miss it."""


def check_start(start: Start, constraint: str, sources: int, names: Set[str]) -> None:
    """Refuse a start that the constraint would silently turn into another one.

    Args:
        start: as of `merge`.
        constraint: `softmax` (none below zero, summing to one), `affine` (summing to one) or `free`.
        sources: how many there are.
        names: of the network's tensors.

    Raises:
        SettingError: it is unknown, not finite or outside of its constraint, or it names a tensor that is not there.

    Example:
        >>> check_start(torch.tensor([0.7, 0.3]), "softmax", 2, set())
        >>> check_start(torch.tensor([0.7, 0.7]), "softmax", 2, set())
        Traceback (most recent call last):
        monai_medmerge.errors.SettingError: start: expected coefficients that sum to one, found a sum of 1.4
    """
    if isinstance(start, str):
        if start not in NAMED:
            raise SettingError(f"{', '.join(NAMED)}, a tensor or a mapping of tensors", repr(start), "start")
    elif isinstance(start, Tensor):
        if tuple(start.shape) != (sources,):
            raise SettingError(f"a tensor of shape ({sources},)", f"{tuple(start.shape)}", "start")
        _check_values(start, constraint, "start")
    else:
        if unknown := sorted(set(start) - names):
            raise SettingError("names of the network's tensors", ", ".join(unknown), "start")
        for name, values in start.items():
            _check_values(values, constraint, f"start, {name}")


def among(start: Tensor, present: Sequence[int]) -> Tensor:
    """The coefficients of the sources that have a tensor; they share those of the others.

    Args:
        start: (source, ...), of all sources.
        present: indices of those that have it.

    Returns:
        (present source, ...). Where all weight is on sources that lack the tensor, the first one that has it takes
        it. Coefficients below zero have no shares to spread: they stay as they are, with the first taking what the
        others lose.

    Example:
        >>> among(torch.tensor([0.5, 0.25, 0.25]), [0, 1])
        tensor([0.6667, 0.3333])
        >>> among(torch.tensor([0.0, 0.0, 1.0]), [0, 1])
        tensor([1., 0.])
    """
    chosen = start[list(present)]
    if len(chosen) == len(start):
        return chosen.clone()
    total, left = start.sum(0), chosen.sum(0)
    shares = chosen * (total / left.where(left != 0, torch.ones_like(left)))
    given = chosen.clone()
    given[0] += total - left
    return torch.where((start >= 0).all(0) & (left != 0), shares, given)


def _check_values(values: Tensor, constraint: str, where: str) -> None:
    values = values.detach().float()
    if not torch.isfinite(values).all():
        raise SettingError("finite coefficients", "NaN or infinity", where)
    if constraint == "softmax" and (values < 0).any():
        raise SettingError("coefficients of at least 0", f"{values.min().item():.4g}", where)
    sums = values.sum(0)
    if constraint != "free" and ((sums - 1).abs() > TOLERANCE).any():
        worst = sums.flatten()[(sums - 1).abs().argmax()].item()
        raise SettingError("coefficients that sum to one", f"a sum of {worst:.4g}", where)
