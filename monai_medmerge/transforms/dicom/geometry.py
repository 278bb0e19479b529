"""Where the frames of a series lie in space: their order, the affine, and what can be wrong with either."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from monai_medmerge.errors import DicomSeriesError
from monai_medmerge.transforms.dicom.headers import Header, items, numbers
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
# What the files of one volume share, where they state it. Positions in two frames of reference cannot be compared.
_SHARED = ("StudyInstanceUID", "FrameOfReferenceUID", "Modality", "RescaleType")
# What may change from one block of slices to the next, but not to and fro.
_ACQUISITION = ("AcquisitionNumber", "EchoTime", "TemporalPositionIdentifier", "DiffusionBValue")

_UNIT_TOLERANCE = 1e-2
_ORIENTATION_TOLERANCE = 1e-3
_TILT_DEGREES = 0.5
_GAP_FRACTION = 0.1


@dataclass(frozen=True, slots=True)
class Frame:
    """One 2-D frame of one file, with its place in the patient's space (LPS, millimetres).

    Args:
        header: the file's header.
        index: the frame's number in the file, from zero.
        groups: functional groups that hold for the frame, its own before the shared ones.
        position: ImagePositionPatient, the centre of the first voxel; None where the object has none.
        orientation: ImageOrientationPatient, direction of a row and of a column; None where the object has none.
        spacing: (between rows, between columns).
        step: the distance to the next slice as the object states it, 1 where it does not.
    """

    header: Header
    index: int
    groups: tuple[Dataset, ...]
    position: Vector | None
    orientation: Vector | None
    spacing: tuple[float, float]
    step: float

    @property
    def size(self) -> tuple[int, int]:
        """(columns, rows)."""
        return self.header.integer("Columns"), self.header.integer("Rows")

    @property
    def is_localizer(self) -> bool:
        """Whether ImageType says that this is a localiser (scout) image."""
        image_type = self.header.dataset.get("ImageType") or []
        return "LOCALIZER" in [str(value).strip().upper() for value in image_type]


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


def find_frames(header: Header) -> list[Frame]:
    """Return the frames of one file.

    Raises:
        DicomSeriesError: a geometry attribute is damaged, or functional groups and frames differ in number.
    """
    count = header.frames
    where = header.where
    if count < 1:
        raise DicomSeriesError("at least one frame", str(count), f"{where}, NumberOfFrames")
    shared = items(header.dataset, "SharedFunctionalGroupsSequence", where)[:1]
    own = items(header.dataset, "PerFrameFunctionalGroupsSequence", where)
    if own and len(own) != count:
        found = f"{len(own)} items for {count} frames"
        raise DicomSeriesError("one item for each frame", found, f"{where}, PerFrameFunctionalGroupsSequence")
    if own or shared:
        return [_enhanced_frame(header, index, (*own[index : index + 1], *shared)) for index in range(count)]
    return _classic_frames(header, count)


def _classic_frames(header: Header, count: int) -> list[Frame]:
    """Return the frames of an object whose geometry is that of its top level."""
    dataset, where = header.dataset, header.where
    spacing = None
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        if values := numbers(dataset, keyword, where, count=2):
            spacing = _positive(values, where, keyword)
            break
    position, orientation, step = _plane(dataset, where), _axes(dataset, where), _step(dataset, where)
    if position is None and orientation is None:
        # In nuclear medicine, that of the first frame (PS3.3 C.8.4.11).
        for detector in items(dataset, "DetectorInformationSequence", where)[:1]:
            position, orientation = _plane(detector, where), _axes(detector, where)
    if count == 1:
        spacing = _known_spacing(spacing, position, where)
        return [Frame(header, 0, (), position, orientation, spacing, step)]
    offsets = numbers(dataset, "GridFrameOffsetVector", where, count=count)
    positions: list[Vector | None] = [None] * count
    if offsets is not None and position is not None and orientation is not None:
        # PS3.3 C.8.8.3.2: relative to the position if the first offset is zero, else coordinates along z.
        base = offsets[0]
        normal = np.cross(orientation[:3], orientation[3:])
        if base != 0 and not (np.isclose(base, position[2], atol=1e-2) and np.allclose(normal, [0, 0, 1], atol=1e-3)):
            expected = "offsets from zero, or patient z of planes along it"
            raise DicomSeriesError(expected, "others", f"{where}, GridFrameOffsetVector")
        positions = [position + normal * (offset - base) for offset in offsets]
    spacing = _known_spacing(spacing, positions[0], where)
    return [Frame(header, index, (), place, orientation, spacing, step) for index, place in enumerate(positions)]


def _enhanced_frame(header: Header, index: int, groups: tuple[Dataset, ...]) -> Frame:
    """Return a frame whose geometry is in functional groups, as in enhanced CT, MR and PET."""
    where = f"{header.where}, frame {index + 1}"
    measures = group_item(groups, "PixelMeasuresSequence", where) or header.dataset
    plane = group_item(groups, "PlanePositionSequence", where)
    axes = group_item(groups, "PlaneOrientationSequence", where)
    position = _plane(plane, where) if plane is not None else None
    spacing = numbers(measures, "PixelSpacing", where, count=2)
    return Frame(
        header,
        index,
        groups,
        position,
        _axes(axes, where) if axes is not None else None,
        _known_spacing(_positive(spacing, where, "PixelSpacing") if spacing else None, position, where),
        _step(measures, where),
    )


def group_item(groups: Sequence[Dataset], keyword: str, where: str) -> Dataset | None:
    """Return the first item of a functional group: the frame's own, else the shared one, else None."""
    for group in groups:
        if found := items(group, keyword, where):
            return found[0]
    return None


