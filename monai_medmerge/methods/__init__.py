"""Merging methods by name: one decorated function per file, from the sources' tensors to the merged one.

`merge_with` applies one to networks in memory, `merge_files` streams one over files, `METHODS` lists them all.
MedMerge itself merges with learned coefficients, which this layer may not import: `monai_medmerge.engines.medmerge`
registers it, as anyone may register a method of their own.
"""

from monai_medmerge.methods.dare import dare
from monai_medmerge.methods.ensemble import Ensemble
from monai_medmerge.methods.fisher import fisher
from monai_medmerge.methods.fisher_diagonal import fisher_diagonal
from monai_medmerge.methods.gram_matrices import gram_matrices
from monai_medmerge.methods.greedy_soup import greedy_soup
from monai_medmerge.methods.merging import merge_with
from monai_medmerge.methods.model_stock import model_stock
from monai_medmerge.methods.registry import METHODS, Method, get_method, method, methods_table, unregister
from monai_medmerge.methods.regmean import regmean
from monai_medmerge.methods.slerp import slerp
from monai_medmerge.methods.streaming import merge_files
from monai_medmerge.methods.task_arithmetic import task_arithmetic
from monai_medmerge.methods.ties import ties
from monai_medmerge.methods.uniform_average import uniform_average
from monai_medmerge.methods.weighted_average import weighted_average

__all__ = [
    "METHODS",
    "Ensemble",
    "Method",
    "dare",
    "fisher",
    "fisher_diagonal",
    "get_method",
    "gram_matrices",
    "greedy_soup",
    "merge_files",
    "merge_with",
    "method",
    "methods_table",
    "model_stock",
    "regmean",
    "slerp",
    "task_arithmetic",
    "ties",
    "uniform_average",
    "unregister",
    "weighted_average",
]
