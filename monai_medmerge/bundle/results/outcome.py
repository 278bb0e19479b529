"""What a run of `merge.json` reached, stage by stage, and the files it leaves."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite
import ignite.distributed as idist
import monai
import numpy as np
import torch
from torch import Tensor, nn

from monai_medmerge.bundle.definition.document import FILE, Definition, Task
from monai_medmerge.engines import PhaseTrainer
from monai_medmerge.evaluation import (
    Resampling,
    class_results,
    contributions,
    contributions_plot,
    grade_results,
    label_results,
    predict,
)
from monai_medmerge.evaluation.report.assembly import origin_of
from monai_medmerge.evaluation.results.parts import one_line
from monai_medmerge.files import save_weights, weights_sha256, whole_file, write_json
from monai_medmerge.handlers import NOTHING, lost_line
from monai_medmerge.networks import coefficients, is_merged, merge_record
from monai_medmerge.sources import Source

_RESULTS: Mapping[str, Callable[..., dict[str, Any]]] = {
    "classification": class_results,
    "ordinal": grade_results,
    "multilabel": label_results,
}
logger = logging.getLogger(__name__)


class Outcome:
    """Evaluates the stages of one run on the test images and writes what they reached into one folder.

    `metrics.json` is the same for the same seed and machine; seconds, which never are, go to `timings.json`.

    Args:
        output_dir: where files go.
        test_batches: dictionaries with `image` and `label`; they are read only to be reported, never to choose.
        class_names: one per class.
        seed: of the run; of the bootstrap too.
        definition: of the network, written beside its weights. Its task chooses the measures: of a `classification`,
            also where there is none; `ordinal`, whose classes are grades in their order; `multilabel`, whose labels
            are 0 or 1 of each class and whose scores are one sigmoid a class.
    """

    def __init__(
        self,
        output_dir: str | Path,
        test_batches: Iterable[Any],
        class_names: Sequence[str],
        seed: int,
        definition: Definition | None = None,
    ) -> None:
        self.definition = definition
        self.task: Task = "classification" if definition is None else definition.task
        self.output_dir = Path(output_dir)
        self.test_batches = test_batches
        self.class_names = list(class_names)
        self.seed = seed
        self.inferer: Callable[..., Tensor] | None = None
        self.codes: Mapping[str, Any] | None = None
        self.predictions: tuple[np.ndarray, np.ndarray] | None = None
        self.stages: dict[str, dict[str, Any]] = {}
        self.seconds: dict[str, float] = {}
        self._start = time.monotonic()

    def evaluate(self, stage: str, network: nn.Module, trained: Sequence[PhaseTrainer | None] = ()) -> None:
        """Measure a network on the test images.

        Args:
            stage: name in `metrics.json`.
            network: plain or merged.
            trained: the phases that led here, for the number of parameters trained.
        """
        self.stop_clock(stage)
        probabilities, labels = predict(network, self.test_batches, sigmoid=self.task == "multilabel")
        self.predictions = probabilities.double().numpy(), labels.numpy()
        results = _RESULTS[self.task](*self.predictions, self.class_names, Resampling(seed=self.seed))
        self.stages[stage] = {
            "macro_f1": results["macro_f1"]["value"],
            "interval": [results["macro_f1"]["low"], results["macro_f1"]["high"]],
            "cases": len(labels),
            "parameters_trained": parameters_trained(trained),
            "results": results,
        }
        self.log(stage, "macro F1", self.stages[stage]["macro_f1"], ("recall", "precision", "auroc"))

    @property
    def reported_names(self) -> list[str]:
        """The classes that results are told of."""
        return self.class_names

    def log(self, stage: str, measure: str, value: float | None, of_class: Sequence[str]) -> None:
        """The stage in one line, and one for each class; a warning if a class is lost.

        Args:
            stage: its name.
            measure: of all classes.
            value: of that.
            of_class: measures of each class.
        """
        results = self.stages[stage]["results"]
        absent = f"; absent, and in no mean: {', '.join(results['absent'])}" if results["absent"] else ""
        logger.info("%s: %s %s%s", stage, measure, "unknown" if value is None else f"{value:.3f}", absent)
        for name, found in results["classes"].items():
            logger.info("%s, %s", stage, one_line(name, found, of_class))
        lost = [name for name, found in results["classes"].items() if _is_lost(found)]
        if lost:
            logger.warning("%s", lost_line(stage, lost))

    def stop_clock(self, stage: str) -> None:
        """Note the seconds that led to a stage, before it is evaluated: that is no part of the method's cost."""
        self.seconds[stage] = round(time.monotonic() - self._start, 3)

    def write(
        self, network: nn.Module, merged: nn.Module, sources: Sequence[Source] = (), method: str = "medmerge"
    ) -> None:
        """Write `model.pt`, `metrics.json`, `timings.json` and, where there are coefficients, `contributions.png`.

        Args:
            network: the final, plain network.
            merged: the network it was folded from; of another method than MedMerge, a plain one.
            sources: what was merged, for where it came from and what was done to it.
            method: that merged.

        In a distributed run the first rank writes.
        """
        if idist.get_rank() > 0:
            return
        record = merge_record(merged) if is_merged(merged) else None
        hashes = {source.name: source.sha256 for source in sources}
        if record is not None:
            hashes = dict(zip(record.sources, record.sha256, strict=True))
        learned = {"granularity": record.granularity, "constraint": record.constraint} if record else {}
        # The definition first: weights are never without it.
        definition: dict[str, str] = {}
        if self.definition is not None:
            self.definition.write(self.output_dir)
            definition = {"definition_sha256": self.definition.sha256}
        save_weights(self.output_dir / "model.pt", network)
        write_json(
            self.output_dir / "metrics.json",
            {
                "stages": self.stages,
                "class_names": self.class_names,
                **({"codes": dict(self.codes)} if self.codes else {}),
                "method": method,
                "sources": hashes,
                "provenance": {source.name: origin_of(source) for source in sources},
                **learned,
                "weights_sha256": weights_sha256(network),
                **definition,
                "seed": self.seed,
                "versions": {
                    "python": platform.python_version(),
                    "torch": torch.__version__,
                    "monai": monai.__version__,
                    "ignite": ignite.__version__,
                },
            },
        )
        write_json(self.output_dir / "timings.json", self.seconds)
        if record is not None:
            with whole_file(self.output_dir / "contributions.png") as part:
                contributions_plot(contributions(coefficients(merged), list(record.sources)), part)
        written = ["model.pt", *([FILE] if definition else []), "metrics.json", "timings.json"]
        written += ["contributions.png"] if record else []
        logger.info("Written to %s: %s", self.output_dir.name, ", ".join(written))


def _is_lost(found: Mapping[str, Any]) -> bool:
    """Whether a class's recall, or a label's Dice, is next to nothing."""
    value = (found.get("recall") or found.get("dice") or {}).get("value")
    return value is not None and value < NOTHING


def parameters_trained(phases: Sequence[PhaseTrainer | None]) -> int:
    """Numbers that any of these phases trained; a phase of no epochs, or one that is disabled, trained none."""
    ran = [phase for phase in phases if phase is not None and phase.state.max_epochs > 0]
    return sum({id(parameter): parameter.numel() for phase in ran for parameter in phase.parameters}.values())
