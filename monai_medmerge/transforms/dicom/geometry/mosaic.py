"""One stored frame that holds all slices of a volume as tiles: Siemens MOSAIC and United Imaging VFRAME.

Neither is in the standard. Number, corner and direction of the slices are what dcm2niix and nibabel make of the
vendors' headers; a mosaic without them is refused, because it would be a guess.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from monai_medmerge.errors import DicomSeriesError
from monai_medmerge.transforms.dicom.geometry.frames import Frame, find_axes, find_position, normal_of
from monai_medmerge.transforms.dicom.geometry.spacing import find_spacing
from monai_medmerge.transforms.dicom.headers import Header, open_dicom
from monai_medmerge.transforms.dicom.tags import BLOCKS, PRIVATE
from monai_medmerge.transforms.foreign import guarded

_MAX_TILES = 1024
_SIEMENS = PRIVATE["siemens_mosaic"]
_SIEMENS_CSA = (0x0029, "SIEMENS CSA HEADER", 0x10)
_UIH_COUNT = PRIVATE["uih_mosaic"]
_UIH_FRAMES = (0x0065, "", 0x51)


def is_mosaic(header: Header) -> bool:
    """Whether a frame of the file holds several slices, as ImageType or the vendor's header says."""
    if {"MOSAIC", "VFRAME"} & set(header.image_type):
        return True
    siemens = header.private_numbers(*_SIEMENS)
    uih = header.private_numbers(*_UIH_COUNT)
    return any(found is not None and found[0] > 1 for found in (siemens, uih)) or _exceeds_matrix(header)


def _exceeds_matrix(header: Header) -> bool:
    """Whether a Siemens image is so much larger than its acquisition matrix that it needs a look into its header."""
    matrix = [number for number in header.numbers("AcquisitionMatrix") or () if number > 0]
    if len(matrix) != 2 or header.frames != 1 or not header.text("Manufacturer").upper().startswith("SIEMENS"):
        return False
    # A mosaic has two tiles each way at least; so has an image that was interpolated.
    if header.integer("Rows", 0) * header.integer("Columns", 0) < 4 * matrix[0] * matrix[1]:
        return False
    csa = guarded(DicomSeriesError, "Siemens' CSA header", header.where, lambda: _csa(header))
    return csa.get("NumberOfImagesInMosaic", (0.0,))[0] > 1


def mosaic_frames(header: Header) -> list[Frame]:
    """Return the slices of a mosaic as frames, each with its part of the stored one.

    Raises:
        DicomSeriesError: number, corner, direction or distance of the slices are not stated.
    """
    if header.frames != 1:
        raise DicomSeriesError("one frame in a mosaic (MOSAIC, VFRAME)", str(header.frames), header.where)
    if "VFRAME" in header.image_type or header.private_numbers(*_UIH_COUNT) is not None:
        return _uih_frames(header)
    return _siemens_frames(header)


def _siemens_frames(header: Header) -> list[Frame]:
    where = f"{header.where}, mosaic"
    csa = guarded(DicomSeriesError, "Siemens' CSA header", where, lambda: _csa(header))
    stated = header.private_numbers(*_SIEMENS)
    in_csa = csa.get("NumberOfImagesInMosaic", (0.0,))[0]
    if stated is not None and in_csa and int(stated[0]) != int(in_csa):
        raise DicomSeriesError("one number of slices in a mosaic", f"{int(stated[0])} and {in_csa}", where)
    count = int(stated[0]) if stated is not None else int(in_csa or 0)
    if count < 1:
        raise DicomSeriesError("the number of slices in a mosaic, (0019,xx0A) or the CSA header", "none", where)
    side = math.ceil(math.sqrt(count))
    rows, columns = _tile_size(header, side, side, count)
    position, orientation = find_position(header.dataset, where), find_axes(header.dataset, where)
    measure = find_spacing(header)
    step = header.numbers("SpacingBetweenSlices", count=1)
    if position is None or orientation is None or not measure.is_metric:
        raise DicomSeriesError("position, orientation and PixelSpacing of a mosaic", "not all of them", where)
    if count > 1 and (step is None or step[0] <= 0):
        raise DicomSeriesError("SpacingBetweenSlices of a mosaic", "none", where)
    stated_direction = csa.get("SliceNormalVector", ())
    direction = np.array(stated_direction) if len(stated_direction) == 3 else None
    normal = normal_of(orientation)
    if count > 1 and (direction is None or abs(abs(float(direction @ normal)) - 1) > 1e-2):
        raise DicomSeriesError("the direction of the slices of a mosaic (SliceNormalVector)", "none", where)
    # The header states the corner of the mosaic as if it were one large slice about the centre of the volume's.
    corner = position + orientation[:3] * measure.values[1] * (header.integer("Columns") - columns) / 2
    corner = corner + orientation[3:] * measure.values[0] * (header.integer("Rows") - rows) / 2
    distance = step[0] if step else 1.0
    along = normal * distance if direction is None or direction @ normal > 0 else -normal * distance
    return [
        Frame(header, 0, (), corner + k * along, orientation, measure, distance, _tile(k, side, rows, columns))
        for k in range(count)
    ]


