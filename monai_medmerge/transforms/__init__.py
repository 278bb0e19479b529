"""What MONAI lacks at the entrance: checked readers for clinical images."""

from monai_medmerge.transforms.dicom import DicomSeriesReader
from monai_medmerge.transforms.dicom_series import list_series
from monai_medmerge.transforms.images import MedicalImageReader
from monai_medmerge.transforms.nifti import CheckedNiftiReader

__all__ = ["CheckedNiftiReader", "DicomSeriesReader", "MedicalImageReader", "list_series"]
