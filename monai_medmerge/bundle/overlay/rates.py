"""Who steps when a user's own iteration steps its optimizers, and something else than their network learns."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer


class Idle(torch.optim.SGD):
    """An optimizer of nothing; a gradient scaler finds a gradient with it all the same.

    Example:
        >>> idle = Idle()
        >>> idle.zero_grad(), idle.step()
        (None, None)
    """

    def __init__(self) -> None:
        nothing = nn.Parameter(torch.zeros(1))
        nothing.grad = torch.zeros(1)
        super().__init__([nothing], lr=0.0)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Keep the gradient of zero."""


class StandIns:
    """Another optimizer for every one of the user's: for the first that is met a given one, idle ones for the rest.

    Args:
        first: stands in for the first.

    Example:
        >>> weight = nn.Parameter(torch.zeros(1))
        >>> theirs = [torch.optim.SGD([weight]), torch.optim.Adam([weight])]
        >>> ours = torch.optim.AdamW([weight])
        >>> first, second = StandIns(ours).of(theirs)
        >>> first is ours, type(second).__name__
        (True, 'Idle')
    """

    def __init__(self, first: Optimizer) -> None:
        self.first = first
        # Optimizers are kept, so that no identity is given to a second one.
        self.met: dict[int, tuple[Optimizer, Optimizer]] = {}

    def of(self, value: Any) -> Any:
        """The same as a value, with stand-ins for the optimizers in it; the value itself where there are none.

        Args:
            value: anything; optimizers are found in lists, tuples, mappings and the arguments of partial functions.
        """
        if isinstance(value, Optimizer):
            return self.met.setdefault(id(value), (Idle() if self.met else self.first, value))[0]
        if next(optimizers(value), None) is None:
            return value
        if isinstance(value, functools.partial):
            return functools.partial(value.func, *self.of(value.args), **self.of(value.keywords))
        if isinstance(value, Mapping):
            return {name: self.of(content) for name, content in value.items()}
        return type(value)([self.of(content) for content in value])


def optimizers(value: Any) -> Iterator[Optimizer]:
    """The optimizers in a value, as `StandIns.of` finds them.

    Args:
        value: anything.
    """
    if isinstance(value, Optimizer):
        yield value
        return
    parts: list[Any] = []
    if isinstance(value, functools.partial):
        parts = [*value.args, *value.keywords.values()]
    elif isinstance(value, Mapping):
        parts = list(value.values())
    elif type(value) in (list, tuple):
        parts = list(value)
    for part in parts:
        yield from optimizers(part)
