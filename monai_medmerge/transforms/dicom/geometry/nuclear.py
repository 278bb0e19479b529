"""Frames that are told apart by vectors, one number for each frame, as in nuclear medicine (PS3.3 C.8.4.8)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from monai_medmerge.transforms.dicom.geometry.frames import Frame, normal_of
from monai_medmerge.transforms.dicom.headers import Header, numbers

VECTORS = (
    *("EnergyWindowVector", "DetectorVector", "PhaseVector", "RotationVector", "RRIntervalVector", "TimeSlotVector"),
    *("SliceVector", "AngularViewVector", "TimeSliceVector"),
)
# What the last axis is if there are no slices. Projections at angles are neither.
_TIMES = ("TimeSliceVector", "TimeSlotVector")


def find_vectors(header: Header, count: int) -> dict[str, tuple[float, ...]]:
    """Return the vectors of an object, one number for each of its `count` frames.

    Raises:
        DicomSeriesError: a vector has another length.
    """
    found = {word: numbers(header.dataset, word, header.where) for word in VECTORS if word in header.dataset}
    return {
        word: values if len(values) == count else _refuse(header, word, count)
        for word, values in found.items()
        if values is not None
    }


def _refuse(header: Header, keyword: str, count: int) -> tuple[float, ...]:
    # Raises: the length is what is wrong.
    numbers(header.dataset, keyword, header.where, count=count)
    return ()


def place_by_vectors(first: Frame, vectors: Mapping[str, tuple[float, ...]], count: int) -> list[Frame]:
    """Return the frames of an object with vectors: slices in their order and direction, the rest told apart.

    A reconstruction states the position of its first slice, and SpacingBetweenSlices with a sign: positive along the
    normal (PS3.3 C.8.4.15).

    Args:
        first: the first frame, with the object's position.
        vectors: as `find_vectors` returns them.
        count: the number of frames.
    """
    rest = {word: values for word, values in vectors.items() if len(set(values)) > 1}
    slices = rest.pop("SliceVector", None)
    times = None
    if slices is None and "AngularViewVector" not in rest:
        order = [word for word in ("PhaseVector", *_TIMES) if word in rest]
        if any(word in _TIMES for word in order):
            keys = list(zip(*(rest.pop(word) for word in order), strict=True))
            times = tuple(float(sorted(set(keys)).index(key)) for key in keys)
    frames = []
    for index in range(count):
        own = {word: values[index] for word, values in rest.items()}
        is_first = (slices or times or (0.0,) * count)[index] == min(slices or times or (0.0,))
        frame = replace(first, index=index, vectors=own, position=first.position if is_first else None)
        if slices is not None and first.position is not None and first.orientation is not None and _states_step(first):
            along = first.step * (slices[index] - 1)
            frame = replace(frame, position=first.position + along * normal_of(first.orientation))
        axis = slices or times
        frames.append(replace(frame, place=axis[index]) if axis is not None else frame)
    return frames


def _states_step(frame: Frame) -> bool:
    return numbers(frame.header.dataset, "SpacingBetweenSlices", frame.header.where, count=1) not in (None, (0.0,))
