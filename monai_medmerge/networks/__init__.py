"""The merge itself, in plain torch."""

from monai_medmerge.networks.alignment.aligning import align
from monai_medmerge.networks.alignment.permutation import channel_groups
from monai_medmerge.networks.batchnorm import recalibrate
from monai_medmerge.networks.blend import MergeRecord
from monai_medmerge.networks.folding import fold
from monai_medmerge.networks.merged import blends, coefficients, is_merged, merge_record
from monai_medmerge.networks.merging import merge
from monai_medmerge.networks.penalty import coefficient_penalty

__all__ = [
    "MergeRecord",
    "align",
    "blends",
    "channel_groups",
    "coefficient_penalty",
    "coefficients",
    "fold",
    "is_merged",
    "merge",
    "merge_record",
    "recalibrate",
]
