"""What a run of a segmentation bundle reached, stage by stage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from monai_medmerge.bundle.definition.document import Definition
from monai_medmerge.bundle.results.outcome import Outcome, parameters_trained
from monai_medmerge.engines import PhaseTrainer
from monai_medmerge.errors import DatasetError
from monai_medmerge.evaluation.bootstrap import Resampling
from monai_medmerge.evaluation.comparison.volumes import dice
from monai_medmerge.evaluation.results.segments import segment_measures, segment_results, stacked
from monai_medmerge.inspection import device_of, evaluating, image_and_label


class SegmentationOutcome(Outcome):
    """As `Outcome`, with the Dice of label maps instead of the F1 of classes.

    Args:
        output_dir: where files go.
        test_batches: dictionaries with `image` (1, channel, *space) and `label` (1, 1, *space), one volume at a time.
        class_names: one per label, the background first.
        seed: of the run; of the bootstrap too.
        inferer: from a volume and a network to its scores (1, class, *space).
        codes: class name to DICOM codes, from `class_codes`; they travel with the weights.
        definition: of the network, written beside its weights.
    """

    def __init__(
        self,
        output_dir: str | Path,
        test_batches: Iterable[Any],
        class_names: Sequence[str],
        seed: int,
        inferer: Callable[..., Tensor],
        codes: Mapping[str, Any] | None = None,
        definition: Definition | None = None,
    ) -> None:
        super().__init__(output_dir, test_batches, class_names, seed, definition)
        self.inferer: Callable[..., Tensor] = inferer
        self.codes = codes

    @property
    def reported_names(self) -> list[str]:
        """The labels without the background."""
        return self.class_names[1:]

    def evaluate(self, stage: str, network: nn.Module, trained: Sequence[PhaseTrainer | None] = ()) -> None:
        """Measure a network on the test volumes: mean Dice over volumes and labels, and of each label.

        Args:
            stage: name in `metrics.json`.
            network: plain or merged.
            trained: the phases that led here, for the number of parameters trained.
        """
        self.stop_clock(stage)
        found = volume_measures(network, self.test_batches, self.inferer, len(self.class_names))
        results = segment_results(found, self.class_names[1:], resampling=Resampling(seed=self.seed))
        self.stages[stage] = {
            "dice": results["dice"]["value"],
            "interval": [results["dice"]["low"], results["dice"]["high"]],
            "labels": {name: label["dice"] for name, label in results["classes"].items()},
            "cases": results["cases"],
            "parameters_trained": parameters_trained(trained),
            "results": results,
        }
        self.log(stage, "mean Dice", self.stages[stage]["dice"], ("dice", "surface_distance_95", "lesions_invented"))


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
    return np.concatenate([dice(said, label, classes) for said, label in _label_maps(network, batches, inferer)])


def volume_measures(
    network: nn.Module, batches: Iterable[Any], inferer: Callable[..., Tensor], classes: int
) -> dict[str, np.ndarray]:
    """All measures of each volume and label but the background, see `segment_measures`.

    Args:
        network: its mode is put back.
        batches: as of `SegmentationOutcome`.
        inferer: as of `SegmentationOutcome`.
        classes: how many labels there are, the background among them.

    Returns:
        Name to float (volume, class - 1).

    Raises:
        DatasetError: there is no volume.
    """
    parts = [segment_measures(said, label, classes) for said, label in _label_maps(network, batches, inferer)]
    if not parts:
        raise DatasetError("at least one volume", "none", "batches")
    return stacked(parts)


def _label_maps(
    network: nn.Module, batches: Iterable[Any], inferer: Callable[..., Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """What the network says of each batch, and the truth."""
    device = device_of(network)
    with evaluating(network):
        for image, label in map(image_and_label, batches):
            if not isinstance(label, Tensor):
                raise DatasetError("a label map with every image", type(label).__name__, "batch")
            yield inferer(image.to(device), network).argmax(1, keepdim=True).cpu().as_subclass(Tensor), label
