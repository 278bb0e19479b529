"""From a user's own trainer and some sources to the weights that the training shall start from."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Events
from torch import Tensor, nn
from torch.utils.data import DataLoader

from monai_medmerge.bundle.alignment import align_sources
from monai_medmerge.bundle.overlay_checkpoints import plain_network
from monai_medmerge.bundle.overlay_state import preserved
from monai_medmerge.engines import CoefficientTrainer
from monai_medmerge.errors import SettingError
from monai_medmerge.networks import coefficients, fold, merge, recalibrate
from monai_medmerge.sources import Source, adapt

logger = logging.getLogger(__name__)
# What a SupervisedTrainer can be told about one iteration; the user's own trainer says it, ours repeats it.
PIECES = ("non_blocking", "prepare_batch", "inferer", "amp", "optim_set_to_none", "accumulation_steps",
          "to_kwargs", "amp_kwargs")  # fmt: skip


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


def merged_start(trainer: Any, sources: Sequence[Source], options: MergeOptions) -> MergedStart:
    """Learn coefficients with a trainer's own iteration, fold and recalibrate; leave all else as it was.

    Batches, loss, inferer, mixed precision and a custom iteration are the trainer's; its handlers, metrics, optimizer
    and network take no part, and random states are put back.

    Args:
        trainer: MONAI's `SupervisedTrainer` or an engine like it: with `network`, `data_loader`, `state.device`.
        sources: one or more; with one, its weights are taken as they are.
        options: how.

    Raises:
        IncompatibleSourcesError: a source does not fit.
        SettingError: the trainer's iteration takes its network or optimizer from elsewhere than from its engine.
    """
    plain, read = plain_network(trainer.network), list(sources)
    with preserved(vars(trainer), leave=[plain, trainer.network]):
        if options.adapt:
            sources = [adapt(plain, source) for source in sources]
        iteration = _Iteration(trainer)
        if options.alignment != "none":
            sources = align_sources(plain, sources, options.alignment, _Images(iteration), options.anchor)
        merged = merge(
            plain, sources, options.granularity, options.constraint, options.start, options.anchor,
            exclude=options.exclude,
        )  # fmt: skip
        _keep_frozen(plain, merged)
        losses = _learn(iteration, merged, options) if len(sources) > 1 and options.coefficient_epochs > 0 else []
        table = coefficients(merged)
        folded = fold(merged)
        if not _is_one_source(table):
            recalibrate(_Replay(folded, calls := _Calls(iteration)), calls)
            _share(folded)
    return MergedStart(folded, read, list(sources), table, losses)


class _Iteration:
    """One iteration of the user's trainer, to be run by another engine with another network and optimizer."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        loader = trainer.data_loader
        if isinstance(loader, Iterator):
            raise SettingError("a data loader that can be gone through again", f"a {type(loader).__name__}", "trainer")
        # A copy has an iterator, and so workers, of its own; those of the training itself then start afresh.
        self.loader = copy.copy(loader) if isinstance(loader, DataLoader) else loader
        self.epoch_length: int | None = trainer.state.epoch_length
        # Ignite has no public name for the function that an engine was made with.
        process: Callable[..., Any] = trainer._process_function
        if getattr(process, "__self__", None) is trainer:
            # A method of the trainer: `self` becomes the engine that runs it, as it has no other network.
            function = process.__func__  # type: ignore[attr-defined]
            self.process = lambda engine, batch: function(engine, engine, batch)
        else:
            self.process = process

    def engine(self, network: nn.Module, options: MergeOptions, epochs: int) -> CoefficientTrainer:
        """A coefficient trainer that runs this iteration."""
        trainer = self.trainer
        learner = CoefficientTrainer(
            network, self.loader, epochs, getattr(trainer, "loss_function", _no_loss),
            options.coefficient_learning_rate, options.head_learning_rate, device=trainer.state.device,
            epoch_length=self.epoch_length, iteration_update=self.process,
            find_unused_parameters=getattr(trainer.network, "find_unused_parameters", False),
            **{name: getattr(trainer, name) for name in PIECES if hasattr(trainer, name)},
        )  # fmt: skip
        # What a subclass of a trainer has beyond MONAI's, its own iteration may look for.
        for name, value in vars(trainer).items():
            if name not in vars(learner) and name != "run":
                setattr(learner, name, value)
        return learner

    def calls(self) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
        """What the iteration calls the network with, for every batch of an epoch; nothing is computed."""
        engine = copy.copy(self.trainer)
        engine.network = _Probe()
        engine.optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))])
        engine.state = copy.copy(self.trainer.state)
        engine.state.epoch = 1
        for number, batch in enumerate(self.loader, start=1):
            engine.state.batch, engine.state.iteration = batch, number
            try:
                self.process(engine, batch)
            except _CalledError as call:
                yield call.arguments, call.keywords
            else:
                raise _elsewhere("network")
            if number == self.epoch_length:
                break


