"""Which tensors a source may hold: dense, real and whole."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from monai_medmerge.errors import UnsafeCheckpointError

_INTEGERS = {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool}


def all_finite(tensor: Tensor) -> bool:
    """Whether a tensor has neither NaN nor infinite values.

    Args:
        tensor: of any shape.

    Example:
        >>> all_finite(torch.ones(2)), all_finite(torch.tensor([1.0, float("inf")]))
        (True, False)
    """
    # Kinds of less than 16 bits know no reductions of their own.
    tensor = tensor.float() if tensor.element_size() < 2 else tensor
    # A sum is finite only if every term is, and is far faster than isfinite; it may overflow, so it only acquits.
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())


def is_sound(tensor: Tensor) -> bool:
    """Whether values are finite, or those of a mask: minus infinity and one finite number, as attention has them.

    Args:
        tensor: of any shape.

    Example:
        >>> is_sound(torch.full((3, 3), -torch.inf).triu(1)), is_sound(torch.tensor([-torch.inf, 0.2, 0.1]))
        (True, False)
    """
    if all_finite(tensor):
        return True
    values = tensor.float()
    finite = values[values != -torch.inf]
    return finite.numel() == 0 or (all_finite(finite) and bool((finite == finite[0]).all()))


def check_values(tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse what is no weight.

    Args:
        tensors: names to tensors.
        where: the source, for errors.

    Raises:
        UnsafeCheckpointError: there is none, or one is sparse, quantised, complex, without values, NaN or infinite.
    """
    if not tensors:
        raise UnsafeCheckpointError("at least one tensor", "none", where)
    for name, tensor in tensors.items():
        at = f"{where}, {name}"
        if tensor.is_quantized:
            found = f"quantised numbers ({tensor.dtype}): save the network before it is quantised"
            raise UnsafeCheckpointError("dense tensors with values", found, at)
        if tensor.is_meta:
            raise UnsafeCheckpointError("dense tensors with values", "a tensor on `meta`, which has none", at)
        if tensor.layout != torch.strided:
            found = f"{tensor.layout}: to_dense() before saving"
            raise UnsafeCheckpointError("dense tensors with values", found, at)
        if tensor.is_complex() or not (tensor.is_floating_point() or tensor.dtype in _INTEGERS):
            raise UnsafeCheckpointError("real numbers", f"{tensor.dtype}", at)
        if tensor.is_floating_point() and not is_sound(tensor):
            raise UnsafeCheckpointError("finite weights", "NaN or infinite values", at)


def check_storage(tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse tensors that claim more numbers than their file holds: a small file could ask for any amount of memory.

    Args:
        tensors: names to tensors, as they were read.
        where: the file, for errors.

    Raises:
        UnsafeCheckpointError: a tensor is larger than what it is stored on.
    """
    for name, tensor in tensors.items():
        if tensor.layout == torch.strided and not tensor.is_meta and tensor.nbytes > tensor.untyped_storage().nbytes():
            found = f"{tensor.numel():,} numbers on {tensor.untyped_storage().nbytes():,} bytes"
            raise UnsafeCheckpointError("tensors that hold all their numbers", found, f"{where}, {name}")
