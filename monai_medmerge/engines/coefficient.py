"""Learn the coefficients of a merged network, and with them its head, while the sources stay frozen."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from monai_medmerge.engines.phase import ParameterGroup, PhaseTrainer
from monai_medmerge.networks import blends, coefficient_penalty, merge_record


class CoefficientTrainer(PhaseTrainer):
    """Minimise ``loss + entropy * H(c) + pull * |c - start|^2`` over coefficients, head and residuals.

    Its checkpoints hold coefficients, head and running statistics, not the sources; the SHA-256 of every source is
    kept instead, and resuming with others is an error.

    Args:
        network: from `merge`.
        train_data_loader: batches of dictionaries with `image` and `label`.
        max_epochs: epochs.
        loss_function: of (prediction, label).
        learning_rate: of the coefficients.
        head_learning_rate: of tensors that no source has.
        residual_learning_rate: of the trainable differences of ``merge(..., residual=True)``.
        entropy: weight of the mean entropy of the coefficients: positive makes kernels choose a source, negative
            makes them mix.
        pull: weight of the mean squared distance of the coefficients from their start.
        kwargs: further arguments of `PhaseTrainer`.

    Raises:
        SettingError: the network was not made by `merge`.

    Example:
        >>> from monai_medmerge import Source, coefficients, merge
        >>> _ = torch.manual_seed(0)
        >>> sources = [Source.from_network(nn.Linear(4, 2), name) for name in ("a", "b")]
        >>> merged = merge(nn.Linear(4, 2), sources)
        >>> data = [{"image": torch.randn(8, 4), "label": torch.randint(2, (8,))}]
        >>> CoefficientTrainer(merged, data, max_epochs=2, loss_function=nn.CrossEntropyLoss()).run()
        >>> bool((coefficients(merged)["weight"] == 0.5).all())
        False
    """

    def __init__(
        self,
        network: nn.Module,
        train_data_loader: Iterable[Any],
        max_epochs: int,
        loss_function: Callable[..., Tensor],
        learning_rate: float = 2e-2,
        head_learning_rate: float = 1e-3,
        residual_learning_rate: float = 1e-3,
        entropy: float = 0.0,
        pull: float = 0.0,
        **kwargs: Any,
    ) -> None:
        record = merge_record(network)
        facts = {
            "sources": list(record.sources),
            "sha256": list(record.sha256),
            "granularity": record.granularity,
            "constraint": record.constraint,
            "start_sha256": _start_sha256(network),
            "entropy": entropy,
            "pull": pull,
        }
        if entropy or pull:
            plain_loss = loss_function

            def loss_function(prediction: Tensor, label: Tensor) -> Tensor:
                return plain_loss(prediction, label) + coefficient_penalty(network, entropy, pull)

        super().__init__(
            network=network,
            groups=_groups(network, learning_rate, head_learning_rate, residual_learning_rate),
            train_data_loader=train_data_loader,
            max_epochs=max_epochs,
            loss_function=loss_function,
            facts=facts,
            **kwargs,
        )


def _start_sha256(network: nn.Module) -> str:
    """Of the coefficients that the merge began with."""
    digest = hashlib.sha256()
    for start in {id(blend.coefficients): blend.coefficients.start for _, _, _, blend in blends(network)}.values():
        digest.update(start.cpu().numpy().tobytes())
    return digest.hexdigest()


def _groups(network: nn.Module, rate: float, head_rate: float, residual_rate: float) -> list[ParameterGroup]:
    """Coefficients, residuals and head, each with its rate; weight decay would pull coefficients to no source."""
    free = {id(blend.coefficients.free): blend.coefficients.free for _, _, _, blend in blends(network)}
    residuals = {
        id(original): original
        for _, module, attribute, blend in blends(network)
        if blend.residual and isinstance(original := module.parametrizations[attribute].original, torch.nn.Parameter)  # type: ignore[union-attr, index]
    }
    head = [p for p in network.parameters() if p.requires_grad and id(p) not in free and id(p) not in residuals]
    return [
        {"params": [p for p in free.values() if p.requires_grad], "lr": rate, "weight_decay": 0.0},
        {"params": list(residuals.values()), "lr": residual_rate},
        {"params": head, "lr": head_rate},
    ]
