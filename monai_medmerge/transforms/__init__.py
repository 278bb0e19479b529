"""What MONAI lacks at the entrance: checked readers for clinical images, and DICOM segmentations in and out."""

from monai_medmerge.transforms.channels import FitChannelsd, fit_channels
from monai_medmerge.transforms.dicom.reader import DicomSeriesReader
from monai_medmerge.transforms.dicom.results.deidentify import deidentify_result
from monai_medmerge.transforms.dicom.results.parametric_map import write_parametric_map
from monai_medmerge.transforms.dicom.results.report import write_structured_report
from monai_medmerge.transforms.dicom.results.segmentation import SaveDicomSegd, SegmentTable, write_seg
from monai_medmerge.transforms.dicom.segmentation import LoadDicomSegd, read_seg
from monai_medmerge.transforms.dicom.series import list_series
from monai_medmerge.transforms.dicom.web import fetch_series
from monai_medmerge.transforms.formats.reader import CheckedVolumeReader
from monai_medmerge.transforms.images import MedicalImageReader
from monai_medmerge.transforms.intensity import (
    WINDOW_PRESETS,
    ApplyWindowd,
    NormalizePhotometricd,
    apply_voi,
    apply_window,
    normalize_photometric,
)
from monai_medmerge.transforms.label_maps import SaveSegmentationd
from monai_medmerge.transforms.nifti import CheckedNiftiReader
from monai_medmerge.transforms.preparation import CorrectBiasFieldd, LowPassd, ToUptaked, correct_bias_field, low_pass
from monai_medmerge.transforms.privacy import StripIdentityd, strip_identity
from monai_medmerge.transforms.source_grid import LabelsToSourced, labels_onto_grid

__all__ = [
    "WINDOW_PRESETS",
    "ApplyWindowd",
    "CheckedNiftiReader",
    "CheckedVolumeReader",
    "CorrectBiasFieldd",
    "DicomSeriesReader",
    "FitChannelsd",
    "LabelsToSourced",
    "LoadDicomSegd",
    "LowPassd",
    "MedicalImageReader",
    "NormalizePhotometricd",
    "SaveDicomSegd",
    "SaveSegmentationd",
    "SegmentTable",
    "StripIdentityd",
    "ToUptaked",
    "apply_voi",
    "apply_window",
    "correct_bias_field",
    "deidentify_result",
    "fetch_series",
    "fit_channels",
    "labels_onto_grid",
    "list_series",
    "low_pass",
    "normalize_photometric",
    "read_seg",
    "strip_identity",
    "write_parametric_map",
    "write_seg",
    "write_structured_report",
]
