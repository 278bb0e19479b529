"""From stored values to the values of the modality: LUT, rescaling of each frame, dose scaling, MONOCHROME1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut

from monai_medmerge.errors import DicomSeriesError
from monai_medmerge.transforms.dicom.geometry.frames import Frame, group_item
from monai_medmerge.transforms.dicom.geometry.mosaic import crop
from monai_medmerge.transforms.dicom.headers import items, numbers
from monai_medmerge.transforms.dicom.values.pixels import FrameSource, Layout
from monai_medmerge.transforms.dicom.values.real_world import (
    Mapping as ValueMapping,
)
from monai_medmerge.transforms.dicom.values.real_world import (
    apply_mappings,
    find_mappings,
    is_parametric_map,
)
from monai_medmerge.transforms.foreign import guarded

Array = NDArray[Any]

# PS3.3 C.11.1.1.2, the rescale types that are units.
_UNITS = ("HU", "OD", "MGML", "Z_EFF", "ED", "EDW", "HU_MOD", "PCT")


@dataclass(frozen=True, slots=True)
class Transformation:
    """What turns a frame's stored values into the values of its modality.

    Args:
        slope: factor; 1 where there is none.
        intercept: summand; 0 where there is none.
        lut: the dataset with a ModalityLUTSequence, which takes the place of slope and intercept.
        mappings: of a parametric map, which take the place of all of these.
    """

    slope: float = 1.0
    intercept: float = 0.0
    lut: Dataset | None = None
    mappings: tuple[ValueMapping, ...] = ()

    @property
    def is_shift(self) -> bool:
        """Whether values only move by a whole number, so that integers stay integers."""
        return self.lut is None and not self.mappings and self.slope == 1 and self.intercept.is_integer()

    def apply(self, values: Array, out: Array) -> None:
        """Write slope * values + intercept, or what tables and mappings say, into `out`."""
        if self.mappings:
            apply_mappings(self.mappings, values, out)
            return
        if self.lut is not None:
            out[...] = apply_modality_lut(values, self.lut)
            return
        # Integers may wrap in between: `out` holds the result, and arithmetic modulo 2^bits arrives there.
        if out is not values:
            np.copyto(out, values, casting="unsafe")
        if self.slope != 1:
            np.multiply(out, out.dtype.type(self.slope), out=out)
        if self.intercept != 0:
            np.add(out, out.dtype.type(self.intercept), out=out)

    def extremes(self, layout: Layout) -> tuple[float, float]:
        """Return the least and the greatest value that the stored range can become."""
        low, high = layout.stored_range
        stored = np.arange(low, high + 1) if self.lut is not None and layout.stored <= 16 else np.array([low, high])
        values = np.empty(stored.shape, np.float64)
        self.apply(stored, values)
        known = values[np.isfinite(values)]
        return (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)


def find_transformation(frame: Frame) -> Transformation:
    """Return a frame's modality transformation: its own functional group's, the shared one, or the object's.

    Raises:
        DicomSeriesError: a parametric map has no usable mapping, slope and intercept are damaged, or the slope is zero.
    """
    header, where = frame.header, frame.header.where
    group = group_item(frame.groups, "PixelValueTransformationSequence", where) if frame.groups else None
    if is_parametric_map(frame):
        return Transformation(mappings=find_mappings(frame))
    # An empty item, which some writers leave, is no table.
    tables = [] if group is not None else items(header.dataset, "ModalityLUTSequence", where)
    if tables and tables[0].get("LUTDescriptor") is not None and tables[0].get("LUTData") is not None:
        return Transformation(lut=header.dataset)
    place = header.dataset if group is None else group
    slope = numbers(place, "RescaleSlope", where, count=1) or (1.0,)
    intercept = numbers(place, "RescaleIntercept", where, count=1) or (0.0,)
    if scaling := numbers(header.dataset, "DoseGridScaling", where, count=1):
        slope = scaling
    if slope[0] == 0:
        raise DicomSeriesError("a rescale slope other than zero", "0", f"{where}, RescaleSlope")
    return Transformation(slope[0], intercept[0])


def find_units(frame: Frame) -> str:
    """Return the unit of the values ("HU", "GY", ...), or an empty string for those without."""
    header, where = frame.header, frame.header.where
    modality = header.text("Modality")
    if is_parametric_map(frame):
        return find_mappings(frame)[0].unit
    if modality == "RTDOSE":
        return "GY" if header.text("DoseUnits").upper() == "GY" else ""
    group = group_item(frame.groups, "PixelValueTransformationSequence", where) if frame.groups else None
    rescale_type = str((header.dataset if group is None else group).get("RescaleType") or "").strip().upper()
    if rescale_type in _UNITS:
        return rescale_type
    return "HU" if modality == "CT" and rescale_type in ("", "US") else ""


@dataclass(frozen=True)
class Volume:
    """Decoded frames.

    Args:
        array: (z, y, x) or (z, y, x, 3).
        photometric: "MONOCHROME2", "MONOCHROME1" (kept) or "RGB".
        mirror: what a value and its inverse sum up to, None where nothing was inverted.
    """

    array: Array
    photometric: str
    mirror: float | None


def read_volume(frames: Sequence[Frame], layouts: Mapping[Path, Layout], max_bytes: int, monochrome1: str) -> Volume:
    """Decode frames into one array of modality values.

    Integers stay integers where all slopes are one and all intercepts whole. Otherwise values are float32, and
    float64 where more than 16 bits are allocated.

    Args:
        frames: in the order of the volume's last axis.
        layouts: how each of their files stores its pixels.
        max_bytes: the most that the decoded volume may take.
        monochrome1: "invert" makes bright what is high, v -> min + max - v over the values that can be stored,
            except where they are measurements (CT, PET, dose); "keep" never does.

    Raises:
        DicomSeriesError: pixel data is damaged, short, too large, or not of one kind in all frames.
    """
    sources = {path: FrameSource(header, layouts[path]) for path, header in _files(frames).items()}
    first = sources[frames[0].header.path]
    for source in sources.values():
        if source.layout.photometric != first.layout.photometric:
            found = f"{first.layout.photometric} and {source.layout.photometric}"
            raise DicomSeriesError("one photometric interpretation in a series", found, source.header.where)
    if (total := frames[0].size[0] * frames[0].size[1] * first.layout.pixel_bytes * len(frames)) > max_bytes:
        raise DicomSeriesError(f"at most {max_bytes} bytes (max_bytes)", str(total), first.header.where)

    transformations = [find_transformation(frame) for frame in frames]
    if len(units := {one.mappings[0].unit for one in transformations if one.mappings}) > 1:
        raise DicomSeriesError("real world values of one unit", f"{len(units)}", first.header.where)
    array = _decode_all(frames, sources, transformations)
    gray = first.layout.photometric.startswith("MONOCHROME")
    if first.layout.photometric != "MONOCHROME1" or monochrome1 == "keep" or is_measurement(frames[0]):
        return Volume(array, first.layout.photometric if gray else "RGB", None)
    extremes = [
        transformation.extremes(sources[frame.header.path].layout)
        for frame, transformation in zip(frames, transformations, strict=True)
    ]
    low, high = min(low for low, _ in extremes), max(high for _, high in extremes)
    # In this order, each step stays within what the array's type holds.
    np.subtract(array.dtype.type(high), array, out=array)
    np.add(array, array.dtype.type(low), out=array)
    return Volume(array, "MONOCHROME2", low + high)


def is_measurement(frame: Frame) -> bool:
    """Return whether zero and sign of the values mean something, so that inverting them would falsify them.

    MONOCHROME1 is about display (PS3.3 C.7.6.3.1.2). Hounsfield units, activity and dose stay what they are; the
    brightness of a radiograph, optical density included, is what the photometric interpretation makes of it.
    """
    return frame.header.text("Modality") in ("CT", "PT", "RTDOSE") or find_units(frame) in ("HU", "HU_MOD", "GY")


def _files(frames: Sequence[Frame]) -> dict[Path, Any]:
    return {frame.header.path: frame.header for frame in frames}


def _decode_all(
    frames: Sequence[Frame], sources: dict[Path, FrameSource], transformations: Sequence[Transformation]
) -> Array:
    """Decode frame by frame into one array, so that only one frame is held twice."""
    decoded = crop(sources[frames[0].header.path].decode(frames[0].index), frames[0].crop)
    dtype = decoded.dtype if decoded.ndim == 3 else _result_dtype(frames, sources, transformations, decoded.dtype)
    array = np.empty((len(frames), *decoded.shape), dtype)
    for number, (frame, transformation) in enumerate(zip(frames, transformations, strict=True)):
        source = sources[frame.header.path]
        if _fits(source.layout, frame, array) and source.is_native and transformation.is_shift:
            values = array[number]
            source.read_into(frame.index, values.view(source.layout.dtype))
            transformation.apply(values, values)
            continue
        if number > 0:
            decoded = crop(source.decode(frame.index), frame.crop)
        if decoded.shape != array.shape[1:]:
            found = "x".join(map(str, decoded.shape))
            raise DicomSeriesError("frames of one shape", found, f"{frame.header.where}, frame {frame.index + 1}")
        if decoded.ndim == 3:
            # The modality transformation is of grayscale alone (PS3.4 N.2); screenshots carry that of their source.
            array[number] = decoded
            continue
        # Transformation.apply parses table data, hence the guard.
        guarded(
            DicomSeriesError,
            "values that its modality transformation takes",
            frame.header.where,
            partial(transformation.apply, decoded, array[number]),
        )
    return array


def _fits(layout: Layout, frame: Frame, array: Array) -> bool:
    """Whether a frame of integers can be read where its values are to be, without a copy between."""
    same = frame.crop is None and (layout.rows, layout.columns) == array.shape[1:]
    return same and array.dtype.kind in "iu" and array.dtype.itemsize == layout.dtype.itemsize


def _result_dtype(
    frames: Sequence[Frame],
    sources: dict[Path, FrameSource],
    transformations: Sequence[Transformation],
    decoded: np.dtype[Any],
) -> np.dtype[Any]:
    """Return the smallest type that holds every value exactly if all are integers, else a floating one."""
    dtype = np.result_type(decoded, *{source.layout.dtype for source in sources.values()})
    if dtype.kind == "f" or not all(transformation.is_shift for transformation in transformations):
        return np.result_type(dtype, np.float32)
    if not any(transformation.intercept for transformation in transformations):
        return dtype
    pairs = zip(frames, transformations, strict=True)
    extremes = [transformation.extremes(sources[frame.header.path].layout) for frame, transformation in pairs]
    low, high = min(low for low, _ in extremes), max(high for _, high in extremes)
    return next(
        np.dtype(name)
        for name in (dtype.name, "int16", "int32", "int64")
        if np.iinfo(name).min <= low and high <= np.iinfo(name).max
    )
