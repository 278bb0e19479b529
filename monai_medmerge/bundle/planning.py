"""Will it fit, and what will it cost: known before anything is learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from monai_medmerge.bundle.alignment import AlignmentPlan, plan_alignment
from monai_medmerge.bundle.configuration import explained
from monai_medmerge.inspection import copy_network
from monai_medmerge.networks.kernels import kernel_tensors
from monai_medmerge.sources import MatchReport, Source, adapt, match


@dataclass(frozen=True)
class Plan:
    """What merging these sources into this network means; `str()` is for reading.

    Args:
        report: how they fit.
        weights: numbers that merge.
        coefficients: numbers that are learned, at granularity `kernel`.
        source_bytes: of all sources' tensors in memory, if they are not mapped from disk.
        merged_bytes: of the blended weights that a step makes and of their gradients.
        alignment: what can move, and what matching gains, if that was asked for and the sources fit.
    """

    report: MatchReport
    weights: int
    coefficients: int
    source_bytes: int
    merged_bytes: int
    alignment: AlignmentPlan | None = None

    @property
    def step_operations(self) -> int:
        """Multiplications and additions that blending adds to one training step, forward and backward."""
        return 4 * self.weights * len(self.report.sources)

    def as_dict(self) -> dict[str, Any]:
        """The plan in plain types."""
        cost = {
            "weights": self.weights,
            "coefficients": self.coefficients,
            "source_bytes": self.source_bytes,
            "merged_bytes": self.merged_bytes,
            "operations_per_step": self.step_operations,
        }
        alignment = {} if self.alignment is None else {"alignment": self.alignment.as_dict()}
        return {**self.report.as_dict(), "cost": cost, **alignment}

    def __str__(self) -> str:
        verdict = "fits" if self.report.compatible else "does not fit"
        return "\n".join(
            [
                str(self.report),
                "",
                *([] if self.alignment is None else [str(self.alignment), ""]),
                f"learned: {self.coefficients:,} coefficients instead of {self.weights:,} weights",
                f"memory:  {self.source_bytes / 2**20:.0f} MiB of sources, less where they stay mapped from disk;",
                f"         {self.merged_bytes / 2**20:.0f} MiB of blended weights and their gradients; "
                "no optimizer state for either",
                "time:    one pass of the network, whatever the number of sources;",
                f"         {self.step_operations / 1e9:.2f} billion operations of blending a step",
                f"verdict: {verdict}",
            ]
        )


def plan(
    network: nn.Module,
    sources: Sequence[Source],
    adapting: bool = False,
    example_input: Tensor | None = None,
    exclude: str | Sequence[str] = (),
) -> Plan:
    """Match sources with a network and estimate what learning their coefficients costs.

    Args:
        network: to be merged into.
        sources: one or more.
        adapting: fit other input channels, dimensions and precision first, see `adapt`.
        example_input: a batch that the network takes, to align the sources that fit to the first one by weights.
        exclude: name patterns of tensors that stay the network's own.

    Example:
        >>> print(plan(nn.Linear(4, 2), [Source.from_network(nn.Linear(4, 2), "a")]))
        tensor  shape  a
        ------  -----  -----
        weight  2 x 4  match
        bias    2      match
        <BLANKLINE>
        a: 100.0 % of Linear; fits
        <BLANKLINE>
        learned: 2 coefficients instead of 10 weights
        memory:  ...
        verdict: fits
    """
    sources = [adapt(network, source) for source in sources] if adapting else list(sources)
    report = match(network, sources, exclude)
    unmatched = set(report.unmatched)
    # Once each, also where several modules share a tensor.
    tensors = {tensor.name: tensor for tensor in kernel_tensors(network) if tensor.name not in unmatched}.values()
    leading = [tensor.layout.kernels for tensor in tensors if tensor.leader == tensor.name]
    merged = sum(tensor.tensor.numel() * tensor.tensor.element_size() for tensor in tensors)
    return Plan(
        report=report,
        weights=sum(tensor.tensor.numel() for tensor in tensors),
        coefficients=len(sources) * sum(leading),
        source_bytes=sum(t.numel() * t.element_size() for source in sources for t in source.tensors.values()),
        merged_bytes=2 * merged,
        alignment=None
        if example_input is None or not report.compatible
        else plan_alignment(network, sources, example_input),
    )


def check_input(network: nn.Module, images: Tensor, where: str) -> None:
    """Before anything long: whether a network takes some images.

    Args:
        network: left as it is.
        images: a batch.
        where: what the images come from.

    Raises:
        SettingError: the network raises an error.

    Example:
        >>> check_input(nn.Linear(2, 1), torch.ones(3, 2), "--image")
    """
    with torch.no_grad(), explained("images that the network takes", where):
        copy_network(network).eval()(images)
