"""Compare, explain, check, report."""

from monai_medmerge.evaluation.bootstrap import Estimate, Resampling, bootstrap_interval, confusion, estimate, macro_f1
from monai_medmerge.evaluation.comparison.cases import Naming
from monai_medmerge.evaluation.comparison.networks import compare, worst_cases
from monai_medmerge.evaluation.comparison.predictions import compare_predictions
from monai_medmerge.evaluation.comparison.rows import Comparison
from monai_medmerge.evaluation.comparison.volumes import compare_dice
from monai_medmerge.evaluation.course import ContributionCourse
from monai_medmerge.evaluation.gate import DEFAULT_LIMITS, GateResult, check
from monai_medmerge.evaluation.prediction import predict
from monai_medmerge.evaluation.report.assembly import ReportContent
from monai_medmerge.evaluation.report.page import write_report
from monai_medmerge.evaluation.report.plots import contributions_plot
from monai_medmerge.evaluation.results import class_results, grade_results, label_results, segment_results
from monai_medmerge.evaluation.shares import contributions, source_names, summarise
from monai_medmerge.evaluation.similarity import layer_similarity

__all__ = [
    "DEFAULT_LIMITS",
    "Comparison",
    "ContributionCourse",
    "Estimate",
    "GateResult",
    "Naming",
    "ReportContent",
    "Resampling",
    "bootstrap_interval",
    "check",
    "class_results",
    "compare",
    "compare_dice",
    "compare_predictions",
    "confusion",
    "contributions",
    "contributions_plot",
    "estimate",
    "grade_results",
    "label_results",
    "layer_similarity",
    "macro_f1",
    "predict",
    "segment_results",
    "source_names",
    "summarise",
    "worst_cases",
    "write_report",
]
