"""Ignite engines on MONAI's trainers: one per phase."""

from monai_medmerge.engines.coefficient import CoefficientTrainer
from monai_medmerge.engines.finetune import FineTuner
from monai_medmerge.engines.phase import PhaseTrainer, Record
from monai_medmerge.engines.probe import EvaluationInferer, LinearProbeTrainer
from monai_medmerge.engines.teach import TeachTrainer, divergence

__all__ = [
    "CoefficientTrainer",
    "EvaluationInferer",
    "FineTuner",
    "LinearProbeTrainer",
    "PhaseTrainer",
    "Record",
    "TeachTrainer",
    "divergence",
]
