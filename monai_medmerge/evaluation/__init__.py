"""Compare, explain, check, report."""

from monai_medmerge.evaluation.bootstrap import Estimate, bootstrap_interval, confusion, estimate, macro_f1
from monai_medmerge.evaluation.contributions import contributions, source_names, summarise
from monai_medmerge.evaluation.plots import contributions_plot
from monai_medmerge.evaluation.prediction import predict

__all__ = [
    "Estimate",
    "bootstrap_interval",
    "confusion",
    "contributions",
    "contributions_plot",
    "estimate",
    "macro_f1",
    "predict",
    "source_names",
    "summarise",
]
