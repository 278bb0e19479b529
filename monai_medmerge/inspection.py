"""The one way to look at a network without changing it, and at what a data loader gives."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from monai_medmerge.errors import DatasetError

Network = TypeVar("Network", bound=nn.Module)
EXPECTED = "a tensor, a dictionary with `{image}`, a sequence that begins with an image, or a list of such cases"


@contextmanager
def evaluating(*networks: nn.Module, gradients: bool = False) -> Iterator[None]:
    """All layers in evaluation mode and no gradient; each module's own mode and each parameter's flag come back.

    Args:
        networks: to be looked at; modes may differ from layer to layer.
        gradients: whether gradients are recorded inside.

    Example:
        >>> network = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2).eval())
        >>> with evaluating(network):
        ...     [module.training for module in network]
        [False, False]
        >>> [module.training for module in network]
        [True, False]
    """
    modes = [(module, module.training) for network in networks for module in network.modules()]
    flags = [(parameter, parameter.requires_grad) for network in networks for parameter in network.parameters()]
    try:
        for network in networks:
            network.eval()
        with torch.set_grad_enabled(gradients):
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            # Torch lets no parameter be asked that has a history, as of a network in the middle of a step.
            if parameter.requires_grad != flag:
                parameter.requires_grad_(flag)


def device_of(network: nn.Module) -> torch.device:
    """Where a network computes: the device of its first parameter, else of its first buffer, else the CPU.

    Args:
        network: any module.

    Example:
        >>> device_of(nn.ReLU())
        device(type='cpu')
    """
    return _first(network, torch.empty(0, device="cpu")).device


def dtype_of(network: nn.Module) -> torch.dtype:
    """In what a network computes: the dtype of its first floating-point parameter or buffer, else float32.

    Args:
        network: any module.

    Example:
        >>> dtype_of(nn.Linear(1, 1).double()), dtype_of(nn.ReLU())
        (torch.float64, torch.float32)
    """
    floating = (tensor for tensor in _tensors_of(network) if tensor.is_floating_point())
    return next(floating, torch.empty(0, dtype=torch.float32)).dtype


def copy_network(network: Network, memo: dict[int, Any] | None = None) -> Network:
    """`copy.deepcopy`, also for networks that keep activations as attributes.

    MONAI's DynUNet keeps the outputs of its deep-supervision heads and SABlock its attention matrix. Torch refuses to
    copy a tensor with a history, so the copy holds them without it; the next forward pass replaces them.

    Args:
        network: any module; stays untouched.
        memo: as of `copy.deepcopy`: filled with the copies by the id of their originals.

    Example:
        >>> layer = nn.Linear(1, 1)
        >>> layer.kept = [layer(layer.weight)]
        >>> copy_network(layer).kept[0].requires_grad
        False
    """
    memo = {} if memo is None else memo
    for module in network.modules():
        for value in vars(module).values():
            memo.update({id(tensor): tensor.detach().clone() for tensor in _inside(value) if not tensor.is_leaf})
    return copy.deepcopy(network, memo)


def image_of(batch: Any, image: str = "image") -> Tensor:
    """The images of a batch.

    Args:
        batch: in any form that `image_and_label` takes.
        image: key of the images in dictionaries.

    Returns:
        Plain (batch, channel, ...).

    Raises:
        DatasetError: there is none.

    Example:
        >>> image_of([{"image": torch.zeros(1, 4)}, {"image": torch.ones(1, 4)}]).shape
        torch.Size([2, 1, 4])
    """
    return image_and_label(batch, image)[0]


def image_and_label(batch: Any, image: str = "image", label: str = "label") -> tuple[Tensor, Any]:
    """Images and labels of a batch, whatever form ignite or MONAI gives it.

    Args:
        batch: images (batch, channel, ...) alone; a dictionary; a sequence that begins with images and labels; or a
            list of cases, dictionaries or pairs, as MONAI's decollated batches are: those are stacked.
        image: key of the images in dictionaries.
        label: key of the labels in dictionaries.

    Returns:
        The images as a plain tensor, and the labels, a plain tensor where they are tensors or numbers, or None.

    Raises:
        DatasetError: there is no image, or cases of one list differ in size.

    Example:
        >>> image_and_label({"image": torch.zeros(2, 1), "label": torch.tensor([0, 1])})[1]
        tensor([0, 1])
        >>> image_and_label([{"image": torch.zeros(1), "label": 3}, {"image": torch.zeros(1), "label": 4}])[1]
        tensor([3, 4])
    """
    found, labels = batch, None
    if isinstance(batch, Mapping):
        found, labels = batch.get(image), batch.get(label)
    elif isinstance(batch, Sequence) and not isinstance(batch, str):
        if len(batch) and (isinstance(batch[0], Mapping) or _is_pair(batch[0])):
            cases = [image_and_label(case, image, label) for case in batch]
            found = _stacked([one for one, _ in cases], image)
            labels = None if any(one is None for _, one in cases) else _stacked([one for _, one in cases], label)
        else:
            found, labels = (*batch, None, None)[:2]
    plain = _plain(found)
    if not isinstance(plain, Tensor) or not plain.ndim:
        raise DatasetError(EXPECTED.format(image=image), type(found).__name__, "batch")
    return plain, _plain(labels)


def _is_pair(case: object) -> bool:
    return isinstance(case, list | tuple) and len(case) >= 2 and isinstance(case[0], Tensor) and case[0].ndim > 0


def _plain(value: Any) -> Any:
    # MetaTensors would carry their metadata, a file's name among it, through every operation.
    if isinstance(value, Tensor):
        return value.as_subclass(Tensor)
    if isinstance(value, str) or value is None:
        return value
    try:
        return torch.as_tensor(value).as_subclass(Tensor)
    except (TypeError, ValueError, RuntimeError):
        return value


def _stacked(values: Sequence[Any], what: str) -> Tensor:
    tensors = [_plain(value) for value in values]
    if not all(isinstance(tensor, Tensor) for tensor in tensors):
        found = next(type(tensor).__name__ for tensor in tensors if not isinstance(tensor, Tensor))
        raise DatasetError("tensors or numbers", found, f"batch, {what}")
    if len({tensor.shape for tensor in tensors}) > 1:
        raise DatasetError("cases of one size", f"{[tuple(tensor.shape) for tensor in tensors]}", f"batch, {what}")
    return torch.stack(tensors)


def _tensors_of(network: nn.Module) -> Iterator[Tensor]:
    yield from network.parameters()
    yield from network.buffers()


def _first(network: nn.Module, otherwise: Tensor) -> Tensor:
    return next(_tensors_of(network), otherwise)


def _inside(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _inside(item)
