"""What can tell apart the volumes of one series: one table for classic files and for functional groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataset import Dataset

from monai_medmerge.errors import DicomSeriesError
from monai_medmerge.transforms.dicom.elements import element_value
from monai_medmerge.transforms.dicom.geometry.frames import Frame
from monai_medmerge.transforms.dicom.headers import Header
from monai_medmerge.transforms.dicom.tags import PRIVATE
from monai_medmerge.transforms.foreign import guarded

Value = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute by which frames of a series may differ.

    Args:
        keyword: its name in classic objects, and in messages.
        groups: where enhanced objects have it, each a path of keywords: sequences, then the attribute.
        unit: of its values.
        private: names of vendors' numbers that stand in for it, of `tags.PRIVATE`.
        decides: whether slices that alternate in it cannot be one volume.
        digits: significant ones; scanners state some numbers with noise.
    """

    keyword: str
    groups: tuple[str, ...] = ()
    unit: str = ""
    private: tuple[str, ...] = ()
    decides: bool = True
    digits: int = 6


# In the order in which they name a dimension where several would do.
ATTRIBUTES = (
    Attribute("EchoTime", ("MREchoSequence.EffectiveEchoTime",), "ms", digits=3),
    Attribute("EchoNumbers"),
    Attribute("InversionTime", ("MRModifierSequence.InversionTimes",), "ms", digits=3),
    Attribute("FlipAngle", ("MRTimingAndRelatedParametersSequence.FlipAngle",), "deg", digits=3),
    Attribute(
        "DiffusionBValue",
        ("MRDiffusionSequence.DiffusionBValue",),
        "s/mm2",
        ("siemens_b_value", "ge_b_value", "philips_b_value", "uih_b_value"),
    ),
    Attribute(
        "DiffusionGradientOrientation",
        ("MRDiffusionSequence.DiffusionGradientDirectionSequence.DiffusionGradientOrientation",),
        private=("siemens_direction", "uih_direction"),
        decides=False,
        digits=4,
    ),
    Attribute("DiffusionDirectionality", ("MRDiffusionSequence.DiffusionDirectionality",)),
    Attribute(
        "TemporalPositionIdentifier",
        ("FrameContentSequence.TemporalPositionIndex", "TemporalPositionSequence.TemporalPositionTimeOffset"),
    ),
    Attribute(
        "NominalPercentageOfCardiacPhase", ("CardiacSynchronizationSequence.NominalPercentageOfCardiacPhase",), "%"
    ),
    Attribute(
        "NominalCardiacTriggerDelayTime", ("CardiacSynchronizationSequence.NominalCardiacTriggerDelayTime",), "ms"
    ),
    Attribute(
        "NominalPercentageOfRespiratoryPhase",
        ("RespiratorySynchronizationSequence.NominalPercentageOfRespiratoryPhase",),
        "%",
    ),
    Attribute("KVP", ("CTXRayDetailsSequence.KVP",), "kV", digits=3),
    Attribute("ConvolutionKernel", ("CTReconstructionSequence.ConvolutionKernel",)),
    Attribute("ComplexImageComponent", ("MRImageFrameTypeSequence.ComplexImageComponent",), private=("ge_component",)),
    Attribute(
        "ImageType",
        (
            *("MRImageFrameTypeSequence.FrameType", "CTImageFrameTypeSequence.FrameType"),
            *("PETFrameTypeSequence.FrameType", "USImageDescriptionSequence.FrameType"),
            *("ParametricMapFrameTypeSequence.FrameType", "ImageDataTypeSequence.DataType"),
        ),
    ),
    Attribute("LUTLabel", ("RealWorldValueMappingSequence.LUTLabel",)),
    Attribute("ASLContext", ("MRArterialSpinLabelingSequence.ASLContext",)),
    Attribute("VelocityEncodingDirection", ("MRVelocityEncodingSequence.VelocityEncodingDirection",)),
    Attribute("ReceiveCoilName", ("MRReceiveCoilSequence.ReceiveCoilName",)),
    Attribute("RepetitionTime", ("MRTimingAndRelatedParametersSequence.RepetitionTime",), "ms", decides=False),
    Attribute("SliceThickness", ("PixelMeasuresSequence.SliceThickness",), "mm", decides=False, digits=3),
    Attribute("SequenceName", decides=False),
    Attribute("AcquisitionNumber", ("FrameContentSequence.FrameAcquisitionNumber",)),
)
# Looked at last, where nothing says what frames of one position are: their order in time.
TIMES = (
    Attribute("FrameReferenceTime", unit="ms", decides=False, digits=17),
    Attribute("TriggerTime", unit="ms", decides=False, digits=17),
    Attribute("AcquisitionDateTime", ("FrameContentSequence.FrameReferenceDateTime",), decides=False, digits=17),
    Attribute("AcquisitionTime", decides=False, digits=17),
)
# Of a dimension index: where a frame is in space.
_SPATIAL = {
    *("StackID", "InStackPositionNumber", "ImagePositionPatient", "ImageOrientationPatient", "ImagePositionVolume"),
    *("PlanePositionSequence", "PlanePositionVolumeSequence", "SliceLocation"),
}


