"""Networks side by side: no merge, but the reference that merges are compared with."""

from __future__ import annotations

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

    Raises:
        SettingError: there is no network.

    Example:
        >>> ensemble = Ensemble([nn.Linear(3, 2), nn.Linear(3, 2)])
        >>> ensemble(torch.zeros(4, 3)).sum(1)
        tensor([1., 1., 1., 1.], grad_fn=<SumBackward1>)
    """

    def __init__(self, networks: Sequence[nn.Module], probabilities: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        if not networks:
            raise SettingError("at least one network", "none", "ensemble")
        self.networks = nn.ModuleList(networks)
        self.probabilities = probabilities or partial(torch.softmax, dim=1)

    def forward(self, image: Tensor) -> Tensor:
        """Probabilities (batch, class, ...)."""
        return torch.stack([self.probabilities(network(image)) for network in self.networks]).mean(0)
