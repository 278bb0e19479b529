"""One target, budget and seed of the kin family: heads are fitted on the labels first, for no source has one."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from benchmarks.kin.data import HEAD, ancestor
from benchmarks.kin.rates import RATES
from benchmarks.sites.cell import Cell
from benchmarks.transfer.batches import plain
from monai_medmerge.ranking.features import extract
from monai_medmerge.ranking.mixture import mixture_weights
from monai_medmerge.ranking.picking import held_out_probabilities
from monai_medmerge.sources.filling import load_into

STEPS = 80
"""Of every training of all weights."""
STUDENT_STEPS = 2 * STEPS


class KinCell(Cell):
    """A cell whose sources know other tasks than the target's."""

    head: ClassVar[list[str]] = HEAD
    rates: ClassVar[dict[str, float]] = RATES
    length: ClassVar[int] = STEPS

    def fitted(self, network: nn.Module) -> nn.Module:
        """Recalibrated, then given a head by the labels."""
        return self.probed(self.settled(network))

    def bare(self, number: int) -> nn.Module:
        """A source, recalibrated, with a head at random."""
        return self.settled(load_into(self.network(), self.target.sources()[number]))

    @cached_property
    def from_ancestor(self) -> nn.Module:
        """ImageNet's network, fitted."""
        return self.fitted(load_into(self.network(), ancestor()))

    @cached_property
    def believed(self) -> list[float]:
        """Weights of the sources: of a mixture of cross-validated linear probes, since fitted heads know the labels."""
        return self.believe(self.networks)

    def believe(self, networks: list[nn.Module]) -> list[float]:
        """The same for any networks."""
        found = extract(networks, plain(*self.labelled))
        said = [held_out_probabilities(features.values, features.labels, seed=self.seed) for features in found]
        if any(one is None for one in said):
            return [1 / len(networks)] * len(networks)
        numbers = np.unique(self.labelled.labels, return_inverse=True)[1]
        return mixture_weights(np.stack([one for one in said if one is not None]), numbers)

    def taught(self, start: nn.Module, soft: Tensor) -> nn.Module:
        """A student with the steps and the rate that all students of the family have."""
        return self.student(start, soft, rate=self.rates["student"], steps=STUDENT_STEPS)
