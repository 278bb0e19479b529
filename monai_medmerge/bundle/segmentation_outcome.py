"""What a run of a segmentation bundle reached, stage by stage."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from monai_medmerge.bundle.definition.document import Definition
from monai_medmerge.bundle.outcome import Outcome, parameters_trained
from monai_medmerge.engines import PhaseTrainer
from monai_medmerge.evaluation.bootstrap import Resampling, estimate
from monai_medmerge.evaluation.comparison.volumes import dice
from monai_medmerge.evaluation.measures import mean

logger = logging.getLogger(__name__)


class SegmentationOutcome(Outcome):
    """As `Outcome`, with the Dice of label maps instead of the F1 of classes.

    Args:
        output_dir: where files go.
        test_batches: dictionaries with `image` (1, channel, *space) and `label` (1, 1, *space), one volume at a time.
        class_names: one per label, the background first.
        seed: of the run; of the bootstrap too.
        inferer: from a volume and a network to its scores (1, class, *space).
        definition: of the network, written beside its weights.
    """

    def __init__(
        self,
        output_dir: str | Path,
        test_batches: Iterable[Any],
        class_names: Sequence[str],
        seed: int,
        inferer: Callable[..., Tensor],
        definition: Definition | None = None,
    ) -> None:
        super().__init__(output_dir, test_batches, class_names, seed, definition)
        self.inferer = inferer

    def evaluate(self, stage: str, network: nn.Module, trained: Sequence[PhaseTrainer | None] = ()) -> None:
        """Measure a network on the test volumes: mean Dice over volumes and labels, and of each label.

        Args:
            stage: name in `metrics.json`.
            network: plain or merged.
            trained: the phases that led here, for the number of parameters trained.
        """
        self.stop_clock(stage)
        found = volume_dice(network, self.test_batches, self.inferer, len(self.class_names))
        resampling = Resampling(seed=self.seed)
        overall, *by_label = estimate(
            [mean(np.nanmean(found, axis=1)), *(mean(column) for column in found.T)], len(found), resampling
        )
        self.stages[stage] = {
            "dice": overall.value,
            "interval": [overall.low, overall.high],
            "labels": {n: e.as_dict() for n, e in zip(self.class_names[1:], by_label, strict=True)},
            "cases": len(found),
            "parameters_trained": parameters_trained(trained),
        }
        logger.info("%s: mean Dice %.3f", stage, overall.value)


def volume_dice(network: nn.Module, batches: Iterable[Any], inferer: Callable[..., Tensor], classes: int) -> np.ndarray:
    """Dice of each volume and label but the background.

    Args:
        network: its mode is put back.
        batches: as of `SegmentationOutcome`.
        inferer: as of `SegmentationOutcome`.
        classes: how many labels there are, the background among them.

    Returns:
        Float (volume, class - 1), NaN where neither truth nor prediction has the label.
    """
    device = next(network.parameters()).device
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            rows = [
                dice(inferer(batch["image"].to(device), network).argmax(1, keepdim=True).cpu(), batch["label"], classes)
                for batch in batches
            ]
    finally:
        network.train(training)
    return np.concatenate(rows)
