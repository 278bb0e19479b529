"""What the three phases of training have in common: AdamW, a cosine schedule, and a state that can be resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from monai_medmerge.errors import ResumeError, SettingError

ParameterGroup = dict[str, Any]


class Record:
    """What a run must have in common with the one it continues; saved with its checkpoints.

    Args:
        facts: names to plain values: hashes of sources, numbers of epochs, rates.

    Example:
        >>> Record({"epochs": 3}).load_state_dict({"epochs": 4})
        Traceback (most recent call last):
        monai_medmerge.errors.ResumeError: checkpoint, epochs: expected 3, found 4
    """

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.facts = dict(facts)

    def state_dict(self) -> dict[str, Any]:
        """The facts, in plain types."""
        return dict(self.facts)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Compare with the facts of another run.

        Raises:
            ResumeError: one differs.
        """
        for name in sorted({*self.facts, *state}):
            if self.facts.get(name) != state.get(name):
                raise ResumeError(f"{self.facts.get(name)}", f"{state.get(name)}", f"checkpoint, {name}")


class PhaseTrainer(SupervisedTrainer):
    """A MONAI `SupervisedTrainer` that brings its optimizer and schedule and can say what its state is.

    AdamW, each group with its own rate, all falling to nothing on a half cosine over the epochs. What a checkpoint
    needs is in `resumable`; `ResumeHandler` saves and restores it. Where `torch.distributed` is initialised, the
    network is wrapped for the run; frozen sources are neither parameters nor buffers, so nothing of them is sent.

    Args:
        network: to be trained; put on the device.
        groups: optimizer parameter groups; each with `params` and `lr`.
        train_data_loader: batches of dictionaries with `image` and `label`.
        max_epochs: epochs of this phase.
        loss_function: of (prediction, label).
        device: where to train; the GPU if there is one.
        weight_decay: of AdamW.
        facts: what a resumed run must share beside epochs, rates and number of batches, in plain types.
        train_handlers: MONAI or ignite handlers.
        find_unused_parameters: as of DistributedDataParallel, in a distributed run, for networks that own weights
            which their forward pass does not use.
        kwargs: further arguments of `SupervisedTrainer` (inferer, prepare_batch, amp, metrics ...).

    Raises:
        SettingError: nothing is left to train.
    """

    network: nn.Module

    def __init__(
        self,
        network: nn.Module,
        groups: Sequence[ParameterGroup],
        train_data_loader: Iterable[Any],
        max_epochs: int,
        loss_function: Callable[..., torch.Tensor],
        device: str | torch.device | None = None,
        weight_decay: float = 0.0,
        facts: Mapping[str, Any] | None = None,
        train_handlers: Sequence[Any] | None = None,
        find_unused_parameters: bool = False,
        **kwargs: Any,
    ) -> None:
        groups = [group for group in groups if group["params"]]
        if not groups:
            raise SettingError("trainable parameters", "none", type(self).__name__)
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        network.to(device)
        optimizer = torch.optim.AdamW(groups, weight_decay=weight_decay)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(max_epochs, 1))
        rates = [float(group["lr"]) for group in groups]
        self.plain_network = network
        self.find_unused_parameters = find_unused_parameters
        # The schedule comes first, so that a checkpoint of the same event holds the rate of the next epoch.
        schedule = LrScheduleHandler(self.scheduler, print_lr=False)
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            train_data_loader=train_data_loader,
            network=network,
            optimizer=optimizer,
            loss_function=loss_function,
            train_handlers=[schedule, *(train_handlers or [])],
            decollate=False,
            **kwargs,
        )
        common = {"phase": type(self).__name__, "epochs": max_epochs, "batches": self.state.epoch_length}
        self.record = Record({**common, "rates": rates, **(facts or {})})

    def run(self) -> None:
        """Train for the epochs that are left; a phase of no epochs does nothing."""
        if self.state.max_epochs < 1:
            return
        # Note [Wrapped only while it runs]
        # DistributedDataParallel registers what takes a gradient when it wraps, and phases differ in that; and a
        # process that exits with a live one may abort. So each phase wraps for itself and drops the wrapper at its end.
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        if distributed:
            self.network = DistributedDataParallel(
                self.plain_network, find_unused_parameters=self.find_unused_parameters
            )
        try:
            super().run()
        finally:
            self.network = self.plain_network
        if distributed:
            # The wrapper shares buffers before each step; what the last step did to running statistics differs.
            for buffer in self.plain_network.buffers():
                torch.distributed.broadcast(buffer, src=0)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What this phase trains."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    @property
    def resumable(self) -> dict[str, Any]:
        """Everything with a state, by the name it has in a checkpoint; the record is checked before all else."""
        return {
            "record": self.record,
            "network": self.plain_network,
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
            "trainer": self,
        }


def trainable(network: nn.Module, rate: float) -> list[ParameterGroup]:
    """One group of all parameters that take a gradient.

    Args:
        network: any module.
        rate: learning rate.
    """
    return [{"params": [p for p in network.parameters() if p.requires_grad], "lr": rate}]
