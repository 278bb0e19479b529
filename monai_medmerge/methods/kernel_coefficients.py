"""MedMerge as one of the registered methods: merge, let the caller learn, fold."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from monai_medmerge.methods.registry import method
from monai_medmerge.networks import fold, merge
from monai_medmerge.networks.start import Start
from monai_medmerge.sources import Source


@method(
    "medmerge",
    reference="[arXiv:2403.11646](https://arxiv.org/abs/2403.11646)",
    whole=True,
    callback="learn",
)
def medmerge(
    network: nn.Module,
    sources: Sequence[Source],
    *,
    learn: Callable[[nn.Module], object],
    granularity: str = "kernel",
    constraint: str = "softmax",
    start: Start = "uniform",
    residual: bool = False,
    anchor: int = 0,
    exclude: str | Sequence[str] = (),
) -> nn.Module:
    """Sum of the sources' kernels, each with a coefficient learned on the target's data.

    Args:
        network: as of `merge_with`.
        sources: as of `merge_with`.
        learn: trains the merged network in place, its coefficients and its head; `CoefficientTrainer` does.
        granularity: as of `monai_medmerge.merge`.
        constraint: as of `monai_medmerge.merge`.
        start: as of `monai_medmerge.merge`.
        residual: as of `monai_medmerge.merge`.
        anchor: as of `monai_medmerge.merge`.
        exclude: as of `monai_medmerge.merge`.

    Returns:
        The folded network.

    Example:
        >>> import torch
        >>> sources = [Source.from_network(nn.Linear(2, 2), name) for name in ("a", "b")]
        >>> merged = medmerge(nn.Linear(2, 2), sources, learn=lambda network: None)
        >>> mean = (sources[0].tensors["weight"] + sources[1].tensors["weight"]) / 2
        >>> torch.allclose(merged.weight, mean)
        True
    """
    merged = merge(network, sources, granularity, constraint, start, anchor, residual, exclude)
    learn(merged)
    return fold(merged)
