"""Predictions of classes as a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from monai_medmerge.files import write_csv


class ProbabilityWriter:
    """Write one row per image: file, predicted class, and the probability of every class.

    The table is written when the engine completes, whole; a run that ends before leaves the older one.

    Args:
        path: the CSV file.
        class_names: one per class, in the network's order.
        file_key: entry of the batch with the names of its images.
    """

    def __init__(self, path: str | Path, class_names: Sequence[str], file_key: str = "file") -> None:
        self.path = Path(path)
        self.class_names = list(class_names)
        self.file_key = file_key
        self._rows: list[list[str]] = []

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.write)
        engine.add_event_handler(Events.COMPLETED, self.finish)

    def start(self, engine: Engine) -> None:
        """Begin the table."""
        self._rows = []

    def write(self, engine: Any) -> None:
        """Append the rows of one batch."""
        scores = torch.as_tensor(engine.state.output["pred"]).detach().cpu().float()
        for name, row in zip(engine.state.batch[self.file_key], scores.softmax(1), strict=True):
            best = self.class_names[int(row.argmax())]
            self._rows.append([name, best, *(f"{value:.6f}" for value in row.tolist())])

    def finish(self, engine: Engine) -> None:
        """Write the whole table."""
        write_csv(self.path, ["file", "prediction", *self.class_names], self._rows)
