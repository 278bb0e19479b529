"""The frames of one file, whatever kind of object it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from monai_medmerge.errors import DicomSeriesError
from monai_medmerge.transforms.dicom.geometry.frames import (
    Frame,
    classic_frame,
    enhanced_frame,
    require_spacing,
)
from monai_medmerge.transforms.dicom.geometry.mosaic import is_mosaic, mosaic_frames
from monai_medmerge.transforms.dicom.geometry.nuclear import find_vectors, place_by_vectors
from monai_medmerge.transforms.dicom.headers import Header, items, numbers


def find_frames(header: Header) -> list[Frame]:
    """Return the frames of one file.

    Raises:
        DicomSeriesError: a geometry attribute is damaged, or functional groups and frames differ in number.
    """
    count = header.frames
    where = header.where
    if count < 1:
        raise DicomSeriesError("at least one frame", str(count), f"{where}, NumberOfFrames")
    if is_mosaic(header):
        return mosaic_frames(header)
    shared = items(header.dataset, "SharedFunctionalGroupsSequence", where)[:1]
    own = items(header.dataset, "PerFrameFunctionalGroupsSequence", where)
    if own and len(own) != count:
        found = f"{len(own)} items for {count} frames"
        raise DicomSeriesError("one item for each frame", found, f"{where}, PerFrameFunctionalGroupsSequence")
    if own or shared:
        return [enhanced_frame(header, index, (*own[index : index + 1], *shared)) for index in range(count)]
    return _classic_frames(header, count)


def _classic_frames(header: Header, count: int) -> list[Frame]:
    """Return the frames of an object whose geometry is that of its top level."""
    dataset, where = header.dataset, header.where
    first = classic_frame(header)
    if count == 1:
        require_spacing(first, where)
        return [first]
    if vectors := find_vectors(header, count):
        return place_by_vectors(first, vectors, count)
    offsets = numbers(dataset, "GridFrameOffsetVector", where, count=count)
    position, orientation = first.position, first.orientation
    if offsets is None or position is None or orientation is None:
        # What has one position at its head has that of its first frame.
        return [first, *(replace(first, index=index, position=None) for index in range(1, count))]
    require_spacing(first, where)
    # PS3.3 C.8.8.3.2: relative to the position if the first offset is zero, else coordinates along z.
    base = offsets[0]
    normal = np.cross(orientation[:3], orientation[3:])
    if base != 0 and not (np.isclose(base, position[2], atol=1e-2) and np.allclose(normal, [0, 0, 1], atol=1e-3)):
        expected = "offsets from zero, or patient z of planes along it"
        raise DicomSeriesError(expected, "others", f"{where}, GridFrameOffsetVector")
    return [
        replace(first, index=index, position=position + normal * (offset - base))
        for index, offset in enumerate(offsets)
    ]
