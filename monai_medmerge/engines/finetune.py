"""Settle a folded network on the target: a short fine-tuning of every weight."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from monai_medmerge.engines.phase import ParameterGroup, PhaseTrainer, trainable
from monai_medmerge.files import weights_sha256


class FineTuner(PhaseTrainer):
    """Minimise ``loss + pull / 2 * |w - w0|^2`` over all weights w, from the start w0 that the network has now.

    Args:
        network: plain; every parameter that takes a gradient is trained.
        train_data_loader: batches of dictionaries with `image` and `label`.
        max_epochs: epochs.
        loss_function: of (prediction, label).
        learning_rate: of all weights.
        pull: strength of the pull back to the start (L2-SP, arXiv:1802.01483); 0 for none.
        layer_decay: what the rate falls by from each child of the network to the one before it, the last child having
            the whole rate (arXiv:1801.06146, section 3.2); 1 for the same rate everywhere.
        kwargs: further arguments of `PhaseTrainer`.

    Raises:
        SettingError: nothing is trainable.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> network = nn.Linear(4, 2)
        >>> data = [{"image": torch.randn(8, 4), "label": torch.randint(2, (8,))}]
        >>> tuner = FineTuner(network, data, max_epochs=1, loss_function=nn.CrossEntropyLoss())
        >>> tuner.run()
        >>> tuner.state.iteration
        1
    """

    def __init__(
        self,
        network: nn.Module,
        train_data_loader: Iterable[Any],
        max_epochs: int,
        loss_function: Callable[..., Tensor],
        learning_rate: float = 1e-3,
        pull: float = 0.0,
        layer_decay: float = 1.0,
        **kwargs: Any,
    ) -> None:
        if pull:
            plain_loss = loss_function
            start = {name: p.detach().clone() for name, p in network.named_parameters() if p.requires_grad}

            def loss_function(prediction: Tensor, label: Tensor) -> Tensor:
                now = dict(network.named_parameters())
                moved = [(now[name] - value.to(now[name])).square().sum() for name, value in start.items()]
                return plain_loss(prediction, label) + pull / 2 * torch.stack(moved).sum()

        super().__init__(
            network=network,
            groups=_by_child(network, learning_rate, layer_decay),
            train_data_loader=train_data_loader,
            max_epochs=max_epochs,
            loss_function=loss_function,
            facts={"start_sha256": weights_sha256(network), "pull": pull},
            **kwargs,
        )


def _by_child(network: nn.Module, rate: float, decay: float) -> list[ParameterGroup]:
    """A group of parameters for each child that has any, the last with the whole rate; one group if rates are equal."""
    if decay == 1:
        return trainable(network, rate)
    # A parameter that children share is trained as the first one's.
    left = {id(p): p for p in network.parameters() if p.requires_grad}
    children = [[left.pop(id(p)) for p in child.parameters() if id(p) in left] for child in network.children()]
    children = [parameters for parameters in children if parameters]
    groups = [{"params": parameters, "lr": rate * decay**n} for n, parameters in enumerate(reversed(children))]
    return [*groups, {"params": list(left.values()), "lr": rate}] if left else groups
