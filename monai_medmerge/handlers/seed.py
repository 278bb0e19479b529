"""Make every epoch depend on its number alone, so that a resumed run sees what an undisturbed one would."""

from __future__ import annotations

from typing import Any

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events
from monai.data import set_rnd
from monai.utils import set_determinism


class EpochSeedHandler:
    """Seed Python, numpy, torch and the random transforms of a dataset anew when an epoch starts.

    Ignite draws the first batch after `EPOCH_STARTED`, so the order of samples, too, follows from (seed, epoch).

    Args:
        seed: of the run.
        dataset: whose MONAI transforms are seeded, where batches are made in this process; workers are seeded by torch.
    """

    def __init__(self, seed: int, dataset: Any = None) -> None:
        self.seed = seed
        self.dataset = dataset

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seed for the epoch that starts."""
        # SeedSequence mixes, so that neighbouring seeds, epochs and ranks share nothing.
        parts = [self.seed, engine.state.epoch, idist.get_rank()]
        seed = int(np.random.SeedSequence(parts).generate_state(1)[0])
        set_determinism(seed=seed)
        if self.dataset is not None:
            set_rnd(self.dataset, seed=seed)
