"""Weights that are stored in pieces: pruned, weight-normed, spectrally normed. Put together where that is exact."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

ADAPTERS = {"lora_A", "lora_B", "lora_E", "lora_down", "lora_up", "lora_embedding_A", "lora_embedding_B",
            "lora_magnitude_vector", "hada_w1_a", "hada_w2_a", "ia3_l"}  # fmt: skip
"""What adapters call the changes that they have not yet made to the weights."""


@dataclass(frozen=True)
class _Form:
    """How a weight's pieces are called, behind the name of the weight, and how they make it; `what` is for reports."""

    what: str
    pieces: tuple[str, ...]
    make: Callable[..., Tensor | None]


def _pruned(original: Tensor, mask: Tensor) -> Tensor | None:
    return original * mask.to(original.dtype) if original.shape == mask.shape else None


def _weight_normed(magnitude: Tensor, direction: Tensor) -> Tensor | None:
    """``g * v / ||v||``, the norm over all axes but those that g has."""
    if magnitude.numel() == 1 and direction.ndim and direction.shape.numel() != 1:
        kept = [i for i, length in enumerate(direction.shape) if length == 1] if magnitude.ndim else []
        axis = kept[0] if kept else -1
    elif magnitude.ndim == direction.ndim:
        same = [i for i, length in enumerate(magnitude.shape) if length > 1]
        if len(same) > 1 or (same and magnitude.shape[same[0]] != direction.shape[same[0]]):
            return None
        axis = same[0] if same else 0
    else:
        return None
    return torch._weight_norm(direction, magnitude, axis)


def _spectrally_normed(original: Tensor, left: Tensor, right: Tensor) -> Tensor | None:
    """``W / (u' W v)``, W as a matrix whose rows are the axis that u is as long as."""
    for axis in (0, 1):
        if axis < original.ndim and left.shape == (original.shape[axis],):
            matrix = original.movedim(axis, 0).flatten(1)
            if matrix.shape[1] == right.numel() and right.ndim == 1:
                return original / torch.dot(left, torch.mv(matrix, right))
    return None


# The name of the weight takes the place of {}: `weight` is the usual one.
FORMS = (
    _Form("pruned weights multiplied by their masks", ("{}_orig", "{}_mask"), _pruned),
    _Form("weight norm computed", ("{}_g", "{}_v"), _weight_normed),
    _Form("spectral norm computed", ("{}_orig", "{}_u", "{}_v"), _spectrally_normed),
    _Form("weight norm computed", ("parametrizations.{}.original0", "parametrizations.{}.original1"), _weight_normed),
    _Form(
        "spectral norm computed",
        ("parametrizations.{}.original", "parametrizations.{}.0._u", "parametrizations.{}.0._v"),
        _spectrally_normed,
    ),
)


def composed(tensors: Mapping[str, Tensor], wanted: Collection[str]) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors with the pieces of weights put together, and what was done.

    Args:
        tensors: as they are stored.
        wanted: names of a network; one that has pieces itself takes them as they are.

    Example:
        >>> stored = {"fc.weight_orig": torch.ones(1, 2), "fc.weight_mask": torch.tensor([[1.0, 0.0]])}
        >>> composed(stored, ["fc.weight"])[0]
        {'fc.weight': tensor([[1., 0.]])}
    """
    found, notes = dict(tensors), []
    for form in FORMS:
        if any(_owner(name, form.pieces[0]) is not None for name in wanted):
            continue
        count = 0
        for name in tensors:
            owner = _owner(name, form.pieces[0])
            if owner is None or name not in found:
                continue
            layer, attribute = owner
            names = [f"{layer}{piece.format(attribute)}" for piece in form.pieces]
            if not all(piece in found for piece in names) or f"{layer}{attribute}" in tensors:
                continue
            whole = _made(form, [found[piece] for piece in names])
            if whole is not None:
                position = list(found)
                found = {
                    (f"{layer}{attribute}" if key == name else key): (whole if key == name else found[key])
                    for key in position
                    if key == name or key not in names
                }
                count += 1
        if count:
            notes.append(f"{form.what}: {count} tensors")
    return found, notes


def _owner(name: str, piece: str) -> tuple[str, str] | None:
    """The layer, with its dot, and the attribute that a piece belongs to."""
    before, after = piece.split("{}")
    at = name.rfind(before) if before else name.rfind(".") + 1
    if at < 0 or not name.endswith(after) or (at and name[at - 1] != "."):
        return None
    attribute = name[at + len(before) : len(name) - len(after)]
    return (name[:at], attribute) if attribute and "." not in attribute else None


def _made(form: _Form, pieces: list[Tensor]) -> Tensor | None:
    if not all(piece.is_floating_point() or form.what.startswith("pruned") for piece in pieces):
        return None
    with torch.no_grad():
        return form.make(*pieces)
