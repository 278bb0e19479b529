"""The attributes that are read of a file: geometry, values and what tells volumes apart, nothing of the patient.

Values are parsed for these tags only. Nothing of the patient module is among them, so nothing of it can reach an error,
a log or a MetaTensor; the UIDs tell series apart and leave only as a salted hash.
"""

from __future__ import annotations

from pydicom.datadict import tag_for_keyword

_SERIES = """
    SOPClassUID ImageType Modality Manufacturer SeriesDescription StudyInstanceUID SeriesInstanceUID SeriesNumber
    FrameOfReferenceUID InstanceNumber
"""
_GEOMETRY = """
    ImagePositionPatient ImageOrientationPatient PixelSpacing ImagerPixelSpacing NominalScannedPixelSpacing
    PixelSpacingCalibrationType PixelAspectRatio SequenceOfUltrasoundRegions SpacingBetweenSlices SliceThickness
    GridFrameOffsetVector DetectorInformationSequence SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence
    AcquisitionMatrix EnergyWindowVector DetectorVector PhaseVector RotationVector RRIntervalVector TimeSlotVector
    SliceVector AngularViewVector TimeSliceVector FrameIncrementPointer FrameTime FrameTimeVector CineRate
    RecommendedDisplayFrameRate DimensionOrganizationType DimensionIndexSequence TotalPixelMatrixColumns
    TotalPixelMatrixRows TotalPixelMatrixOriginSequence TotalPixelMatrixFocalPlanes NumberOfOpticalPaths
    ImageOrientationSlide ConcatenationUID ConcatenationFrameOffsetNumber
"""
_PIXELS = """
    Rows Columns SamplesPerPixel PhotometricInterpretation PlanarConfiguration NumberOfFrames BitsAllocated BitsStored
    HighBit PixelRepresentation
    RedPaletteColorLookupTableDescriptor GreenPaletteColorLookupTableDescriptor BluePaletteColorLookupTableDescriptor
    RedPaletteColorLookupTableData GreenPaletteColorLookupTableData BluePaletteColorLookupTableData
    SegmentedRedPaletteColorLookupTableData SegmentedGreenPaletteColorLookupTableData
    SegmentedBluePaletteColorLookupTableData
"""
_VALUES = """
    RescaleIntercept RescaleSlope RescaleType WindowCenter WindowWidth
    WindowCenterWidthExplanation VOILUTFunction ModalityLUTSequence VOILUTSequence
    DoseGridScaling DoseUnits RealWorldValueMappingSequence Units
    SegmentSequence SegmentationType MaximumFractionalValue
"""
_VOLUMES = """
    AcquisitionNumber EchoTime EchoNumbers InversionTime FlipAngle RepetitionTime DiffusionBValue
    DiffusionGradientOrientation TemporalPositionIdentifier TemporalPositionIndex NominalPercentageOfCardiacPhase
    TriggerTime KVP ConvolutionKernel ComplexImageComponent ReceiveCoilName SequenceName FrameReferenceTime
    AcquisitionDateTime AcquisitionTime DiffusionDirectionality VolumetricProperties
"""
# (group, creator, element) of vendors' attributes, whatever block they are in.
PRIVATE = {
    "siemens_mosaic": (0x0019, "SIEMENS MR HEADER", 0x0A),
    "siemens_b_value": (0x0019, "SIEMENS MR HEADER", 0x0C),
    "siemens_direction": (0x0019, "SIEMENS MR HEADER", 0x0E),
    "ge_b_value": (0x0043, "GEMS_PARM_01", 0x39),
    "ge_component": (0x0043, "GEMS_PARM_01", 0x2F),
    "philips_b_value": (0x2001, "Philips Imaging DD 001", 0x03),
    # United Imaging's group has creators of several names.
    "uih_mosaic": (0x0065, "", 0x50),
    "uih_b_value": (0x0065, "", 0x09),
    "uih_direction": (0x0065, "", 0x37),
}
BLOCKS = range(0x10, 0x12)


def _all_tags() -> list[int]:
    words = (_SERIES + _GEOMETRY + _PIXELS + _VALUES + _VOLUMES).split()
    tags = [tag for tag in map(tag_for_keyword, words) if tag is not None]
    for group, _, element in PRIVATE.values():
        tags += [group << 16 | block for block in BLOCKS]
        tags += [group << 16 | block << 8 | element for block in BLOCKS]
    return sorted({int(tag) for tag in tags})


TAGS = _all_tags()