def _plane(dataset: Dataset, where: str) -> Vector | None:
    values = numbers(dataset, "ImagePositionPatient", where, count=3)
    return None if values is None else np.asarray(values)


def _axes(dataset: Dataset, where: str) -> Vector | None:
    values = numbers(dataset, "ImageOrientationPatient", where, count=6)
    if values is None:
        return None
    axes = np.asarray(values)
    row, column = axes[:3], axes[3:]
    lengths = np.array([np.linalg.norm(row), np.linalg.norm(column)])
    if (abs(lengths - 1) > _UNIT_TOLERANCE).any() or abs(row @ column) > _UNIT_TOLERANCE:
        tag = f"{where}, ImageOrientationPatient"
        raise DicomSeriesError("two perpendicular unit vectors", "others", tag)
    return axes


def _step(dataset: Dataset, where: str) -> float:
    values = numbers(dataset, "SpacingBetweenSlices", where, count=1)
    # A negative value is legal in nuclear medicine, where it tells the direction; zero says nothing.
    return abs(values[0]) or 1.0 if values else 1.0


def _positive(values: tuple[float, ...], where: str, keyword: str) -> tuple[float, float]:
    if min(values) <= 0:
        raise DicomSeriesError("a positive spacing", str(min(values)), f"{where}, {keyword}")
    return values[0], values[1]


def _known_spacing(spacing: tuple[float, float] | None, position: Vector | None, where: str) -> tuple[float, float]:
    """Return the spacing, 1 for images without a place in the patient; others must state it (PS3.3 C.7.6.2)."""
    if spacing is None and position is not None:
        raise DicomSeriesError("PixelSpacing of a slice with a position", "none", where)
    return spacing or (1.0, 1.0)


def stack_frames(frames: Sequence[Frame], policies: Mapping[str, str]) -> Stack:
    """Order frames into a volume and compute its affine.

    The third column of the affine is the mean step between slices, (last - first) / (n - 1), so that it is right for
    a tilted gantry too, where it is not perpendicular to the slices.

    Args:
        frames: of one series, in any order.
        policies: one for each of `POLICIES`.

    Raises:
        DicomSeriesError: the frames do not make one volume, and the policy is not to go on.
    """
    remarks: list[str] = []
    frames = _without_localizers(frames, policies["localizer"], remarks)
    _check_alike(frames)
    first = frames[0]
    located = [frame for frame in frames if frame.position is not None and frame.orientation is not None]
    if len(frames) > 1 and len(located) < len(frames):
        return _unlocated_stack(frames, policies["unlocated"], remarks)
    if first.position is not None and first.orientation is None:
        raise DicomSeriesError("a position and an orientation", "a position alone", first.header.where)
    if first.position is None or first.orientation is None:
        return Stack(tuple(frames), _make_affine(first, first.position, np.array([0, 0, first.step])), np.arange(1.0))
    normal = np.cross(first.orientation[:3], first.orientation[3:])
    normal /= np.linalg.norm(normal)
    if len(frames) == 1:
        return Stack(tuple(frames), _make_affine(first, first.position, normal * first.step), np.arange(1.0))
    return _located_stack(frames, normal, policies, remarks)


