"""The merge itself, in plain torch."""

from monai_medmerge.networks.batchnorm import recalibrate
from monai_medmerge.networks.blend import MergeRecord
from monai_medmerge.networks.merge import blends, coefficients, fold, merge, merge_record
from monai_medmerge.networks.penalty import coefficient_penalty

__all__ = [
    "MergeRecord",
    "blends",
    "coefficient_penalty",
    "coefficients",
    "fold",
    "merge",
    "merge_record",
    "recalibrate",
]
