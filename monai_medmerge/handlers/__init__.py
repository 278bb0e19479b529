"""Ignite handlers: small, and each attached to an event."""

from monai_medmerge.handlers.averaging import WeightAverager
from monai_medmerge.handlers.coefficients import CoefficientLogger
from monai_medmerge.handlers.losses import EpochLosses
from monai_medmerge.handlers.probabilities import ProbabilityWriter
from monai_medmerge.handlers.resume import ResumeHandler
from monai_medmerge.handlers.saving import WholeCheckpointSaver
from monai_medmerge.handlers.seed import EpochSeedHandler

__all__ = [
    "CoefficientLogger",
    "EpochLosses",
    "EpochSeedHandler",
    "ProbabilityWriter",
    "ResumeHandler",
    "WeightAverager",
    "WholeCheckpointSaver",
]