def _uih_frames(header: Header) -> list[Frame]:
    where = f"{header.where}, mosaic (VFRAME)"
    stated = header.private_numbers(*_UIH_COUNT)
    slices = guarded(DicomSeriesError, "a sequence of slices, (0065,xx51)", where, lambda: _uih_slices(header))
    count = int(stated[0]) if stated is not None else len(slices)
    if count < 1 or len(slices) != count:
        found = f"{len(slices)} places for {count}"
        raise DicomSeriesError("a place for each slice of a mosaic, (0065,xx51)", found, where)
    across = math.ceil(math.sqrt(count))
    rows, columns = _tile_size(header, math.ceil(count / across), across, count)
    measure = find_spacing(header)
    frames = []
    for k, item in enumerate(slices):
        position = find_position(item, where)
        orientation = find_axes(item, where)
        if orientation is None:
            orientation = find_axes(header.dataset, where)
        if position is None or orientation is None or not measure.is_metric:
            raise DicomSeriesError("position, orientation and PixelSpacing of a mosaic", "not all of them", where)
        frames.append(Frame(header, 0, (), position, orientation, measure, 1.0, _tile(k, across, rows, columns)))
    return frames


def _tile_size(header: Header, down: int, across: int, count: int) -> tuple[int, int]:
    rows, columns = header.integer("Rows"), header.integer("Columns")
    if count > _MAX_TILES or rows % down or columns % across:
        found = f"{columns}x{rows} pixels for {count} slices"
        raise DicomSeriesError(f"a mosaic of {across}x{down} tiles", found, header.where)
    return rows // down, columns // across


def _tile(k: int, across: int, rows: int, columns: int) -> tuple[int, int, int, int]:
    return k // across * rows, k % across * columns, rows, columns


def _private_dataset(header: Header, place: tuple[int, str, int]) -> Dataset:
    """Read one private element that headers leave out for its size."""
    group, _, element = place
    tags = [group << 16 | block for block in BLOCKS]
    tags += [group << 16 | block << 8 | element for block in BLOCKS]
    with open_dicom(header.path) as file:
        return pydicom.dcmread(file, stop_before_pixels=True, specific_tags=tags)


def _private_value(header: Header, place: tuple[int, str, int]) -> Any:
    group, creator, element = place
    dataset = _private_dataset(header, place)
    for block in BLOCKS:
        tag = group << 16 | block << 8 | element
        if tag in dataset and str(dataset.get(group << 16 | block).value).strip().startswith(creator):
            return dataset[tag].value
    return None


def _csa(header: Header) -> dict[str, tuple[float, ...]]:
    """Return the numbers of the CSA image header that mosaics need, empty where there is none."""
    # nibabel warns when this part of it is imported.
    from nibabel.nicom import csareader

    value = _private_value(header, _SIEMENS_CSA)
    if not isinstance(value, bytes) or not value:
        return {}
    tags = csareader.read(value)["tags"]
    found = {word: tags[word]["items"] for word in ("NumberOfImagesInMosaic", "SliceNormalVector") if word in tags}
    return {word: tuple(map(float, values)) for word, values in found.items() if values}


def _uih_slices(header: Header) -> list[Dataset]:
    value = _private_value(header, _UIH_FRAMES)
    return [] if value is None or isinstance(value, (bytes, str)) else list(value)


def crop(values: NDArray[Any], part: tuple[int, int, int, int] | None) -> NDArray[Any]:
    """Return a part of a stored frame: (top, left, rows, columns), or all of it."""
    if part is None:
        return values
    top, left, rows, columns = part
    return values[top : top + rows, left : left + columns]
