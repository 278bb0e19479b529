"""Position embeddings for images or windows of another size."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

EMBEDDINGS = re.compile(r"(pos(ition(al)?)?_?embed(ding)?s?|position_embeddings)$")
TABLE = "relative_position_bias_table"
MODES = {1: "linear", 2: "bicubic", 3: "trilinear"}


def resized(modules: Mapping[str, nn.Module], name: str, tensor: Tensor, wanted: tuple[int, ...]) -> tuple[Tensor, str]:
    """An embedding of positions interpolated to another number of them, and what was done; else as it is.

    Embeddings are (1, tokens, channels), tables of relative positions (offsets, heads). Places are taken to be a grid
    of the shape that the network's has: what comes first beyond the grid, class tokens, is kept.

    Args:
        modules: the network's, by name.
        name: of the tensor.
        tensor: as the source has it.
        wanted: the network's shape.
    """
    table = name.endswith(TABLE)
    if not (table or EMBEDDINGS.search(name.rpartition(".")[2])) or tensor.ndim != len(wanted):
        return tensor, ""
    axis = 0 if table else 1
    if any(a != b for i, (a, b) in enumerate(zip(tensor.shape, wanted, strict=True)) if i != axis):
        return tensor, ""
    grid = _window(modules, name) if table else _patches(modules, name, wanted[1])
    if not grid:
        return tensor, ""
    extra = wanted[axis] - math.prod(grid)
    before = _grid_like(grid, tensor.shape[axis] - extra)
    if not before or extra < 0:
        return tensor, ""
    places = tensor if table else tensor[0]
    kept, laid = places[:extra], places[extra:].T.reshape(1, -1, *before)
    mode = MODES[len(grid)]
    new = functional.interpolate(laid.float(), size=grid, mode=mode, align_corners=False).to(tensor.dtype)
    new = new.reshape(laid.shape[1], -1).T
    whole = torch.cat([kept, new])
    shapes = f"{' x '.join(map(str, before))} to {' x '.join(map(str, grid))}"
    return (whole if table else whole[None]), f"{name}: positions of {shapes}, interpolated"


def _window(modules: Mapping[str, nn.Module], name: str) -> tuple[int, ...]:
    """Offsets along each axis of an attention window."""
    size = getattr(modules.get(name.rpartition(".")[0]), "window_size", None)
    return tuple(2 * int(length) - 1 for length in size) if isinstance(size, Sequence) else ()


def _patches(modules: Mapping[str, nn.Module], name: str, tokens: int) -> tuple[int, ...]:
    """Patches along each axis of an image: as many axes as the patches' own layer has, of equal length."""
    block = modules.get(name.rpartition(".")[0])
    layers = [
        m for m in (block.modules() if block is not None else ()) if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    ]
    dimensions = [len(layers[0].kernel_size)] if layers else [3, 2]
    for count in dimensions:
        for extra in (0, 1, 2):
            if grid := _equal_sides(tokens - extra, count):
                return grid
    return ()


def _equal_sides(places: int, dimensions: int) -> tuple[int, ...]:
    side = round(max(places, 0) ** (1 / dimensions))
    return (side,) * dimensions if side > 0 and side**dimensions == places else ()


def _grid_like(grid: tuple[int, ...], places: int) -> tuple[int, ...]:
    """A grid of so many places with sides in proportion to another one's."""
    if places <= 0:
        return ()
    scale = (places / math.prod(grid)) ** (1 / len(grid))
    sides = tuple(round(length * scale) for length in grid)
    return sides if min(sides) > 0 and math.prod(sides) == places else ()