def attribute_values(frames: Sequence[Frame], attribute: Attribute) -> list[Value] | None:
    """Return one value for each frame, an empty tuple where there is none; None where all frames are the same in it."""
    constant: dict[int, Value] = {}
    values = []
    for frame in frames:
        own = _own_value(frame, attribute)
        if own is None:
            key = id(frame.header)
            if key not in constant:
                constant[key] = _file_value(frame, attribute)
            own = constant[key]
        values.append(own)
    return None if all(value == values[0] for value in values) else values


def vector_values(frames: Sequence[Frame]) -> dict[str, list[Value]]:
    """Return the vectors of nuclear medicine that tell frames apart."""
    words = {word for frame in frames for word in frame.vectors}
    return {word: [(frame.vectors.get(word),) for frame in frames] for word in sorted(words)}


def index_values(frames: Sequence[Frame]) -> dict[str, list[Value]]:
    """Return the dimension indices (PS3.3 C.7.6.17) that are not places and differ, by the name of what they index."""
    headers = {id(frame.header): frame.header for frame in frames}
    if len(headers) != 1 or not frames[0].groups:
        return {}
    names = _index_names(frames[0].header)
    found: dict[str, list[Value]] = {}
    for number, name in enumerate(names):
        if name in _SPATIAL:
            continue
        values = [_index_value(frame, number) for frame in frames]
        if len(set(values)) > 1:
            found[name] = values
    return found


def _index_names(header: Header) -> list[str]:
    def parse() -> list[str]:
        names = []
        for item in header.dataset.get("DimensionIndexSequence") or []:
            pointer = int(item.get("DimensionIndexPointer") or 0)
            # The names of private tags may say anything.
            names.append(keyword_for_tag(pointer) or f"({pointer >> 16:04X},{pointer & 0xFFFF:04X})")
        return names

    return guarded(DicomSeriesError, "dimension indices", f"{header.where}, DimensionIndexSequence", parse)


def _index_value(frame: Frame, number: int) -> Value:
    content = frame.groups[0].get("FrameContentSequence")
    values = _as_tuple(content[0].get("DimensionIndexValues"), 9) if content else ()
    return values[number : number + 1]


def _own_value(frame: Frame, attribute: Attribute) -> Value | None:
    """Return what the frame's own functional groups say, None where they say nothing."""
    if not frame.groups:
        return None
    known = frame.groups[0].keys()
    for path in attribute.groups:
        words = path.split(".")
        if tag_for_keyword(words[0]) in known and (value := _follow(frame.groups[0], words, frame, attribute)):
            return value
    return None


def _file_value(frame: Frame, attribute: Attribute) -> Value:
    header = frame.header
    for group in frame.groups[1:]:
        for path in attribute.groups:
            if value := _follow(group, path.split("."), frame, attribute):
                return value
    if attribute.keyword == "ComplexImageComponent" and (component := _component(header)):
        return component
    if tag_for_keyword(attribute.keyword) in header.dataset:
        return _parse(header.dataset, attribute.keyword, header.where, attribute.digits)
    for name in attribute.private:
        if (found := header.private_numbers(*PRIVATE[name])) is not None:
            if name.endswith("b_value"):
                # GE adds a billion to mark what it is.
                return (round(found[0] % 100_000, 3),)
            return _as_tuple(found, attribute.digits)
    return ()


def _component(header: Header) -> Value:
    """Return the component that ImageType names where it is not among the attributes: M, P, R or I, as Siemens does."""
    return tuple(word for word in header.image_type[2:] if word in ("M", "P", "R", "I", "PHASE", "PHASE MAP"))[:1]


def _follow(dataset: Dataset, words: Sequence[str], frame: Frame, attribute: Attribute) -> Value:
    for word in words[:-1]:
        sequence = dataset.get(word)
        if not isinstance(sequence, Sequence) or isinstance(sequence, str) or not sequence:
            return ()
        dataset = sequence[0]
    return _parse(dataset, words[-1], frame.where, attribute.digits)


def _parse(dataset: Dataset, keyword: str, where: str, digits: int) -> Value:
    def parse() -> Value:
        return _as_tuple(element_value(dataset, keyword), digits)

    return guarded(DicomSeriesError, "a value", f"{where}, {keyword}", parse)


def _as_tuple(value: Any, digits: int) -> Value:
    if value is None or (isinstance(value, str) and not value.strip()):
        return ()
    values = [value] if isinstance(value, (str, bytes)) or not isinstance(value, Sequence) else value
    return tuple(_plain(item, digits) for item in values)


def _plain(value: Any, digits: int) -> float | str:
    try:
        return float(f"{float(value):.{digits}g}")
    except (TypeError, ValueError):
        return str(value).strip()
