"""Merging methods by name: one decorated function per file, from the sources' tensors to the merged one.

`merge_with` applies one to networks in memory, `merge_files` streams one over files, `METHODS` lists them all.
"""

from monai_medmerge.methods.applying.files import merge_files
from monai_medmerge.methods.applying.in_memory import merge_with
from monai_medmerge.methods.averaging.averages import uniform_average, weighted_average
from monai_medmerge.methods.averaging.soups import greedy_soup
from monai_medmerge.methods.averaging.spherical import slerp
from monai_medmerge.methods.averaging.stock_average import model_stock
from monai_medmerge.methods.dare_dropping import dare
from monai_medmerge.methods.ensemble import Ensemble
from monai_medmerge.methods.fisher_weighting import fisher
from monai_medmerge.methods.isotropic_merging import isotropic
from monai_medmerge.methods.kernel_coefficients import medmerge
from monai_medmerge.methods.model_breadcrumbs import breadcrumbs
from monai_medmerge.methods.permuted_least_squares import pleas
from monai_medmerge.methods.registry import METHODS, Method, get_method, method, methods_table, unregister
from monai_medmerge.methods.regression_mean import regmean
from monai_medmerge.methods.statistics.fisher_information import fisher_diagonal
from monai_medmerge.methods.statistics.gram import gram_matrices
from monai_medmerge.methods.statistics.moments import cross_moments
from monai_medmerge.methods.task_vectors import task_arithmetic
from monai_medmerge.methods.ties_merging import ties

__all__ = [
    "METHODS",
    "Ensemble",
    "Method",
    "breadcrumbs",
    "cross_moments",
    "dare",
    "fisher",
    "fisher_diagonal",
    "get_method",
    "gram_matrices",
    "greedy_soup",
    "isotropic",
    "medmerge",
    "merge_files",
    "merge_with",
    "method",
    "methods_table",
    "model_stock",
    "pleas",
    "regmean",
    "slerp",
    "task_arithmetic",
    "ties",
    "uniform_average",
    "unregister",
    "weighted_average",
]
