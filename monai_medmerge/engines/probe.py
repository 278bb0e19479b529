"""Fit the head alone, on features that stay as they are: the linear probe before anything else learns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from monai.inferers import SimpleInferer
from torch import Tensor, nn

from monai_medmerge.engines.phase import PhaseTrainer
from monai_medmerge.sources.patterns import selects


class LinearProbeTrainer(PhaseTrainer):
    """Train the named tensors only, every layer in evaluation (LP of LP-FT, arXiv:2202.10054).

    What took a gradient before takes one again afterwards: the phases can share a network.

    Args:
        network: plain, or from `merge`.
        train_data_loader: batches of dictionaries with `image` and `label`.
        max_epochs: epochs.
        loss_function: of (prediction, label).
        head: name pattern or patterns (`fc.*`) of the tensors to train.
        learning_rate: of the head.
        kwargs: further arguments of `PhaseTrainer`.

    Raises:
        SettingError: no tensor has such a name.

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
        >>> before = network[0].weight.clone()
        >>> data = [{"image": torch.randn(8, 4), "label": torch.randint(2, (8,))}]
        >>> LinearProbeTrainer(network, data, 1, nn.CrossEntropyLoss(), head=["1.*"]).run()
        >>> torch.equal(network[0].weight, before), network[0].weight.requires_grad
        (True, True)
    """

    def __init__(
        self,
        network: nn.Module,
        train_data_loader: Iterable[Any],
        max_epochs: int,
        loss_function: Callable[..., Tensor],
        head: str | Sequence[str],
        learning_rate: float = 1e-2,
        **kwargs: Any,
    ) -> None:
        parameters = [p for name, p in network.named_parameters() if selects(head, name)]
        super().__init__(
            network=network,
            groups=[{"params": parameters, "lr": learning_rate}],
            train_data_loader=train_data_loader,
            max_epochs=max_epochs,
            loss_function=loss_function,
            inferer=EvaluationInferer(),
            facts={"head": [head] if isinstance(head, str) else sorted(head)},
            **kwargs,
        )
        self._head = {id(parameter) for parameter in parameters}

    def run(self) -> None:
        """Train, with everything but the head frozen meanwhile."""
        frozen = [p for p in self.plain_network.parameters() if p.requires_grad and id(p) not in self._head]
        for parameter in frozen:
            parameter.requires_grad_(False)
        try:
            super().run()
        finally:
            for parameter in frozen:
                parameter.requires_grad_(True)


class EvaluationInferer(SimpleInferer):
    """Run the network in evaluation, although MONAI's trainer has just put it in training.

    Batch-norm then normalises by its running statistics and does not move them, and dropout is off.
    """

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """The network's output for a batch."""
        if isinstance(network, nn.Module):
            network.eval()
        output: Tensor = super().__call__(inputs, network, *args, **kwargs)
        return output
