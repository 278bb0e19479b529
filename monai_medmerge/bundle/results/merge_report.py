"""The report of a run of `merge.json`, with the tables behind it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ignite.distributed as idist
from torch import Tensor, nn

from monai_medmerge.bundle.results.history import TrainingHistory
from monai_medmerge.bundle.results.outcome import Outcome
from monai_medmerge.bundle.results.verification import read_gate
from monai_medmerge.evaluation import (
    Comparison,
    ReportContent,
    check,
    compare,
    contributions,
    layer_similarity,
    source_names,
    worst_cases,
    write_report,
)
from monai_medmerge.evaluation.comparison.pictures import COUNT, CasePicture
from monai_medmerge.files import write_csv
from monai_medmerge.inspection import copy_network, device_of
from monai_medmerge.networks import coefficients, is_merged, merge_record
from monai_medmerge.ranking.order import Ranking
from monai_medmerge.sources import Source, match
from monai_medmerge.sources.filling import load_weights

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


class MergeReport:
    """Writes `report.html`, `report.json` and `MODEL_CARD.md`, and the tables `contributions.csv` (per tensor),
    `similarity.csv` (CKA per layer) and `course.csv` (per epoch).

    Args:
        outcome: what the stages reached; its folder, classes and test images.
        history: of training.
        network: what was merged into.
        batches: labelled target images without augmentation: those that were trained on.
        ranking: of the sources, if there is one.
        reference: weights of the network in use today; the result is compared with it on the test images if given.
        gate_file: limits that the comparison is held against.
        title: of the report.
        purpose: what the network is for, and what not.
        settings: of the run.
        write: whether to write anything.
        pictures: how many of the worst, and of the most changed, test images the report shows; 0 shows none.
    """

    def __init__(
        self,
        outcome: Outcome,
        history: TrainingHistory,
        network: nn.Module,
        batches: Iterable[Any],
        ranking: Ranking | None,
        reference: str | None,
        gate_file: str,
        title: str,
        purpose: str,
        settings: Mapping[str, Any],
        write: bool = True,
        pictures: int = COUNT,
    ) -> None:
        self.outcome, self.history, self.network, self.batches = outcome, history, network, batches
        self.ranking, self.reference, self.gate_file = ranking, reference, gate_file
        self.title, self.purpose, self.settings = title, purpose, settings
        self.enabled, self.pictures = write, pictures

    def write(self, network: nn.Module, merged: nn.Module, sources: Sequence[Source]) -> None:
        """Write all of it. In a distributed run the first rank does.

        Args:
            network: the final, plain network.
            merged: the network it was folded from; of another method than MedMerge, a plain one.
            sources: what was merged.
        """
        if not self.enabled or idist.get_rank() > 0:
            return
        course = self.history.course
        # Other methods than MedMerge have no coefficients to show.
        tables = coefficients(merged) if is_merged(merged) else {}
        frame = self._contributions(network, merged, tables) if tables else None
        similarity = layer_similarity(merged, self.network, sources, self.batches)
        comparison = self._compare(network)
        gate = None if comparison is None else check(comparison, read_gate(self.gate_file))
        folder, last = self.outcome.output_dir, next(reversed(self.outcome.stages), None)
        frames = {"similarity": similarity} | ({"contributions": frame} if frame is not None else {})
        frames |= {"course": course.frame} if course is not None and course.rows else {}
        for name, table in frames.items():
            write_csv(folder / f"{name}.csv", list(table.columns), table.itertuples(index=False, name=None))
        content = ReportContent(
            title=self.title,
            purpose=self.purpose,
            sources=sources,
            match=match(self.network, sources),
            ranking=self.ranking,
            # With one source there is no share to look at.
            contributions=frame if frame is not None and len(source_names(frame)) > 1 else None,
            coefficients=tables,
            similarity=similarity,
            course={} if course is None else course.curves,
            curves=self.history.curves,
            stages=self.outcome.stages,
            results=self.outcome.stages[last]["results"] if last else None,
            class_names=self.outcome.reported_names,
            predictions=self.outcome.predictions,
            pictures=() if comparison is not None else self._worst(network),
            comparison=comparison,
            gate=gate,
            settings=self.settings,
            seeds={"run": self.outcome.seed},
            command=sys.argv,
        )
        write_report(folder, content)
        if gate is not None:
            logger.info("Gate:\n%s", gate)
        logger.info("Written to %s: report.html, report.json, MODEL_CARD.md, %s", folder.name,
                    ", ".join(f"{name}.csv" for name in frames))  # fmt: skip

    def _contributions(self, network: nn.Module, merged: nn.Module, tables: Mapping[str, Tensor]) -> pd.DataFrame:
        sizes = {name: tensor.numel() for name, tensor in network.state_dict().items() if name in tables}
        course = self.history.course
        start = course.start if course is not None and course.start else None
        return contributions(tables, list(merge_record(merged).sources), sizes, start)

    def _worst(self, network: nn.Module) -> list[CasePicture]:
        """The test images that the network has most wrong; none of labels that do not exclude one another."""
        if not self.pictures or self.outcome.task == "multilabel":
            return []
        return worst_cases(
            network,
            self.outcome.test_batches,
            self.outcome.class_names,
            inferer=self.outcome.inferer,
            count=self.pictures,
        )

    def _compare(self, candidate: nn.Module) -> Comparison | None:
        if self.reference is None:
            return None
        reference = copy_network(self.network)
        load_weights(reference, self.reference)
        return compare(
            reference.to(device_of(candidate)),
            candidate,
            self.outcome.test_batches,
            self.outcome.class_names,
            training_data=self.batches,
            seed=self.outcome.seed,
            inferer=self.outcome.inferer,
            pictures=self.pictures,
        )
