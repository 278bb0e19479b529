"""Compare, explain, check, report."""

from monai_medmerge.evaluation.bootstrap import Estimate, Resampling, bootstrap_interval, confusion, estimate, macro_f1
from monai_medmerge.evaluation.cases import Naming
from monai_medmerge.evaluation.comparison import Comparison, compare_predictions
from monai_medmerge.evaluation.contributions import contributions, source_names, summarise
from monai_medmerge.evaluation.plots import contributions_plot
from monai_medmerge.evaluation.prediction import predict
from monai_medmerge.evaluation.safety import DEFAULT_LIMITS, GateResult, check
from monai_medmerge.evaluation.segmentation import compare_dice
from monai_medmerge.evaluation.side_by_side import compare

__all__ = [
    "DEFAULT_LIMITS",
    "Comparison",
    "Estimate",
    "GateResult",
    "Naming",
    "Resampling",
    "bootstrap_interval",
    "check",
    "compare",
    "compare_dice",
    "compare_predictions",
    "confusion",
    "contributions",
    "contributions_plot",
    "estimate",
    "macro_f1",
    "predict",
    "source_names",
    "summarise",
]
