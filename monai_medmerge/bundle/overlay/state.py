"""Put back what a phase has drawn and counted: random states, gradient scalers, losses with a memory."""

from __future__ import annotations

import functools
import random
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigWorkflow, ReferenceResolver
from monai.transforms import Randomizable
from torch import Tensor, nn

Undo = Callable[[], object]


@contextmanager
def preserved(*roots: object, leave: Sequence[nn.Module] = ()) -> Iterator[None]:
    """Restore every random state, and the state of every scaler and loss, that can be reached from some objects.

    What runs inside can train on the very data loader, transforms and loss of a later training, and leaves that
    training as it would have been: global generators (Python, numpy, torch, all GPUs), generators of samplers and of
    MONAI's random transforms wherever they hide, gradient scalers, modules that carry a state.

    Args:
        roots: data loaders, iteration functions, losses; the walk goes through attributes, containers, partial
            functions and closures, not into arrays or tensors.
        leave: modules whose state nothing inside will change; it is not copied, also where others hold them.

    Example:
        >>> with preserved():
        ...     first = torch.rand(1)
        >>> torch.equal(first, torch.rand(1))
        True
    """
    undo = [*_global_states(), *_reachable_states([*roots, Randomizable.R], leave)]
    try:
        yield
    finally:
        for restore in undo:
            restore()


def _global_states() -> Iterator[Undo]:
    yield functools.partial(random.setstate, random.getstate())
    # The legacy state is the one that MONAI and its users draw from.
    yield functools.partial(np.random.set_state, np.random.get_state())  # noqa: NPY002
    yield functools.partial(torch.set_rng_state, torch.get_rng_state())
    if torch.cuda.is_available():
        yield functools.partial(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all())


def _reachable_states(roots: list[Any], leave: Sequence[nn.Module]) -> Iterator[Undo]:
    # Objects are kept, so that no identity is given to a second one during the walk.
    seen: dict[int, object] = {id(module): module for module in leave}
    left = {id(tensor) for module in leave for tensor in module.state_dict(keep_vars=True).values()}
    waiting = list(roots)
    while waiting:
        found = waiting.pop()
        if id(found) in seen or found is None or isinstance(found, _LEAVES):
            continue
        seen[id(found)] = found
        undo = _state_of(found, left)
        if undo is not None:
            yield undo
        else:
            waiting.extend(_parts(found))


# A configuration's resolver knows every object there is, also those that take no part in the iteration.
_LEAVES = (str, bytes, int, float, Tensor, np.ndarray, type, types.ModuleType, ConfigWorkflow, ReferenceResolver)


def _state_of(found: Any, left: set[int]) -> Undo | None:
    if isinstance(found, np.random.RandomState):
        return functools.partial(found.set_state, found.get_state())
    if isinstance(found, np.random.Generator):
        return functools.partial(setattr, found.bit_generator, "state", found.bit_generator.state)
    if isinstance(found, random.Random):
        return functools.partial(found.setstate, found.getstate())
    if isinstance(found, torch.Generator):
        return functools.partial(found.set_state, found.get_state())
    if isinstance(found, torch.amp.GradScaler):
        return functools.partial(found.load_state_dict, found.state_dict())
    if isinstance(found, nn.Module):
        state = {
            name: value.detach().clone()
            for name, value in found.state_dict(keep_vars=True).items()
            if isinstance(value, Tensor) and id(value) not in left
        }
        return functools.partial(found.load_state_dict, state, strict=False)
    return None


def _parts(found: Any) -> Iterator[object]:
    if isinstance(found, Mapping):
        yield from found.values()
    elif isinstance(found, list | tuple | set | frozenset):
        yield from found
    elif isinstance(found, functools.partial):
        yield from (found.func, found.args, found.keywords)
    elif isinstance(found, types.MethodType | types.BuiltinMethodType):
        yield found.__self__
        yield getattr(found, "__func__", None)
    else:
        for cell in (found.__closure__ or ()) if isinstance(found, types.FunctionType) else ():
            try:
                yield cell.cell_contents
            except ValueError:  # a cell that nothing has filled yet
                continue
        yield from list(getattr(found, "__dict__", {}).values())
