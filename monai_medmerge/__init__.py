"""Merge what several pretrained networks know into one better starting point for a small medical imaging task.

>>> from torch import nn
>>> from monai_medmerge import Source, coefficients, fold, merge
>>> sources = [Source.from_network(nn.Conv2d(1, 8, 3), name) for name in ("chest", "brain")]
>>> merged = merge(nn.Conv2d(1, 8, 3), sources)
>>> coefficients(merged)["weight"].shape  # (source, kernel)
torch.Size([2, 8])
>>> type(fold(merged)).__name__
'Conv2d'
"""

from monai_medmerge.errors import (
    DatasetError,
    DicomSeriesError,
    IncompatibleSourcesError,
    MedMergeError,
    NiftiError,
    ResumeError,
    SettingError,
    UnsafeCheckpointError,
)
from monai_medmerge.methods.kernel_coefficients import medmerge
from monai_medmerge.networks import align, coefficients, fold, merge, recalibrate
from monai_medmerge.sources import MatchReport, Source, match

__version__ = "0.1.0"

__all__ = [
    "DatasetError",
    "DicomSeriesError",
    "IncompatibleSourcesError",
    "MatchReport",
    "MedMergeError",
    "NiftiError",
    "ResumeError",
    "SettingError",
    "Source",
    "UnsafeCheckpointError",
    "align",
    "coefficients",
    "fold",
    "match",
    "medmerge",
    "merge",
    "recalibrate",
]
