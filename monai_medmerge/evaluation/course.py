"""How the sources' shares move while coefficients are learned."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from ignite.engine import Engine, Events
from monai.utils import optional_import
from PIL import Image
from torch import Tensor, nn

from monai_medmerge.evaluation.report.drawing import png
from monai_medmerge.evaluation.report.plots import contributions_plot
from monai_medmerge.evaluation.shares import contributions, summarise
from monai_medmerge.networks import blends, coefficients, merge_record

if TYPE_CHECKING:
    import pandas as pd

pandas, _ = optional_import("pandas", descriptor="pip install 'monai_medmerge[report]': {}")


class ContributionCourse:
    """A handler that keeps each source's share of the whole network at the start and after every epoch.

    Args:
        network: from `merge`.
        summary_writer: with `add_image`, such as torch's SummaryWriter, for pictures of all layers.
        interval: epochs from one picture to the next; the start and the last epoch always have theirs.

    Example:
        >>> import torch
        >>> from monai_medmerge import Source, merge
        >>> merged = merge(nn.Linear(4, 2), [Source.from_network(nn.Linear(4, 2), name) for name in "ab"])
        >>> course, engine = ContributionCourse(merged), Engine(lambda engine, batch: None)
        >>> course.attach(engine)
        >>> _ = engine.run([0], max_epochs=2)
        >>> course.frame["epoch"].tolist(), course.frame["a"].tolist()
        ([0, 1, 2], [0.5, 0.5, 0.5])
    """

    def __init__(self, network: nn.Module, summary_writer: Any = None, interval: int = 1) -> None:
        self.network = network
        self.writer = summary_writer
        self.interval = interval
        self.sources = list(merge_record(network).sources)
        self.sizes = {found.name: found.blend.sources[0].numel() for found in blends(network)}
        self.start: dict[str, Tensor] = {}
        self.rows: list[dict[str, float]] = []

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self.begin)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def begin(self, engine: Engine) -> None:
        """Keep the coefficients as they are before learning, unless a run goes on that began before."""
        if not self.rows:
            self.start = coefficients(self.network)
            self(engine)

    def __call__(self, engine: Engine) -> None:
        """Keep the present shares."""
        frame = contributions(coefficients(self.network), self.sources, self.sizes, self.start or None)
        whole = summarise(frame, None).iloc[0]
        means = [*self.sources, "entropy", "whole", "movement"]
        self.rows.append({"epoch": engine.state.epoch, **{name: float(whole[name]) for name in means}})
        epoch, last = engine.state.epoch, engine.state.max_epochs
        if self.writer is not None and (epoch % self.interval == 0 or epoch == last):
            picture = np.asarray(Image.open(BytesIO(png(contributions_plot, frame))).convert("RGB"))
            self.writer.add_image("contributions", picture, epoch, dataformats="HWC")

    @property
    def frame(self) -> pd.DataFrame:
        """One row per epoch: `epoch`, each source's share, `entropy`, `whole` and `movement`."""
        return pandas.DataFrame(self.rows)

    @property
    def curves(self) -> dict[str, list[tuple[float, float]]]:
        """Each source's share over epochs, as `curves_plot` takes them."""
        return {name: [(row["epoch"], row[name]) for row in self.rows] for name in self.sources}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs, in plain types and tensors."""
        return {"rows": [dict(row) for row in self.rows], "start": dict(self.start)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.rows, self.start = [dict(row) for row in state["rows"]], dict(state["start"])
