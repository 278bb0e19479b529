"""From a user's own trainer and some sources to the weights that the training shall start from."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Events
from torch import Tensor, nn

from monai_medmerge.bundle.alignment import align_sources
from monai_medmerge.bundle.overlay.iteration import Calls, Images, Iteration, Replay, elsewhere
from monai_medmerge.bundle.overlay.state import preserved
from monai_medmerge.bundle.overlay.stream import given_back
from monai_medmerge.errors import SettingError
from monai_medmerge.networks import coefficients, fold, merge, recalibrate
from monai_medmerge.sources import Source, adapt

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MergeOptions:
    """How sources become a start.

    Args:
        coefficient_epochs: epochs of coefficient learning on the training data; with one source there is nothing to
            learn, and none is run.
        coefficient_learning_rate: of the coefficients.
        head_learning_rate: of tensors that no source has, which learn with them.
        granularity: as of `merge`.
        constraint: as of `merge`.
        start: as of `merge`.
        anchor: as of `merge`; also the source that others are aligned to.
        exclude: name patterns of tensors that stay the network's own.
        adapt: fit sources of other input channels, dimensions or precision, see `adapt`.
        alignment: `none`, `weights` or `activations`: bring the sources' channels into the anchor's order first.

    Raises:
        SettingError: epochs are no whole number, a rate is none above 0, or `adapt` is neither true nor false.
    """

    coefficient_epochs: int = 5
    coefficient_learning_rate: float = 2e-2
    head_learning_rate: float = 1e-3
    granularity: str = "kernel"
    constraint: str = "free"
    start: str = "uniform"
    anchor: int = 0
    exclude: Sequence[str] = ()
    adapt: bool = False
    alignment: str = "none"

    def __post_init__(self) -> None:
        epochs = self.coefficient_epochs
        if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 0:
            raise SettingError("a whole number of epochs from 0", repr(epochs), "coefficient_epochs")
        for name in ("coefficient_learning_rate", "head_learning_rate"):
            rate = getattr(self, name)
            if not isinstance(rate, int | float) or not 0 < rate < math.inf:
                raise SettingError("a rate above 0", repr(rate), name)
        if not isinstance(self.adapt, bool):
            raise SettingError("true or false", repr(self.adapt), "adapt")
        if isinstance(self.exclude, str) or not all(isinstance(pattern, str) for pattern in self.exclude):
            raise SettingError("a list of patterns: \"['head.*']\"", repr(self.exclude), "exclude")


@dataclass
class MergedStart:
    """What came of it.

    Args:
        network: plain, folded, recalibrated; a copy, the trainer's own network is untouched.
        read: the sources as they were read.
        sources: the same as they were merged: adapted, aligned.
        coefficients: tensor name to (source, kernel).
        losses: mean loss of each coefficient epoch, where the iteration reports one.
    """

    network: nn.Module
    read: list[Source]
    sources: list[Source]
    coefficients: dict[str, Tensor]
    losses: list[float] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """What was merged, in plain types: sources, how they were aligned, mean shares, what stayed the network's."""
        together = torch.cat([table.flatten(1) for table in self.coefficients.values()], dim=1)
        sources = zip(self.read, self.sources, together.mean(1), strict=True)
        return {
            "sources": [
                {
                    "name": read.name,
                    "file": read.provenance.get("file"),
                    "sha256": read.sha256,
                    "mean_coefficient": share.item(),
                    "adaptations": list(merged.provenance.get("adaptations", ())),
                    "alignment": merged.provenance.get("alignment"),
                }
                for read, merged, share in sources
            ],
            "coefficients": together.shape[1],
            "coefficient_losses": self.losses,
            "own_tensors": [n for n, _ in self.network.named_parameters() if n not in self.coefficients],
        }


def merged_start(trainer: Any, network: nn.Module, sources: Sequence[Source], options: MergeOptions) -> MergedStart:
    """Learn coefficients with a trainer's own iteration, fold and recalibrate; leave all else as it was.

    Batches, loss, inferer, mixed precision and a custom iteration are the trainer's; its handlers, metrics, optimizer
    and network take no part, and random states are put back.

    Args:
        trainer: MONAI's `SupervisedTrainer` or an engine like it: with `data_loader`, `state.device`, and the network
            in an attribute, such as `network`, or inside of one.
        network: that the trainer trains, plain.
        sources: one or more; with one, its weights are taken as they are.
        options: how.

    Raises:
        IncompatibleSourcesError: a source does not fit.
        SettingError: the trainer's iteration takes its network or optimizer from elsewhere than from its engine.
    """
    read = list(sources)
    with given_back(trainer.data_loader), preserved(vars(trainer), leave=[network]):
        if options.adapt:
            sources = [adapt(network, source) for source in sources]
        iteration = Iteration(trainer, network)
        if options.alignment != "none":
            sources = align_sources(network, sources, options.alignment, Images(iteration), options.anchor)
        merged = merge(
            network, sources, options.granularity, options.constraint, options.start, options.anchor,
            exclude=options.exclude,
        )  # fmt: skip
        _keep_frozen(network, merged)
        losses = _learn(iteration, merged, options) if len(sources) > 1 and options.coefficient_epochs > 0 else []
        table = coefficients(merged)
        folded = fold(merged)
        if not _is_one_source(table):
            recalibrate(Replay(folded, calls := Calls(iteration)), calls)
            _share(folded)
    return MergedStart(folded, read, list(sources), table, losses)


def _learn(iteration: Iteration, merged: nn.Module, options: MergeOptions) -> list[float]:
    """Train the coefficients; the mean loss of every epoch."""
    learner, optimizer = iteration.engine(
        merged, options.coefficient_epochs, options.coefficient_learning_rate, options.head_learning_rate
    )
    batches: list[float] = []
    epochs: list[float] = []

    def collect(engine: Any) -> None:
        output = engine.state.output
        loss = output.get("loss") if isinstance(output, dict) else output
        if isinstance(loss, float | Tensor) and (not isinstance(loss, Tensor) or loss.numel() == 1):
            batches.append(loss.item() if isinstance(loss, Tensor) else loss)

    def report(engine: Any) -> None:
        loss = sum(batches) / len(batches) if batches else float("nan")
        epochs.append(loss)
        batches.clear()
        logger.info("Coefficients, epoch %d of %d: mean loss %.4f", engine.state.epoch, engine.state.max_epochs, loss)

    learner.add_event_handler(Events.ITERATION_COMPLETED, collect)
    learner.add_event_handler(Events.EPOCH_COMPLETED, report)
    learner.run()
    # AdamW has a state for what it has stepped.
    if not optimizer.state:
        raise elsewhere("network and engine.optimizer")
    return epochs


def _keep_frozen(plain: nn.Module, merged: nn.Module) -> None:
    """What the user froze and no source has stays as it is."""
    learned = dict(merged.named_parameters())
    for name, parameter in plain.named_parameters():
        if not parameter.requires_grad and name in learned:
            learned[name].requires_grad_(False)


def _is_one_source(tables: dict[str, Tensor]) -> bool:
    """Whether every kernel is one and the same source's, whose running statistics are then right as they are."""
    sources = {int(table.flatten(1).sum(1).argmax()) for table in tables.values()}
    if len(sources) > 1:
        return False
    only = sources.pop()
    return all(
        bool((table[only] == 1).all()) and not table.count_nonzero() > table[only].numel() for table in tables.values()
    )


def _share(network: nn.Module) -> None:
    """Give all ranks of a distributed run the first one's running statistics."""
    if dist.is_available() and dist.is_initialized():
        for tensor in network.state_dict().values():
            dist.broadcast(tensor, src=0)