def _located_stack(frames: Sequence[Frame], normal: Vector, policies: Mapping[str, str], remarks: list[str]) -> Stack:
    """Order at least two frames of known position along their normal, and check their distances."""
    frames = sorted(frames, key=lambda frame: float(_position(frame) @ normal))
    positions = np.stack([_position(frame) for frame in frames])
    distances = positions @ normal
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
    _check_acquisitions(frames, policies["acquisition"], remarks)
    slant = float(np.degrees(np.arccos(np.clip(step @ normal / length, -1, 1))))
    stack = Stack(tuple(frames), _make_affine(frames[0], positions[0], step), heights, slant)
    if stack.is_uneven:
        found = f"distances from {gaps.min():.4g} to {gaps.max():.4g} mm among {len(frames)} slices"
        found += ", as with a missing slice" if gaps.max() > 1.5 * float(np.median(gaps)) else ""
        settle(DicomSeriesError("evenly spaced slices", found, where), policies["gap"], remarks)
    if stack.is_tilted:
        found = f"steps {slant:.1f} degrees off (gantry tilt)"
        settle(DicomSeriesError("slices stacked along their normal", found, where), policies["tilt"], remarks)
    return replace(stack, remarks=tuple(remarks))


def _check_acquisitions(frames: Sequence[Frame], policy: str, remarks: list[str]) -> None:
    """Settle what alternates along the normal, as where two acquisitions lie between one another."""
    for keyword in _ACQUISITION:
        # Scanners state echo times with noise.
        values = [tuple(f"{v:.3g}" for v in frame.header.numbers(keyword) or ()) for frame in frames]
        changes = sum(a != b for a, b in pairwise(values))
        if changes >= (count := len(set(values))):
            found = f"{count} values of {keyword} that alternate, as with interleaved acquisitions"
            settle(DicomSeriesError("slices of one acquisition", found, frames[0].header.where), policy, remarks)


def _position(frame: Frame) -> Vector:
    if frame.position is None:
        raise DicomSeriesError("ImagePositionPatient", "none", frame.header.where)
    return frame.position


def _without_localizers(frames: Sequence[Frame], policy: str, remarks: list[str]) -> Sequence[Frame]:
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


def _check_alike(frames: Sequence[Frame]) -> None:
    """Refuse frames of several patients, studies, spaces or units, and those that differ in size or orientation."""
    first = frames[0]
    headers = list({id(frame.header): frame.header for frame in frames}.values())
    for keyword in ("PatientID", *_SHARED):
        stated = [h.patient if keyword == "PatientID" else h.text(keyword) for h in headers]
        # Files that lack it say nothing against it.
        if len(kinds := set(stated) - {""}) > 1:
            raise DicomSeriesError(f"slices of one {keyword}", f"{len(kinds)} different ones", headers[0].where)
    for frame in frames[1:]:
        where = f"{frame.header.where}, frame {frame.index + 1}"
        if frame.header is not first.header and frame.size != first.size:
            found = f"{frame.size[0]}x{frame.size[1]}"
            raise DicomSeriesError(f"slices of one size, {first.size[0]}x{first.size[1]}", found, where)
        if not np.allclose(frame.spacing, first.spacing, rtol=1e-3):
            raise DicomSeriesError(f"slices of one pixel spacing, {first.spacing}", str(frame.spacing), where)
        if first.orientation is None or frame.orientation is None:
            continue
        if abs(frame.orientation - first.orientation).max() > _ORIENTATION_TOLERANCE:
            raise DicomSeriesError("slices of one orientation", "mixed orientations", where)


def _unlocated_stack(frames: Sequence[Frame], policy: str, remarks: list[str]) -> Stack:
    """Keep the frames of one file in their order where there is no patient space, as in a cine loop."""
    first = frames[0]
    in_one_file = all(frame.header is first.header for frame in frames)
    if not in_one_file:
        raise DicomSeriesError("a position and an orientation for each slice", "slices without", first.header.where)
    if first.orientation is not None or "ImagePositionPatient" in first.header.dataset:
        expected = "a position and an orientation for each frame"
        settle(
            DicomSeriesError(expected, "some without; their order in the file is kept", first.header.where),
            policy,
            remarks,
        )
    return Stack(tuple(frames), frame_affine(first), np.arange(float(len(frames))), remarks=tuple(remarks))


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
    normal = np.array([0, 0, 1.0])
    if frame.orientation is not None:
        normal = np.cross(frame.orientation[:3], frame.orientation[3:])
    return _make_affine(frame, frame.position, normal * frame.step)
