"""One 2-D frame with its place in the patient, as classic and enhanced objects give it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from monai_medmerge.errors import DicomSeriesError
from monai_medmerge.transforms.dicom.geometry.spacing import Spacing, find_spacing, measured_spacing
from monai_medmerge.transforms.dicom.headers import Header, items, numbers

Vector = NDArray[np.float64]

_UNIT_TOLERANCE = 1e-2


@dataclass(frozen=True, slots=True)
class Frame:
    """One 2-D frame of one file, with its place in the patient's space (LPS, millimetres).

    Args:
        header: the file's header.
        index: the frame's number in the file, from zero.
        groups: functional groups that hold for the frame, its own before the shared ones.
        position: ImagePositionPatient, the centre of the first voxel; None where the object has none.
        orientation: ImageOrientationPatient, direction of a row and of a column; None where the object has none.
        measure: the distance between rows and between columns, and where it comes from.
        step: the distance to the next slice as the object states it, 1 where it does not; negative against the normal,
            as only nuclear medicine may have it.
        crop: (top, left, rows, columns) of the part of the stored frame that this is, None for all of it.
        place: the number along the last axis, where the object gives one without a position.
        vectors: further numbers that tell frames apart, by keyword, as in nuclear medicine.
    """

    header: Header
    index: int
    groups: tuple[Dataset, ...]
    position: Vector | None
    orientation: Vector | None
    measure: Spacing
    step: float
    crop: tuple[int, int, int, int] | None = None
    place: float | None = None
    vectors: Mapping[str, float] = field(default_factory=dict)

    @property
    def spacing(self) -> tuple[float, float]:
        """(between rows, between columns)."""
        return self.measure.values

    @property
    def size(self) -> tuple[int, int]:
        """(columns, rows)."""
        if self.crop is not None:
            return self.crop[3], self.crop[2]
        return self.header.integer("Columns"), self.header.integer("Rows")

    @property
    def where(self) -> str:
        """The file's base name, and the frame's number in it."""
        return f"{self.header.where}, frame {self.index + 1}"

    @property
    def is_located(self) -> bool:
        """Whether it has a position and an orientation."""
        return self.position is not None and self.orientation is not None

    @property
    def is_localizer(self) -> bool:
        """Whether ImageType says that this is a localiser (scout) image."""
        return "LOCALIZER" in self.header.image_type


def group_item(groups: Sequence[Dataset], keyword: str, where: str) -> Dataset | None:
    """Return the first item of a functional group: the frame's own, else the shared one, else None."""
    for group in groups:
        if found := items(group, keyword, where):
            return found[0]
    return None


def classic_frame(header: Header) -> Frame:
    """Return the first frame of an object whose geometry is that of its top level."""
    dataset, where = header.dataset, header.where
    position, orientation = find_position(dataset, where), find_axes(dataset, where)
    if position is None and orientation is None:
        # In nuclear medicine, that of the first frame (PS3.3 C.8.4.11).
        for detector in items(dataset, "DetectorInformationSequence", where)[:1]:
            position, orientation = find_position(detector, where), find_axes(detector, where)
    step = find_step(dataset, where, signed=header.text("Modality") == "NM")
    return Frame(header, 0, (), position, orientation, find_spacing(header), step)


def enhanced_frame(header: Header, index: int, groups: tuple[Dataset, ...]) -> Frame:
    """Return a frame whose geometry is in functional groups, as in enhanced CT, MR, PET and ultrasound volumes."""
    where = f"{header.where}, frame {index + 1}"
    measures = group_item(groups, "PixelMeasuresSequence", where) or header.dataset
    position = orientation = None
    if (plane := group_item(groups, "PlanePositionSequence", where)) is not None:
        position = find_position(plane, where)
    elif (plane := group_item(groups, "PlanePositionVolumeSequence", where)) is not None:
        position = find_position(plane, where, "ImagePositionVolume")
    if (axes := group_item(groups, "PlaneOrientationSequence", where)) is not None:
        orientation = find_axes(axes, where)
    elif (axes := group_item(groups, "PlaneOrientationVolumeSequence", where)) is not None:
        orientation = find_axes(axes, where, "ImageOrientationVolume")
    measure = measured_spacing(measures, where) or find_spacing(header)
    frame = Frame(header, index, groups, position, orientation, measure, find_step(measures, where))
    require_spacing(frame, where)
    return frame


def require_spacing(frame: Frame, where: str) -> None:
    """Refuse a slice with a position whose pixels have no size (PS3.3 C.7.6.2)."""
    if frame.position is not None and not frame.measure.is_metric:
        raise DicomSeriesError("PixelSpacing of a slice with a position", "none", where)


def find_position(dataset: Dataset, where: str, keyword: str = "ImagePositionPatient") -> Vector | None:
    """Return the position in a dataset or an item of a sequence, None where there is none."""
    values = numbers(dataset, keyword, where, count=3)
    return None if values is None else np.asarray(values)


def find_axes(dataset: Dataset, where: str, keyword: str = "ImageOrientationPatient") -> Vector | None:
    """Return direction of a row and of a column, None where there are none."""
    values = numbers(dataset, keyword, where, count=6)
    if values is None:
        return None
    axes = np.asarray(values)
    row, column = axes[:3], axes[3:]
    lengths = np.array([np.linalg.norm(row), np.linalg.norm(column)])
    if (abs(lengths - 1) > _UNIT_TOLERANCE).any() or abs(row @ column) > _UNIT_TOLERANCE:
        raise DicomSeriesError("two perpendicular unit vectors", "others", f"{where}, {keyword}")
    return axes


def find_step(dataset: Dataset, where: str, signed: bool = False) -> float:
    """Return the stated distance of slices, 1 where there is none; its sign only where it means something."""
    values = numbers(dataset, "SpacingBetweenSlices", where, count=1)
    # A negative value is legal in nuclear medicine, where it tells the direction; zero says nothing.
    step = (values[0] or 1.0) if values else 1.0
    return step if signed else abs(step)


def normal_of(orientation: Vector) -> Vector:
    """Return the unit normal of slices."""
    normal: Vector = np.cross(orientation[:3], orientation[3:])
    return normal / np.linalg.norm(normal)
