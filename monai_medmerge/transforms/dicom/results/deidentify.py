"""DICOM results without what identifies their patient (PS3.15, basic application level confidentiality profile).

The profile lists what must go, and grows with each edition. Results are objects of few kinds, so that here is listed
what may stay: geometry, pixels, codes, and what this package itself wrote. All else goes, private attributes too.
"""

from __future__ import annotations

from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID, generate_uid

from monai_medmerge.errors import DicomSeriesError, SettingError
from monai_medmerge.files import whole_file
from monai_medmerge.transforms.dicom.results.source import MANUFACTURER
from monai_medmerge.transforms.foreign import guarded, quiet

# Parametric map, segmentation, label map; enhanced structured report.
_KINDS = (
    *("1.2.840.10008.5.1.4.1.1.30", "1.2.840.10008.5.1.4.1.1.66.4"),
    *("1.2.840.10008.5.1.4.1.1.66.7", "1.2.840.10008.5.1.4.1.1.88.22"),
)
# Of type 2: present, and empty.
_EMPTY_WORDS = """
    PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime StudyID AccessionNumber
    ReferringPhysicianName PositionReferenceIndicator Laterality PerformedProcedureStepDescription
"""
# Of type 1: a value that says nothing.
_DATES = {"ContentDate": "19000101", "ContentTime": "000000"}
_TAKEN_WORDS = """
    SOPClassUID Modality Manufacturer ManufacturerModelName SoftwareVersions DeviceSerialNumber SeriesNumber
    InstanceNumber ImageType ContentQualification ContentLabel ContentDescription LossyImageCompression
    BurnedInAnnotation RecognizableVisualFeatures PresentationLUTShape SeriesDescription Rows Columns SamplesPerPixel
    PhotometricInterpretation NumberOfFrames BitsAllocated BitsStored HighBit PixelRepresentation PixelData
    FloatPixelData DoubleFloatPixelData PixelPaddingValue SegmentationType SegmentSequence SegmentNumber SegmentLabel
    SegmentAlgorithmType SegmentAlgorithmName SegmentedPropertyCategoryCodeSequence SegmentedPropertyTypeCodeSequence
    SegmentationAlgorithmIdentificationSequence SegmentsOverlap RecommendedDisplayCIELabValue
    AlgorithmFamilyCodeSequence AlgorithmName AlgorithmVersion SegmentIdentificationSequence ReferencedSegmentNumber
    SegmentationFractionalType MaximumFractionalValue DimensionOrganizationType DimensionOrganizationSequence
    DimensionIndexSequence DimensionIndexPointer DimensionDescriptionLabel FunctionalGroupPointer DimensionIndexValues
    SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence PixelMeasuresSequence PixelSpacing SliceThickness
    SpacingBetweenSlices PlaneOrientationSequence ImageOrientationPatient PlanePositionSequence ImagePositionPatient
    FrameContentSequence StackID InStackPositionNumber FrameType ParametricMapFrameTypeSequence
    DerivationImageSequence DerivationCodeSequence SourceImageSequence PurposeOfReferenceCodeSequence
    ReferencedSOPClassUID ReferencedFrameNumber SpatialLocationsPreserved FrameVOILUTSequence WindowCenter WindowWidth
    VOILUTFunction IdentityPixelValueTransformationSequence PixelValueTransformationSequence RescaleSlope
    RescaleIntercept RescaleType RealWorldValueMappingSequence RealWorldValueFirstValueMapped
    RealWorldValueLastValueMapped RealWorldValueSlope RealWorldValueIntercept
    DoubleFloatRealWorldValueFirstValueMapped DoubleFloatRealWorldValueLastValueMapped LUTLabel LUTExplanation
    MeasurementUnitsCodeSequence QuantityDefinitionSequence FrameAnatomySequence FrameLaterality CodeValue
    CodingSchemeDesignator CodingSchemeVersion CodeMeaning ContextGroupVersion ContextIdentifier MappingResource
    CodingSchemeIdentificationSequence ReferencedSeriesSequence ReferencedInstanceSequence ReferencedSOPSequence
    StudiesContainingOtherReferencedInstancesSequence CurrentRequestedProcedureEvidenceSequence
    PertinentOtherEvidenceSequence ReferencedPerformedProcedureStepSequence PerformedProcedureCodeSequence
    ReferencedRequestSequence ValueType ConceptNameCodeSequence ConceptCodeSequence ContentSequence RelationshipType
    ContinuityOfContent ContentTemplateSequence TemplateIdentifier MeasuredValueSequence NumericValue
    FloatingPointValue CompletionFlag VerificationFlag PreliminaryFlag TextValue
"""
_UIDS_WORDS = """
    SOPInstanceUID StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID ReferencedSOPInstanceUID
    DimensionOrganizationUID UID TrackingUID
"""
_EMPTY, _TAKEN, _UIDS = (tuple(words.split()) for words in (_EMPTY_WORDS, _TAKEN_WORDS, _UIDS_WORDS))


