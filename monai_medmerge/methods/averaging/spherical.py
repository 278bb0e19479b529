"""Spherical linear interpolation between two sources."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from monai_medmerge.errors import SettingError
from monai_medmerge.methods.registry import method
from monai_medmerge.methods.tensors import wide

# Below this sine the formula divides rounding errors by one another, and the straight line is as close to the arc.
SMALLEST_SINE = 1e-4


@method(
    "slerp",
    reference="[Shoemake, 1985](https://doi.org/10.1145/325165.325242)",
    symmetric=False,
    least=2,
    most=2,
)
def slerp(tensors: Sequence[Float[Tensor, "*shape"]], *, t: float = 0.5) -> Float[Tensor, "*shape"]:
    """Point on the arc between two sources, which keeps the norm that a mean of unlike tensors loses.

    ``W = sin((1 - t) * a) / sin(a) * W[0] + sin(t * a) / sin(a) * W[1]``, a being the angle between the two, each
    taken as one vector. Where they point the same way or opposite ways, or one is zero, there is no such arc and the
    straight line is taken.

    Args:
        tensors: two.
        t: where on the arc, 0 (first source) to 1 (second).

    Returns:
        In at least float32.

    Raises:
        SettingError: there are not two tensors, or t is outside 0 to 1.

    Example:
        >>> slerp([torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])])
        tensor([0.7071, 0.7071])
    """
    if len(tensors) != 2:
        raise SettingError("2 sources", str(len(tensors)), "method slerp")
    if not 0 <= t <= 1:
        raise SettingError("a number from 0 to 1", repr(t), "method slerp, t")
    first, second = (wide(tensor) for tensor in tensors)
    norms = [float(torch.linalg.vector_norm(tensor, dtype=torch.float64)) for tensor in (first, second)]
    cosine = float((first * second).sum(dtype=torch.float64)) / (math.prod(norms) or 1.0)
    angle = math.acos(min(max(cosine, -1.0), 1.0))
    if math.sin(angle) < SMALLEST_SINE or 0.0 in norms:
        return torch.lerp(first, second, t)
    shares = (math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle))
    return (first * shares[0]).add_(second, alpha=shares[1])
