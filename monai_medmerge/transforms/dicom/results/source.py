"""What every result takes over from its source: patient and study, references, and who made it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from monai.utils import optional_import
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from monai_medmerge.errors import DicomSeriesError, SettingError
from monai_medmerge.transforms.dicom.geometry.stacks import Stack

highdicom, has_highdicom = optional_import("highdicom")

MANUFACTURER = "MedMerge"
# Of the patient and study modules: to be present, but possibly empty (PS3.5 7.4.3).
_TYPE_2 = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)


def require_highdicom(writer: str) -> None:
    """Raise where highdicom is not installed.

    Args:
        writer: what needs it.

    Raises:
        SettingError: it is not.
    """
    if not has_highdicom:
        raise SettingError("highdicom, pip install monai_medmerge[dicom]", "no such package", writer)


def read_source(path: Path, plain: bool) -> Dataset:
    """Read what a result takes over of its source; attributes of type 2 that de-identification removed become empty.

    Args:
        path: a file of the source.
        plain: whether all texts of the result are ASCII; otherwise the source's become UTF-8.

    Raises:
        DicomSeriesError: it lacks a UID that is to be referenced.
    """
    source = pydicom.dcmread(path, stop_before_pixels=True)
    if source.get("SpecificCharacterSet") or not plain:
        source.decode()
        source.SpecificCharacterSet = "ISO_IR 192"
    for keyword in _TYPE_2:
        if keyword not in source:
            setattr(source, keyword, "")
    for keyword in ("FrameOfReferenceUID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        if not source.get(keyword) and not (keyword == "FrameOfReferenceUID" and _is_without_space(source)):
            raise DicomSeriesError(f"a {keyword} to reference", "none", path.name)
    return source


def _is_without_space(source: Dataset) -> bool:
    return "ImagePositionPatient" not in source and "SharedFunctionalGroupsSequence" not in source


def made_here(series_number: int, description: str) -> dict[str, Any]:
    """Return highdicom's arguments that say which series an object is of, and what made it.

    Args:
        series_number: of the new series.
        description: of the new series.
    """
    return {
        "series_instance_uid": generate_uid(),
        "series_number": series_number,
        "sop_instance_uid": generate_uid(),
        "instance_number": 1,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": "monai_medmerge",
        "software_versions": metadata.version("monai_medmerge"),
        "device_serial_number": "0",
        "series_description": description,
    }


def check_grid(shape: Sequence[int], affine: NDArray[Any], stack: Stack, what: str) -> None:
    """Refuse what does not lie on the grid of its source.

    Args:
        shape: (x, y, z) of the result.
        affine: 4 x 4, from its voxels to LPS millimetres.
        stack: of the source.
        what: the result, in words.

    Raises:
        DicomSeriesError: the grids differ, or the source has none that an object can reference.
    """
    where = stack.frames[0].header.where
    if stack.frames[0].crop is not None:
        raise DicomSeriesError("a series of slices that can be referenced", "a mosaic", where)
    wanted = (*stack.frames[0].size, len(stack.heights))
    if tuple(shape) != wanted:
        found = "x".join(map(str, shape))
        raise DicomSeriesError(f"{what} on the series' grid, {'x'.join(map(str, wanted))}", found, where)
    if not np.allclose(affine, stack.affine, atol=1e-3):
        found = "another affine: invert the spatial transforms first, or take LabelsToSourced"
        raise DicomSeriesError(f"{what} on the series' grid", found, where)
    if stack.frames[0].position is None or stack.is_uneven:
        raise DicomSeriesError("a series with evenly spaced positions", "another", where)


def as_volume(voxels: NDArray[Any], stack: Stack, frame_of_reference: str) -> Any:
    """Return voxels as highdicom takes them: with their grid, or as the frames of the source, in its order.

    highdicom's volumes are rectangular. Where the gantry was tilted the voxels go as frames, each with the place of the
    frame of the source that it belongs to.

    Args:
        voxels: (x, y, z), or with channels as a last axis.
        stack: of the source, which has the same grid.
        frame_of_reference: its UID.

    Raises:
        DicomSeriesError: a tilted source of one file of which some frames are left out.
    """
    frames = np.ascontiguousarray(np.moveaxis(voxels, (0, 1, 2), (2, 1, 0)))
    if not stack.is_tilted:
        channels = {"channels": {"LUTLabel": [f"{i}" for i in range(voxels.shape[3])]}} if voxels.ndim == 4 else {}
        return highdicom.Volume(
            array=frames,
            # highdicom wants (slice, row, column), and the affine's columns in that order.
            affine=stack.affine @ np.eye(4)[[2, 1, 0, 3]],
            coordinate_system="PATIENT",
            frame_of_reference_uid=frame_of_reference,
            **channels,
        )
    first = stack.frames[0].header
    if first.frames == 1:
        return frames
    order = [frame.index for frame in stack.frames]
    if sorted(order) != list(range(first.frames)) or any(frame.header is not first for frame in stack.frames):
        raise DicomSeriesError("a source of which every frame is a slice", "others among them", first.where)
    return frames[np.argsort(order)]


def coded(code: Any) -> Any:
    """Return highdicom's code from "CodeValue", "CodingSchemeDesignator" and "CodeMeaning"."""
    return highdicom.sr.CodedConcept(code["CodeValue"], code["CodingSchemeDesignator"], code["CodeMeaning"])
