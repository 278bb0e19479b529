"""Where the frames of a series lie in space: their order, the affine, and what can be wrong with either."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from monai_medmerge.errors import DicomSeriesError
from monai_medmerge.transforms.dicom.geometry.frames import Frame, normal_of
from monai_medmerge.transforms.dicom.geometry.spacing import find_spacing
from monai_medmerge.transforms.dicom.geometry.unlocated import is_cine, order_pictures
from monai_medmerge.transforms.policies import settle

Vector = NDArray[np.float64]

# What each check can do about a violation. "warn" is offered where the volume that results is right but for
# what the warning says, "repair" where what is lost or interpolated is known and said.
POLICIES: Mapping[str, tuple[str, ...]] = {
    "gap": ("error", "warn", "repair"),
    "duplicate": ("error", "repair"),
    "tilt": ("error", "warn", "repair"),
    "localizer": ("error", "repair"),
    "unlocated": ("error", "warn"),
    "acquisition": ("error", "warn"),
    "nonfinite": ("error", "warn"),
}
_TILT_DEGREES = 0.5
_GAP_FRACTION = 0.1


@dataclass(frozen=True)
class Stack:
    """Frames in the order of the volume's last axis.

    Args:
        frames: ascending along the normal of the slices.
        affine: 4 x 4, from voxel indices (x, y, z) to LPS millimetres.
        heights: the distance of each slice from the first along the mean step, in steps: 0, 1, 2, ... if regular.
        slant: the angle between the step and the normal of the slices, degrees.
        remarks: what the policies let pass.
    """

    frames: tuple[Frame, ...]
    affine: NDArray[np.float64]
    heights: Vector
    slant: float = 0.0
    remarks: tuple[str, ...] = ()

    @property
    def is_tilted(self) -> bool:
        """Whether the step is not along the normal of the slices."""
        return self.slant > _TILT_DEGREES

    @property
    def is_uneven(self) -> bool:
        """Whether a slice lies further from its place on an even grid than a tenth of a step."""
        return bool(abs(self.heights - np.arange(len(self.heights))).max() > _GAP_FRACTION)


def stack_frames(frames: Sequence[Frame], policies: Mapping[str, str]) -> Stack:
    """Order the frames of one volume and compute its affine.

    The third column of the affine is the mean step between slices, (last - first) / (n - 1), so that it is right for
    a tilted gantry too, where it is not perpendicular to the slices.

    Args:
        frames: of one volume, alike in all that `check_alike` looks at, in any order.
        policies: one for each of `POLICIES`.

    Raises:
        DicomSeriesError: the frames do not make one volume, and the policy is not to go on.
    """
    remarks: list[str] = []
    first = frames[0]
    if len(frames) > 1 and not all(frame.is_located for frame in frames):
        return _unlocated_stack(frames, policies["unlocated"], remarks)
    if first.position is not None and first.orientation is None:
        raise DicomSeriesError("a position and an orientation", "a position alone", first.header.where)
    if len(frames) == 1 or first.orientation is None:
        return Stack(tuple(frames), frame_affine(first), np.arange(1.0))
    return _located_stack(frames, normal_of(first.orientation), policies, remarks)


def _located_stack(frames: Sequence[Frame], normal: Vector, policies: Mapping[str, str], remarks: list[str]) -> Stack:
    """Order at least two frames of known position along their normal, and check their distances."""
    # Ascending along the normal, but for nuclear medicine that states the other direction.
    direction = -1.0 if frames[0].step < 0 else 1.0
    positions = np.stack([_position(frame) for frame in frames])
    order = np.argsort(positions @ normal * direction, kind="stable")
    frames, positions = [frames[i] for i in order], positions[order]
    distances = positions @ normal * direction
    gaps = np.diff(distances)
    same = gaps < max(1e-3, 0.01 * float(np.median(gaps)))
    if same.any():
        kept = _without_duplicates(frames, same, policies["duplicate"], remarks)
        return _located_stack(kept, normal, policies, remarks) if len(kept) > 1 else stack_frames(kept, policies)
    step = (positions[-1] - positions[0]) / (len(frames) - 1)
    length = float(np.linalg.norm(step))
    heights = (distances - distances[0]) / (distances[-1] - distances[0]) * (len(frames) - 1)
    where = frames[0].header.where
    beside = np.linalg.norm(positions - positions[0] - heights[:, None] * step, axis=1).max()
    if beside > _GAP_FRACTION * length:
        raise DicomSeriesError("slices stacked along one line", f"one {beside:.4g} mm beside it", where)
    slant = float(np.degrees(np.arccos(np.clip(step @ normal * direction / length, -1, 1))))
    stack = Stack(tuple(frames), _make_affine(frames[0], positions[0], step), heights, slant)
    if stack.is_uneven:
        found = f"distances from {gaps.min():.4g} to {gaps.max():.4g} mm among {len(frames)} slices"
        found += ", as with a missing slice" if gaps.max() > 1.5 * float(np.median(gaps)) else ""
        settle(DicomSeriesError("evenly spaced slices", found, where), policies["gap"], remarks)
    if stack.is_tilted:
        found = f"steps {slant:.1f} degrees off (gantry tilt)"
        settle(DicomSeriesError("slices stacked along their normal", found, where), policies["tilt"], remarks)
    return replace(stack, remarks=tuple(remarks))


def _position(frame: Frame) -> Vector:
    if frame.position is None:
        raise DicomSeriesError("ImagePositionPatient", "none", frame.header.where)
    return frame.position


def _unlocated_stack(frames: Sequence[Frame], policy: str, remarks: list[str]) -> Stack:
    """Keep the frames of one file in their order where there is no patient space, as in a cine loop."""
    first = frames[0]
    where = first.header.where
    if any(frame.header is not first.header for frame in frames):
        found = 'slices without (geometry="none" reads pictures in the order of InstanceNumber)'
        raise DicomSeriesError("a position and an orientation for each slice", found, where)
    placed = all(frame.place is not None for frame in frames)
    if placed:
        frames = sorted(frames, key=lambda frame: frame.place or 0)
    first = frames[0]
    if first.orientation is not None or first.groups or "ImagePositionPatient" in first.header.dataset:
        if first.orientation is not None or not is_cine(first.header):
            expected = "a position and an orientation for each frame"
            found = "some without; their order in the file is kept"
            settle(DicomSeriesError(expected, found, where), policy, remarks)
    elif not placed and not is_cine(first.header):
        # Nothing says that these are slices, nor that they are times.
        remarks.append(f"{where}: {len(frames)} frames in the order of the file, which does not say what they are")
    return Stack(tuple(frames), frame_affine(first), np.arange(float(len(frames))), remarks=tuple(remarks))


def stack_pictures(frames: Sequence[Frame]) -> Stack:
    """Keep frames as pictures, or times, in their order, without any place in the patient.

    Raises:
        DicomSeriesError: they differ in size, or have no order.
    """
    ordered = order_pictures(frames)
    first = ordered[0]
    for frame in ordered[1:]:
        if frame.size != first.size:
            found = "x".join(map(str, frame.size))
            raise DicomSeriesError(f"pictures of one size, {first.size[0]}x{first.size[1]}", found, frame.where)
    measure = first.measure if first.measure.is_metric else find_spacing(first.header, regions=True)
    flat = replace(first, position=None, orientation=None, step=1.0, measure=measure)
    return Stack((flat, *ordered[1:]), frame_affine(flat), np.arange(float(len(ordered))))


def _without_duplicates(
    frames: Sequence[Frame], same: NDArray[np.bool_], policy: str, remarks: list[str]
) -> list[Frame]:
    """Drop repetitions of a position if their stored pixels are the same bytes."""
    pairs = [(frames[i], frames[i + 1]) for i in np.flatnonzero(same).tolist()]
    where = pairs[0][1].header.where
    found = f"{len(pairs)} position(s) given twice or more, as with several phases, echoes or copies"
    settle(DicomSeriesError("one slice for each position", found, where), policy, remarks)
    for one, other in pairs:
        if not _same_pixels(one, other):
            raise DicomSeriesError("equal slices where positions are equal", "different ones", other.header.where)
    return [frame for frame, repeats in zip(frames, [False, *same.tolist()], strict=True) if not repeats]


def _same_pixels(one: Frame, other: Frame) -> bool:
    if one.header is other.header or None in (one.header.pixel_offset, other.header.pixel_offset):
        return False
    tails = [frame.header.path.read_bytes()[frame.header.pixel_offset :] for frame in (one, other)]
    rescales = [(f.header.numbers("RescaleSlope"), f.header.numbers("RescaleIntercept")) for f in (one, other)]
    return tails[0] == tails[1] and rescales[0] == rescales[1]


def _make_affine(frame: Frame, origin: Vector | None, step: Vector) -> NDArray[np.float64]:
    """Return the affine in LPS: columns are the steps along x (a row), y (a column) and z (to the next slice)."""
    orientation = np.array([1.0, 0, 0, 0, 1, 0]) if frame.orientation is None else frame.orientation
    affine = np.eye(4)
    affine[:3, 0] = orientation[:3] * frame.spacing[1]
    affine[:3, 1] = orientation[3:] * frame.spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = 0 if origin is None else origin
    return affine


def frame_affine(frame: Frame) -> NDArray[np.float64]:
    """Return the affine of a single frame in LPS, with the stated step along the normal."""
    return _make_affine(frame, frame.position, _step_of(frame))


def _step_of(frame: Frame) -> Vector:
    normal = np.array([0, 0, 1.0]) if frame.orientation is None else normal_of(frame.orientation)
    return normal * frame.step
