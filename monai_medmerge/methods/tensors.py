"""What the methods compute with: tensors that are read when asked for, in a wide enough kind of number."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor


@dataclass(frozen=True)
class TensorHeader:
    """What is known of a tensor without its values.

    Example:
        >>> TensorHeader(torch.float16, (2, 3)).bytes
        12
    """

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Its size."""
        return math.prod(self.shape) * self.dtype.itemsize


class TensorReaders(Sequence[Tensor]):
    """A sequence of tensors, each read anew whenever it is asked for, so that only one has to be in memory.

    Args:
        readers: functions that return a tensor.

    Example:
        >>> tensors = TensorReaders([lambda: torch.zeros(2), lambda: torch.ones(2)])
        >>> [float(tensor.sum()) for tensor in tensors[1:]]
        [2.0]
    """

    def __init__(self, readers: Sequence[Callable[[], Tensor]]) -> None:
        self.readers = tuple(readers)

    def __len__(self) -> int:
        return len(self.readers)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...

    @overload
    def __getitem__(self, index: slice) -> TensorReaders: ...

    def __getitem__(self, index: int | slice) -> Tensor | TensorReaders:
        return TensorReaders(self.readers[index]) if isinstance(index, slice) else self.readers[index]()


def wide(tensor: Tensor) -> Tensor:
    """The tensor in at least float32; itself where it is that already.

    Sums of many float16 or bfloat16 numbers would lose more in rounding than the sources differ by.

    Example:
        >>> wide(torch.zeros(1, dtype=torch.bfloat16)).dtype, wide(torch.zeros(1, dtype=torch.float64)).dtype
        (torch.float32, torch.float64)
    """
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