def deidentify_result(path: str | Path, out: str | Path, salt: str) -> Path:
    """Write a segmentation, parametric map or report of this package without what identifies its patient.

    UIDs are replaced by ones that follow from them and the salt, so that results of one source still belong together,
    and nobody without the salt can tell from which images they are.

    Args:
        path: the result.
        out: the file to write.
        salt: a secret of the site.

    Returns:
        The new file's path; it is there whole or not at all.

    Raises:
        SettingError: the salt is empty.
        DicomSeriesError: the file is no such result, or is damaged.
    """
    if not salt:
        raise SettingError("a salt that is not empty", repr(salt), "salt")
    where = Path(path).name
    with quiet():
        clean = guarded(DicomSeriesError, "a result in DICOM", where, lambda: _clean(Path(path), salt))
        with whole_file(out) as part:
            clean.save_as(part, enforce_file_format=True)
    return Path(out)


def _clean(path: Path, salt: str) -> Dataset:
    dataset = pydicom.dcmread(path)
    kind = str(dataset.get("SOPClassUID") or "")
    # What others wrote may have free text anywhere.
    if kind not in _KINDS or dataset.get("Manufacturer") != MANUFACTURER:
        raise DicomSeriesError("a segmentation, parametric map or report of this package", "another object", path.name)
    syntax = dataset.file_meta.TransferSyntaxUID
    clean = _kept(dataset, salt)
    for keyword in _EMPTY:
        if keyword in dataset or keyword.startswith(("Patient", "Study")):
            setattr(clean, keyword, None)
    for keyword, value in _DATES.items():
        setattr(clean, keyword, value)
    if "AcquisitionContextSequence" in dataset:
        clean.AcquisitionContextSequence = []
    clean.PatientIdentityRemoved = "YES"
    clean.DeidentificationMethod = "monai_medmerge: what is not known to be safe is removed"
    method = Dataset()
    method.CodeValue, method.CodingSchemeDesignator = "113100", "DCM"
    method.CodeMeaning = "Basic Application Confidentiality Profile"
    clean.DeidentificationMethodCodeSequence = [method]
    clean.file_meta = pydicom.dataset.FileMetaDataset()
    clean.file_meta.TransferSyntaxUID = syntax
    clean.file_meta.MediaStorageSOPClassUID = clean.SOPClassUID
    clean.file_meta.MediaStorageSOPInstanceUID = clean.SOPInstanceUID
    clean.SpecificCharacterSet = "ISO_IR 192"
    return clean


def _kept(dataset: Dataset, salt: str) -> Dataset:
    """Return what may stay of a dataset and of the sequences in it."""
    clean = Dataset()
    dataset.decode()
    for element in dataset:
        if element.keyword in _UIDS:
            setattr(clean, element.keyword, _other_uid(str(element.value), salt))
        elif element.keyword in _TAKEN:
            if element.VR == "SQ":
                setattr(clean, element.keyword, [_kept(item, salt) for item in element.value])
            else:
                clean.add(element)
    if str(dataset.get("ValueType") or "") in ("PNAME", "DATE", "TIME", "DATETIME"):
        # An item of a report without its value says nothing.
        clean.ValueType = "TEXT"
        clean.TextValue = "removed"
    return clean


def _other_uid(uid: str, salt: str) -> UID:
    return generate_uid(entropy_srcs=[salt, uid])
