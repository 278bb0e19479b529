"""Follow in TensorBoard, or any writer of its kind, what is taken from whom."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import nn

from monai_medmerge.networks import coefficients, merge_record


class CoefficientLogger:
    """Each source's mean share, over all kernels, after every epoch; and histograms of its coefficients.

    Args:
        network: from `merge`.
        summary_writer: with `add_scalar` and `add_histogram`, such as torch's SummaryWriter.
    """

    def __init__(self, network: nn.Module, summary_writer: Any) -> None:
        self.network = network
        self.writer = summary_writer

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the present state."""
        tables = [table.flatten(1) for table in coefficients(self.network).values()]
        together = torch.cat(tables, dim=1)
        for name, row in zip(merge_record(self.network).sources, together, strict=True):
            self.writer.add_scalar(f"share/{name}", row.mean().item(), engine.state.epoch)
            self.writer.add_histogram(f"coefficients/{name}", row, engine.state.epoch)
