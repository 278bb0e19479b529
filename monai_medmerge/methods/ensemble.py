"""Networks side by side: no merge, but the reference that merges are compared with, and a teacher."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from monai_medmerge.errors import SettingError


class Ensemble(nn.Module):
    """Mean of the probabilities that several networks predict, at N times the cost of one.

    Args:
        networks: one or more, with outputs of one shape.
        probabilities: from an output to probabilities; softmax over the channels if not given.
        weights: one for each network, in any unit; equal if not given. A network of weight 0 is not asked.

    Raises:
        SettingError: there is no network, or weights are not one for each, negative or all 0.

    Example:
        >>> ensemble = Ensemble([nn.Linear(3, 2), nn.Linear(3, 2)], weights=[3, 1])
        >>> ensemble(torch.zeros(4, 3)).sum(1)
        tensor([1., 1., 1., 1.], grad_fn=<SumBackward1>)
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        probabilities: Callable[[Tensor], Tensor] | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if not networks:
            raise SettingError("at least one network", "none", "ensemble")
        given = [1.0] * len(networks) if weights is None else [float(weight) for weight in weights]
        total = math.fsum(given)
        if len(given) != len(networks) or min(given) < 0 or not 0 < total < math.inf:
            expected = f"a weight of 0 or more for each of {len(networks)} networks, not all 0"
            raise SettingError(expected, f"{given}", "ensemble, weights")
        kept = [(network, weight / total) for network, weight in zip(networks, given, strict=True) if weight]
        self.networks = nn.ModuleList(network for network, _ in kept)
        self.weights = [weight for _, weight in kept]
        self.probabilities = probabilities or partial(torch.softmax, dim=1)

    def forward(self, image: Tensor) -> Tensor:
        """Probabilities (batch, class, ...)."""
        found: Tensor | None = None
        for network, weight in zip(self.networks, self.weights, strict=True):
            share = self.probabilities(network(image)) * weight
            found = share if found is None else found + share
        if found is None:
            raise SettingError("at least one network", "none", "ensemble")
        return found
