"""Does a network still compute what it computed?"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import CodeType, FunctionType, MethodType
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.utils._pytree import tree_leaves

from monai_medmerge.inspection import copy_network

Network = TypeVar("Network", bound=nn.Module)

# What rounding may change, relative to the largest output. Convolutions in float64 take ten times as long on a
# processor, so that it is asked only where float32 leaves a doubt.
TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-7}

# Where torch defines what differs between the modes in values, and not in how channels depend on each other.
ALIKE_IN_BOTH_MODES = ("torch.nn.modules.batchnorm", "torch.nn.modules.instancenorm", "torch.nn.modules.dropout")


def changed_by(
    network: nn.Module,
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    image: Tensor,
    modes: Sequence[bool] = (False, True),
) -> float:
    """How much the outputs of a network differ between two state dicts, relative to the largest output.

    Args:
        network: gives the architecture; stays untouched.
        before: one state dict.
        after: the other.
        image: a batch that it takes.
        modes: for each pass, whether it trains.

    Returns:
        0 where the difference is rounding.

    Example:
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> one, three = ({"weight": torch.tensor([[value, value]])} for value in (1.0, 3.0))
        >>> changed_by(layer, one, three, torch.ones(1, 2)), changed_by(layer, one, one, torch.ones(1, 2))
        (2.0, 0.0)
    """
    difference = 0.0
    for dtype, tolerance in TOLERANCES.items():
        copied = copy_network(network).to(dtype)
        outputs = []
        for state in (before, after):
            copied.load_state_dict(state)
            outputs.append(outputs_of_both_modes(copied, image.to(dtype), modes))
        difference = largest_difference(outputs[1], outputs[0])
        if difference <= tolerance:
            return 0.0
    return difference


def outputs_of_both_modes(
    network: nn.Module, example_input: Tensor, modes: Sequence[bool] = (False, True)
) -> list[Tensor]:
    """All tensors that a network returns, in evaluation and in training; dropout is switched off for good.

    Dropout draws its mask place by place, so that permuted channels meet other masks: without it training is as
    deterministic as evaluation. What else is random begins from one seed.

    Args:
        network: changed: mode, dropout rates and, by training, running statistics.
        example_input: a batch that it takes. A single image is doubled for training, as batch-norm needs.
        modes: for each pass, whether it trains.
    """
    for module in network.modules():
        for rate in ("p",) if isinstance(module, _DropoutNd) else ("dropout", "dropout_rate"):
            # Attention blocks of torch and MONAI keep the rate as a number.
            if isinstance(getattr(module, rate, None), float):
                setattr(module, rate, 0.0)
    # A MetaTensor wraps every result anew, and what is noted on a tensor would be lost.
    image = example_input.as_subclass(Tensor)
    found: list[Tensor] = []
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for training in modes:
            torch.manual_seed(0)
            network.train(training)
            output = network(torch.cat([image, image]) if training and len(image) == 1 else image)
            found += [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
    return found


@contextmanager
def restored(network: nn.Module) -> Iterator[None]:
    """Undo afterwards what forward passes and `outputs_of_both_modes` change of a network, without copying it.

    Modes, rates, attributes and their lists are put back; buffers are copies meanwhile. Parameters are not looked at:
    a forward pass that writes into them is beyond this.

    Args:
        network: the same in the end, also when an error is raised.

    Example:
        >>> norm = nn.BatchNorm1d(2)
        >>> with restored(norm):
        ...     _ = outputs_of_both_modes(norm, torch.ones(3, 2))
        >>> norm.training, norm.running_mean.tolist(), int(norm.num_batches_tracked)
        (True, [0.0, 0.0], 0)
    """
    modules = list(network.modules())
    attributes = [dict(vars(module)) for module in modules]
    lists = [(value, list(value)) for saved in attributes for value in saved.values() if isinstance(value, list)]
    # A buffer under two names stays one tensor.
    copies = {id(buffer): buffer.clone() for buffer in network.buffers()}
    try:
        for module in modules:
            module._buffers = {name: None if b is None else copies[id(b)] for name, b in module._buffers.items()}
        yield
    finally:
        for module, saved in zip(modules, attributes, strict=True):
            vars(module).clear()
            vars(module).update(saved)
        for value, saved_values in lists:
            value[:] = saved_values


def asks_for_mode(network: nn.Module) -> bool:
    """Whether the code of any layer may do something else in training than in evaluation.

    Norm and dropout of torch do, but treat every channel alike in both modes, and do not count.

    Example:
        >>> asks_for_mode(nn.Sequential(nn.BatchNorm1d(2), nn.Dropout())), asks_for_mode(nn.RReLU())
        (False, True)
    """
    modules = list(network.modules())
    classes = {kind for module in modules for kind in type(module).__mro__} - {nn.Module, object}
    if torch.jit.ScriptModule in classes:
        return True
    # Modules may have functions of their own, in place of methods.
    own = (value for module in modules for value in vars(module).values() if isinstance(value, FunctionType))
    return any(_class_asks_for_mode(kind) for kind in classes) or any(_asks_for_mode(value) for value in own)


@functools.cache
def _class_asks_for_mode(kind: type) -> bool:
    return kind.__module__ not in ALIKE_IN_BOTH_MODES and any(_asks_for_mode(value) for value in vars(kind).values())


def _asks_for_mode(value: object) -> bool:
    code = _code(value)
    return code is not None and _reads_mode(code)


def _code(value: object) -> CodeType | None:
    """What a function, method or property runs; None for anything else."""
    if isinstance(value, property):
        value = value.fget
    elif isinstance(value, staticmethod | classmethod | MethodType):
        value = value.__func__
    return getattr(inspect.unwrap(value), "__code__", None) if isinstance(value, FunctionType) else None


def _reads_mode(code: CodeType) -> bool:
    nested = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return "training" in code.co_names or any(map(_reads_mode, nested))


def random_copy(network: Network, seed: int = 0) -> Network:
    """A float64 copy in which no two numbers are equal that training could make different.

    Fresh networks have scales of one, shifts of zero and equal statistics: permuting those shows nothing.

    Example:
        >>> random_copy(nn.BatchNorm1d(2)).weight.unique().numel()
        2
    """
    copied = copy_network(network).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in copied.state_dict(keep_vars=True).values():
            if not tensor.is_floating_point() or not tensor.numel():
                continue
            noise = torch.rand(tensor.shape, dtype=tensor.dtype, generator=generator) - 0.5
            # Numbers above zero may be variances, and stay above it.
            if tensor.min() > 0:
                tensor.mul_(1 + noise)
            else:
                tensor.add_(noise * tensor.square().mean().sqrt().clamp(min=0.1))
    return copied


def largest_difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest absolute difference of any output, relative to the largest value of that output.

    NaN, where either has it, counts as infinite.

    Example:
        >>> largest_difference([torch.tensor([1.0, 4.0])], [torch.tensor([1.0, 5.0])])
        0.2...
    """
    worst = 0.0
    for a, b in zip(found, expected, strict=True):
        if b.numel():
            difference = float((a - b).abs().max() / b.abs().max().clamp(min=torch.finfo(b.dtype).tiny))
            worst = max(worst, difference) if difference == difference else float("inf")
    return worst