class _CalledError(Exception):
    """Ends an iteration where it calls its network; carries what with."""

    def __init__(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        super().__init__("the network was called")
        self.arguments = arguments
        self.keywords = keywords


class _Probe(nn.Module):
    """Stands where the network does and only tells what it is called with."""

    def forward(self, *arguments: Any, **keywords: Any) -> Tensor:
        raise _CalledError(arguments, keywords)


class _Calls:
    """A batch without content for each call of the network; the call itself is in `pending`."""

    def __init__(self, iteration: _Iteration) -> None:
        self.iteration = iteration
        self.pending: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})

    def __iter__(self) -> Iterator[Tensor]:
        for call in self.iteration.calls():
            self.pending = call
            yield torch.empty(0)


class _Replay(nn.Module):
    """Calls a network as the training does, whatever its arguments are, where one tensor is all that is passed on."""

    def __init__(self, network: nn.Module, calls: _Calls) -> None:
        super().__init__()
        self.network = network
        self.calls = calls

    def forward(self, _: Tensor) -> Any:
        arguments, keywords = self.calls.pending
        return self.network(*arguments, **keywords)


class _Images:
    """The first argument of every call of the network."""

    def __init__(self, iteration: _Iteration) -> None:
        self.iteration = iteration

    def __iter__(self) -> Iterator[Any]:
        for arguments, _ in self.iteration.calls():
            yield arguments[0]


def _learn(iteration: _Iteration, merged: nn.Module, options: MergeOptions) -> list[float]:
    """Train the coefficients; the mean loss of every epoch."""
    learner = iteration.engine(merged, options, options.coefficient_epochs)
    batches: list[float] = []
    epochs: list[float] = []

    def collect(engine: Any) -> None:
        output = engine.state.output
        loss = output.get("loss") if isinstance(output, dict) else output
        if isinstance(loss, float | Tensor) and (not isinstance(loss, Tensor) or loss.numel() == 1):
            batches.append(float(loss))

    def report(engine: Any) -> None:
        loss = sum(batches) / len(batches) if batches else float("nan")
        epochs.append(loss)
        batches.clear()
        logger.info("Coefficients, epoch %d of %d: mean loss %.4f", engine.state.epoch, engine.state.max_epochs, loss)

    learner.add_event_handler(Events.ITERATION_COMPLETED, collect)
    learner.add_event_handler(Events.EPOCH_COMPLETED, report)
    learner.run()
    # AdamW has a state for what it has stepped.
    if not learner.optimizer.state:
        raise _elsewhere("network and engine.optimizer")
    return epochs


def _elsewhere(what: str) -> SettingError:
    return SettingError(
        f"an iteration that takes engine.{what} from the engine it is given",
        "one that uses others, so that no coefficient could be learned",
        "iteration_update of the trainer",
    )


def _no_loss(*_: Any) -> Tensor:
    raise SettingError("a trainer with `loss_function`, or an iteration_update of its own", "neither", "trainer")


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
