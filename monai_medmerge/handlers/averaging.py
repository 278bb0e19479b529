"""Weights averaged along one run: flatter than where it ends, at no cost in training."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from monai_medmerge.errors import SettingError


class WeightAverager:
    """Keep the mean of a network's weights over the ends of epochs, or their exponential mean.

    Equal shares after a start are SWA and SWAD (arXiv:1803.05407, arXiv:2102.08604); with a decay it is the mean
    teacher's ``a <- decay * a + (1 - decay) * w`` (arXiv:1703.01780). Running statistics are averaged with the weights
    and do not fit the mean: recalibrate. Integers are those of the last epoch. Resumes as `beside` of `ResumeHandler`.

    Args:
        network: that is trained.
        start: the first epoch that counts, from 1.
        decay: from 0 to below 1; None for equal shares.

    Raises:
        SettingError: the decay or start is out of range, or (when the mean is asked for) no epoch counted.

    Example:
        >>> network = nn.Linear(1, 1, bias=False)
        >>> averager = WeightAverager(network)
        >>> for value in (1.0, 3.0):
        ...     _ = nn.init.constant_(network.weight, value)
        ...     averager.update()
        >>> averager.into(network).weight.item()
        2.0
    """

    def __init__(self, network: nn.Module, start: int = 1, decay: float | None = None) -> None:
        if start < 1:
            raise SettingError("an epoch from 1", f"{start}", "WeightAverager, start")
        if decay is not None and not 0 <= decay < 1:
            raise SettingError("a decay from 0 to below 1", f"{decay}", "WeightAverager, decay")
        self.network, self.start, self.decay = network, start, decay
        self.count = 0
        self.mean: dict[str, Tensor] = {}

    def attach(self, engine: Engine) -> None:
        """Register with a trainer.

        Args:
            engine: that trains the network.
        """
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Count the epoch that ends, if it is to count."""
        if engine.state.epoch >= self.start:
            self.update()

    @torch.no_grad()
    def update(self) -> None:
        """Count the weights as they are now."""
        self.count += 1
        share = 1 / self.count if self.decay is None or self.count == 1 else 1 - self.decay
        for name, value in self.network.state_dict().items():
            if self.count == 1 or not value.is_floating_point():
                self.mean[name] = value.detach().clone()
            else:
                self.mean[name].lerp_(value.to(self.mean[name]), share)

    def into(self, network: nn.Module) -> nn.Module:
        """Put the mean into a network of the same class, and return it.

        Args:
            network: changed in place; the one that was trained, if you like.
        """
        if not self.count:
            raise SettingError("an epoch that counts", "none", f"WeightAverager, start {self.start}")
        network.load_state_dict(self.mean)
        return network

    def state_dict(self) -> dict[str, Any]:
        """Count and mean."""
        return {"count": self.count, "mean": dict(self.mean)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved mean."""
        self.count = int(state["count"])
        self.mean = {name: value.clone() for name, value in state["mean"].items()}
