"""Predictions of classes as a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from monai_medmerge.errors import SettingError
from monai_medmerge.files import write_csv

HALF = 0.5
ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "softmax": lambda scores: scores.softmax(1),
    "sigmoid": torch.sigmoid,
    "none": lambda scores: scores,
}


class ProbabilityWriter:
    """Write one row per image: file, predicted class, and the probability of every class.

    The table is written when the engine completes, whole; a run that ends before leaves the older one.

    Args:
        path: the CSV file.
        class_names: one per class, in the network's order.
        file_key: entry of the batch with the names of its images.
        activation: from scores to probabilities: `softmax`, `sigmoid` (each class by itself: every class of 0.5 or
            more is named, joined by `+`, and a single one's name or `not NAME`), or `none`.

    Raises:
        SettingError: the activation is another.
    """

    def __init__(
        self, path: str | Path, class_names: Sequence[str], file_key: str = "file", activation: str = "softmax"
    ) -> None:
        if activation not in ACTIVATIONS:
            raise SettingError(f"one of {', '.join(ACTIVATIONS)}", repr(activation), "activation")
        self.activation = activation
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
        # Some classifiers end in batch x class x 1 x 1.
        scores = torch.as_tensor(engine.state.output["pred"]).detach().cpu().float().flatten(1)
        for name, row in zip(engine.state.batch[self.file_key], ACTIVATIONS[self.activation](scores), strict=True):
            self._rows.append([name, self._named(row), *(f"{value:.6f}" for value in row.tolist())])

    def _named(self, answers: torch.Tensor) -> str:
        if self.activation != "sigmoid":
            return self.class_names[int(answers.argmax())]
        present = [name for name, answer in zip(self.class_names, answers.tolist(), strict=True) if answer >= HALF]
        return "+".join(present) or (f"not {self.class_names[0]}" if len(self.class_names) == 1 else "none")

    def finish(self, engine: Engine) -> None:
        """Write the whole table."""
        write_csv(self.path, ["file", "prediction", *self.class_names], self._rows)
