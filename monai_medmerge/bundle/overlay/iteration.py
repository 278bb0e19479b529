"""One iteration of a user's own training, run by other engines, with another network and optimizer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from ignite.engine import Events
from torch import Tensor, nn
from torch.utils.data import DataLoader

from monai_medmerge.bundle.overlay.network import exchanged, holders
from monai_medmerge.bundle.overlay.rates import Idle, StandIns, optimizers
from monai_medmerge.engines import CoefficientTrainer
from monai_medmerge.errors import SettingError

# What a SupervisedTrainer can be told about one iteration; the user's own trainer says it, ours repeats it.
PIECES = ("non_blocking", "prepare_batch", "inferer", "amp", "optim_set_to_none", "accumulation_steps",
          "to_kwargs", "amp_kwargs")  # fmt: skip


class Iteration:
    """One iteration of the user's trainer, to be run by another engine with another network and optimizer."""

    def __init__(self, trainer: Any, network: nn.Module) -> None:
        self.trainer = trainer
        self.network = network
        self.holders = dict(holders(trainer, network))
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

    def engine(
        self, network: nn.Module, epochs: int, rate: float, head_rate: float
    ) -> tuple[CoefficientTrainer, torch.optim.Optimizer]:
        """A coefficient trainer that runs this iteration, and the optimizer that the iteration should step."""
        trainer = self.trainer
        if next(optimizers(getattr(trainer, "optimizer", None)), None) is None:
            raise SettingError(
                "a trainer with `optimizer`, one or a list of them, in whose place the coefficients' own can step; "
                "without one: --coefficient_epochs 0",
                f"{type(trainer).__name__} without",
                "trainer",
            )
        parts = [part for value in self.holders.values() for part in value.modules()]
        process = self.process
        learner = CoefficientTrainer(
            network, self.loader, epochs, getattr(trainer, "loss_function", _no_loss),
            rate, head_rate, device=trainer.state.device,
            epoch_length=self.epoch_length, iteration_update=lambda engine, batch: process(engine, batch),
            find_unused_parameters=any(getattr(part, "find_unused_parameters", False) for part in parts),
            **{name: getattr(trainer, name) for name in PIECES if hasattr(trainer, name)},
        )  # fmt: skip
        optimizer = learner.optimizer
        stand_ins = StandIns(optimizer)
        learner.optimizer = stand_ins.of(trainer.optimizer)
        process = stand_ins.of(process)
        # What a subclass of a trainer has beyond MONAI's, its own iteration may look for.
        for name, value in vars(trainer).items():
            if name not in vars(learner) and name != "run":
                setattr(learner, name, stand_ins.of(value))
        # In a distributed run the learner wraps its network only now.
        learner.add_event_handler(Events.STARTED, lambda: self.give(learner, learner.network))
        return learner, optimizer

    def give(self, engine: Any, network: nn.Module) -> None:
        """Let an engine hold a network wherever the trainer holds the one that it trains."""
        for name, value in self.holders.items():
            setattr(engine, name, exchanged(value, self.network, network))

    def calls(self) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
        """What the iteration calls the network with, for every batch of an epoch; nothing is computed."""
        engine = copy.copy(self.trainer)
        self.give(engine, Probe(self.network))
        engine.optimizer = StandIns(Idle()).of(getattr(self.trainer, "optimizer", None))
        engine.state = copy.copy(self.trainer.state)
        engine.state.epoch = 1
        for number, batch in enumerate(self.loader, start=1):
            engine.state.batch, engine.state.iteration = batch, number
            try:
                self.process(engine, batch)
            except _CalledError as call:
                yield call.arguments, call.keywords
            else:
                raise elsewhere("network")
            if number == self.epoch_length:
                break


class _CalledError(Exception):
    """Ends an iteration where it calls its network; carries what with."""

    def __init__(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        super().__init__("the network was called")
        self.arguments = arguments
        self.keywords = keywords


class Probe(nn.Module):
    """Stands where the network does and only tells what it is called with."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        # Not registered: a part would be put in training mode, or moved, with the probe.
        object.__setattr__(self, "stands_for", network)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stands_for, name)

    def forward(self, *arguments: Any, **keywords: Any) -> Tensor:
        raise _CalledError(arguments, keywords)


class Calls:
    """A batch without content for each call of the network; the call itself is in `pending`."""

    def __init__(self, iteration: Iteration) -> None:
        self.iteration = iteration
        self.pending: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})

    def __iter__(self) -> Iterator[Tensor]:
        for call in self.iteration.calls():
            self.pending = call
            yield torch.empty(0)


class Replay(nn.Module):
    """Calls a network as the training does, whatever its arguments are, where one tensor is all that is passed on."""

    def __init__(self, network: nn.Module, calls: Calls) -> None:
        super().__init__()
        self.network = network
        self.calls = calls

    def forward(self, _: Tensor) -> Any:
        arguments, keywords = self.calls.pending
        return self.network(*arguments, **keywords)


class Images:
    """The one tensor of every call of the network; `None` among the arguments does not count."""

    def __init__(self, iteration: Iteration) -> None:
        self.iteration = iteration

    def __iter__(self) -> Iterator[Tensor]:
        for arguments, keywords in self.iteration.calls():
            given = [value for value in (*arguments, *keywords.values()) if value is not None]
            if len(given) != 1 or not isinstance(given[0], Tensor):
                types = ", ".join(type(value).__name__ for value in given)
                raise SettingError("a network that is called with one tensor, to align", types, "medmerge::alignment")
            yield given[0]


def elsewhere(what: str) -> SettingError:
    return SettingError(
        f"an iteration that takes engine.{what} from the engine it is given",
        "one that uses others, so that no coefficient could be learned",
        "iteration_update of the trainer",
    )


def _no_loss(*_: Any) -> Tensor:
    raise SettingError("a trainer with `loss_function`, or an iteration_update of its own", "neither", "trainer")
