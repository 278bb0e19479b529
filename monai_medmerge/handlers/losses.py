"""The training curve of one phase, kept with its checkpoints."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine, Events


class EpochLosses:
    """Keeps the mean loss of every epoch.

    MONAI's `MetricLogger` keeps one per iteration, and a state that cannot be loaded as weights only.

    Example:
        >>> import torch
        >>> losses = EpochLosses()
        >>> engine = Engine(lambda engine, batch: {"loss": torch.tensor(batch)})
        >>> losses.attach(engine)
        >>> _ = engine.run([1.0, 2.0], max_epochs=2)
        >>> losses.points
        [(1, 1.5), (2, 1.5)]
    """

    def __init__(self) -> None:
        self.points: list[tuple[int, float]] = []
        self._epoch: list[float] = []

    def attach(self, engine: Engine) -> None:
        """Register with a trainer whose output has a `loss`."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._epoch.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._see)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def _see(self, engine: Any) -> None:
        self._epoch.append(engine.state.output["loss"].item())

    def __call__(self, engine: Engine) -> None:
        """Keep the mean of the epoch that ends."""
        self.points.append((engine.state.epoch, sum(self._epoch) / len(self._epoch)))

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs, in plain types."""
        return {"points": [list(point) for point in self.points]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.points = [(epoch, loss) for epoch, loss in state["points"]]
