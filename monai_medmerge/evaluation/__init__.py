"""Compare, explain, check, report."""

from monai_medmerge.evaluation.bootstrap import bootstrap_interval, confusion, macro_f1
from monai_medmerge.evaluation.contributions import contributions
from monai_medmerge.evaluation.plots import contributions_plot
from monai_medmerge.evaluation.prediction import predict

__all__ = [
    "bootstrap_interval",
    "confusion",
    "contributions",
    "contributions_plot",
    "macro_f1",
    "predict",
]
