"""Operations of torch as they pass by: arguments by name, the tensors among them, and the shape of a convolution."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class Call:
    """One operation that has run.

    Args:
        op: its overload.
        bound: all of its arguments by the names of its schema.
        out: what it returned.

    Attributes:
        inputs: all tensors among the arguments.
        outputs: all tensors that it returned.
    """

    op: torch._ops.OpOverload
    bound: dict[str, Any]
    out: Any

    def __post_init__(self) -> None:
        self.inputs = _tensors(self.bound.values())
        self.outputs = _tensors((self.out,))

    @property
    def name(self) -> str:
        """Name without its namespace and overload."""
        return operation_name(self.op)


@functools.cache
def operation_name(op: torch._ops.OpOverload) -> str:
    """Name of an operation without its namespace and overload."""
    return op._schema.name.split("::")[1]


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    """All tensors among arguments or results: alone, or in the lists that operations take and return."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _tensors(value)
    return found


@functools.cache
def argument_names(op: torch._ops.OpOverload) -> tuple[str, ...]:
    """Names of an operation's arguments, in order."""
    return tuple(argument.name for argument in op._schema.arguments)


def convolution_shape(bound: Mapping[str, Any]) -> list[int] | None:
    """Shape of a convolution's result, (batch, channel, axes...); None if torch would refuse the arguments.

    Args:
        bound: its arguments by the names of its schema.

    Example:
        >>> arguments = {"stride": [2], "padding": [1], "dilation": [1], "output_padding": [0], "groups": 1}
        >>> image, kernel = torch.zeros(1, 3, 8, 8), torch.zeros(5, 3, 3, 3)
        >>> convolution_shape({**arguments, "input": image, "weight": kernel, "transposed": False})
        [1, 5, 4, 4]
    """
    source, weight, transposed = bound["input"], bound["weight"], bound["transposed"]
    inputs, outputs = weight.shape[:2] if transposed else weight.shape[1::-1]
    groups = bound["groups"]
    inputs, outputs = (inputs, outputs * groups) if transposed else (inputs * groups, outputs)
    if source.ndim != weight.ndim or source.shape[1] != inputs or source.dtype != weight.dtype:
        return None
    axes = source.ndim - 2
    # One number may stand for all axes.
    settings = ([*bound[k]] * axes for k in ("stride", "padding", "dilation", "output_padding"))
    shape = [source.shape[0], outputs]
    numbers = zip(source.shape[2:], weight.shape[2:], *settings, strict=False)
    for length, width, stride, padding, dilation, extra in numbers:
        reach = dilation * (width - 1) + 1
        if transposed:
            shape.append((length - 1) * stride - 2 * padding + reach + extra)
        else:
            shape.append((length + 2 * padding - reach) // stride + 1)
    return shape if min(shape) > 0 else None
