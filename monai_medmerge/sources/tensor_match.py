"""What a source has for one tensor of a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["match", "missing", "shape", "dtype", "excluded"]
MATCH: Status = "match"
MISSING: Status = "missing"
SHAPE: Status = "shape"
DTYPE: Status = "dtype"
EXCLUDED: Status = "excluded"


@dataclass(frozen=True)
class Fit:
    """What one source has for one tensor of the network: a status, and in words what differs or was adapted."""

    status: Status
    detail: str = ""

    def __str__(self) -> str:
        return self.detail or self.status


@dataclass(frozen=True)
class TensorMatch:
    """One tensor of the network and what each source has for it."""

    tensor: str
    shape: tuple[int, ...]
    fits: tuple[Fit, ...]
    elements: int

    @property
    def is_kernel(self) -> bool:
        """Whether the tensor has kernels of more than one number: weights of convolutions and linear layers."""
        return len(self.shape) > 1

    @property
    def excluded(self) -> bool:
        """Whether it stays the network's own because the caller said so."""
        return any(fit.status == EXCLUDED for fit in self.fits)


def shape_text(shape: tuple[int, ...]) -> str:
    """A shape as people write it.

    Args:
        shape: lengths of the axes.

    Example:
        >>> shape_text((8, 1, 3, 3)), shape_text(())
        ('8 x 1 x 3 x 3', 'scalar')
    """
    return " x ".join(map(str, shape)) or "scalar"
