"""What a run keeps of its training, for its report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from monai_medmerge.evaluation.course import ContributionCourse
from monai_medmerge.handlers import EpochLosses

# Drawing a picture for TensorBoard takes as long as a small epoch.
PICTURE_INTERVAL = 5


class TrainingHistory:
    """The losses of every phase, and the sources' shares while coefficients were learned.

    Example:
        >>> history = TrainingHistory()
        >>> sorted(history.follow("probe"))
        ['losses']
        >>> history.curves
        {'probe': []}
    """

    def __init__(self) -> None:
        self.losses: dict[str, EpochLosses] = {}
        self.course: ContributionCourse | None = None

    def follow(self, phase: str, merged: nn.Module | None = None, writer: Any = None) -> Mapping[str, Any]:
        """Handlers that keep what one phase does; each has a state, by the name that it has in checkpoints.

        Args:
            phase: its name.
            merged: the merged network while its coefficients are learned.
            writer: TensorBoard's, for pictures of the shares.
        """
        self.losses[phase] = EpochLosses()
        if merged is None:
            return {"losses": self.losses[phase]}
        self.course = ContributionCourse(merged, writer, PICTURE_INTERVAL)
        return {"losses": self.losses[phase], "course": self.course}

    @property
    def curves(self) -> dict[str, list[tuple[float, float]]]:
        """Mean loss of every epoch, by phase."""
        return {phase: list(losses.points) for phase, losses in self.losses.items()}
