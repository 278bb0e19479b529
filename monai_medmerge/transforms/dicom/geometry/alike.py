"""What the frames of one volume must share, and which of several stacks is meant."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from monai_medmerge.errors import DicomSeriesError
from monai_medmerge.transforms.dicom.geometry.frames import Frame, Vector, group_item
from monai_medmerge.transforms.policies import settle

# What the files of one volume share, where they state it. Positions in two frames of reference cannot be compared.
_SHARED = ("StudyInstanceUID", "FrameOfReferenceUID", "Modality", "RescaleType")
_ORIENTATION_TOLERANCE = 1e-3


def without_localizers(frames: Sequence[Frame], policy: str, remarks: list[str]) -> Sequence[Frame]:
    """Drop localisers that accompany other frames; a series of nothing else is what was asked for."""
    rest = [frame for frame in frames if not frame.is_localizer]
    if not rest or len(rest) == len(frames):
        return frames
    name = next(frame.header.where for frame in frames if frame.is_localizer)
    settle(
        DicomSeriesError("slices of one volume", f"{len(frames) - len(rest)} localiser(s) among them", name),
        policy,
        remarks,
    )
    return rest


def check_origin(frames: Sequence[Frame], keywords: Sequence[str] = _SHARED) -> None:
    """Refuse frames of several patients, or that differ in what their files state of `keywords`."""
    headers = list({id(frame.header): frame.header for frame in frames}.values())
    for keyword in ("PatientID", *keywords):
        stated = [h.patient if keyword == "PatientID" else h.text(keyword) for h in headers]
        # Files that lack it say nothing against it.
        if len(kinds := set(stated) - {""}) > 1:
            raise DicomSeriesError(f"slices of one {keyword}", f"{len(kinds)} different ones", headers[0].where)


def check_alike(frames: Sequence[Frame]) -> None:
    """Refuse frames of several patients, studies, spaces or units, and those that differ in size or orientation."""
    first = frames[0]
    check_origin(frames)
    for frame in frames[1:]:
        if frame.header is not first.header and frame.size != first.size:
            found = f"{frame.size[0]}x{frame.size[1]}"
            raise DicomSeriesError(f"slices of one size, {first.size[0]}x{first.size[1]}", found, frame.where)
    spacings = np.array([frame.spacing for frame in frames])
    if (other := ~np.isclose(spacings, spacings[0], rtol=1e-3).all(1)).any():
        frame = frames[int(other.argmax())]
        raise DicomSeriesError(f"slices of one pixel spacing, {first.spacing}", str(frame.spacing), frame.where)
    if (count := count_stacks(frames)) > 1:
        hint = f"mixed orientations or stacks: choose with stack=0 to {count - 1}"
        raise DicomSeriesError("slices of one orientation", hint, first.header.where)


def count_stacks(frames: Sequence[Frame]) -> int:
    """Return how many stacks there are: frames of one StackID (0020,9056) and one orientation are a stack."""
    return len(set(_stack_numbers(frames)))


def choose_stack(frames: Sequence[Frame], stack: int) -> list[Frame]:
    """Return the frames of one stack among several, which differ in StackID (0020,9056) or in orientation.

    Args:
        frames: of one series.
        stack: its number, from zero, in the order in which their first frames come.

    Raises:
        DicomSeriesError: there is no such stack.
    """
    numbers = _stack_numbers(frames)
    if stack > max(numbers):
        raise DicomSeriesError(f"a stack below {max(numbers) + 1}", str(stack), frames[0].header.where)
    return [frame for frame, number in zip(frames, numbers, strict=True) if number == stack]


def _stack_numbers(frames: Sequence[Frame]) -> list[int]:
    """Number the stacks that frames belong to, in the order in which they come."""
    firsts: list[tuple[str, Vector | None]] = []
    found = []
    for frame in frames:
        name = _stack_id(frame)
        same = (name == other and _same_axes(axes, frame.orientation) for other, axes in firsts)
        number = next((number for number, fits in enumerate(same) if fits), len(firsts))
        if number == len(firsts):
            firsts.append((name, frame.orientation))
        found.append(number)
    return found


def _same_axes(one: Vector | None, other: Vector | None) -> bool:
    # Frames without an orientation say nothing against it.
    return one is None or other is None or float(abs(one - other).max()) <= _ORIENTATION_TOLERANCE


def _stack_id(frame: Frame) -> str:
    content = group_item(frame.groups, "FrameContentSequence", frame.where) if frame.groups else None
    return "" if content is None else str(content.get("StackID") or "").strip()
