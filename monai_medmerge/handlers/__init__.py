"""Ignite handlers: small, and each attached to an event."""

from monai_medmerge.handlers.averaging import WeightAverager
from monai_medmerge.handlers.coefficient_log import CoefficientLogger
from monai_medmerge.handlers.epoch_line import EpochLine
from monai_medmerge.handlers.losses import EpochLosses
from monai_medmerge.handlers.lost import NOTHING, LostClassWarner, lost_line
from monai_medmerge.handlers.probabilities import ProbabilityWriter
from monai_medmerge.handlers.resume import ResumeHandler
from monai_medmerge.handlers.saving import WholeCheckpointSaver
from monai_medmerge.handlers.seed import EpochSeedHandler
from monai_medmerge.handlers.terminal_bar import TerminalProgressBar

__all__ = [
    "NOTHING",
    "CoefficientLogger",
    "EpochLine",
    "EpochLosses",
    "EpochSeedHandler",
    "LostClassWarner",
    "ProbabilityWriter",
    "ResumeHandler",
    "TerminalProgressBar",
    "WeightAverager",
    "WholeCheckpointSaver",
    "lost_line",
]
