"""The merge itself, in plain torch."""

from monai_medmerge.networks.alignment import align
from monai_medmerge.networks.batchnorm import image_of, recalibrate
from monai_medmerge.networks.blend import MergeRecord
from monai_medmerge.networks.merge import blends, coefficients, fold, is_merged, merge, merge_record
from monai_medmerge.networks.penalty import coefficient_penalty
from monai_medmerge.networks.permutation import channel_groups

__all__ = [
    "MergeRecord",
    "align",
    "blends",
    "channel_groups",
    "coefficient_penalty",
    "coefficients",
    "fold",
    "image_of",
    "is_merged",
    "merge",
    "merge_record",
    "recalibrate",
]
