"""Loading of DICOM segmentations onto the voxel grid of an image."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import orientation_ras_lps
from monai.transforms import MapTransform
from numpy.typing import NDArray
from pydicom.pixels import pixel_array
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

from monai_medmerge.errors import DicomSeriesError, SettingError
from monai_medmerge.transforms.dicom.geometry.find import find_frames
from monai_medmerge.transforms.dicom.geometry.frames import Frame, group_item
from monai_medmerge.transforms.dicom.geometry.stacks import frame_affine
from monai_medmerge.transforms.dicom.headers import Header, items, numbers, open_dicom, read_header
from monai_medmerge.transforms.dicom.values.pixels import FrameSource, read_layout, require_frames
from monai_medmerge.transforms.foreign import guarded, quiet

Array = NDArray[Any]

_TYPES = ("BINARY", "FRACTIONAL", "LABELMAP")
# How far, in voxels, a segmentation's voxels may lie from those of the image.
_OFF_GRID = 0.05


def read_seg(
    path: str | Path,
    affine: Array,
    shape: Sequence[int],
    channels: bool = False,
    threshold: float = 0.5,
    max_bytes: int = 2**32,
) -> Array:
    """Read a DICOM SEG of any type onto a grid, frame by frame, so that sparse frames and sub-regions find their place.

    Frames may have another order, direction or extent than the slices of the image, but their voxels must coincide
    with the image's: nothing is resampled.

    Args:
        path: the SEG, of type BINARY, FRACTIONAL or LABELMAP.
        affine: 4 x 4, from the image's voxels to RAS millimetres.
        shape: the image's (x, y, z).
        channels: whether each segment becomes a channel, which lets segments overlap and keeps fractions.
        threshold: the least fraction that counts for FRACTIONAL where `channels` is False; the largest wins.
        max_bytes: refuse segmentations that would take more memory.

    Returns:
        Labels, (x, y, z) uint16 holding segment numbers; with `channels` (segment, x, y, z) float32 in the order of
        segment numbers.

    Raises:
        DicomSeriesError: it is no SEG, is damaged, lies off the grid or outside it, or segments overlap and
            `channels` is False.
    """
    where = Path(path).name
    with quiet():
        return guarded(
            DicomSeriesError,
            "a readable DICOM SEG",
            where,
            lambda: _read_seg(Path(path), orientation_ras_lps(affine), tuple(shape), channels, threshold, max_bytes),
        )


def _read_seg(
    path: Path, affine: Array, shape: tuple[int, ...], channels: bool, threshold: float, max_bytes: int
) -> Array:
    header = read_header(path)
    kind = header.text("SegmentationType").upper()
    if header.text("Modality") != "SEG" or kind not in _TYPES:
        raise DicomSeriesError(f"a SEG of type {', '.join(_TYPES)}", "another object", header.where)
    described = [_segment_number(item, header) for item in items(header.dataset, "SegmentSequence", header.where)]
    # A LABELMAP may describe its background, number zero.
    segments = sorted(set(described) - {0})
    voxels = int(np.prod([len(segments) if channels else 2, *shape], dtype=object))
    frame_bytes = header.integer("Rows") * header.integer("Columns") * 4
    if max(voxels * 4, frame_bytes) > max_bytes or header.frames > path.stat().st_size * 8:
        raise DicomSeriesError(f"at most {max_bytes} bytes (max_bytes)", "more", header.where)
    result = np.zeros((len(segments), *shape) if channels else shape, np.float32 if channels else np.uint16)
    best = np.zeros(shape if kind == "FRACTIONAL" and not channels else (0,) * len(shape), np.float32)
    for number, index, values in _placed_values(header, kind, affine, shape):
        if number not in segments:
            raise DicomSeriesError("segments that SegmentSequence describes", f"number {number}", header.where)
        if channels:
            result[segments.index(number)][index] = values
        elif kind == "FRACTIONAL":
            wins = (values >= threshold) & (values > best[index])
            winning = tuple(axis[wins] for axis in index)
            result[winning], best[winning] = number, values[wins]
        else:
            if ((result[index] != 0) & (result[index] != number)).any():
                raise DicomSeriesError("segments that do not overlap (or channels=True)", "overlap", header.where)
            result[index] = number
    return result


def _segment_number(item: pydicom.Dataset, header: Header) -> int:
    found = numbers(item, "SegmentNumber", header.where, count=1)
    if found is None or not 0 <= found[0] < 2**16:
        raise DicomSeriesError("a SegmentNumber", "none", header.where)
    return int(found[0])


def _placed_values(
    header: Header, kind: str, affine: Array, shape: tuple[int, ...]
) -> Iterator[tuple[int, tuple[Array, ...], Array]]:
    """Yield (segment number, index into the grid, values there) for each segment of each frame."""
    decode = _decoder(header)
    maximum = _maximum_fraction(header) if kind == "FRACTIONAL" else 1.0
    frames = find_frames(header)
    _check_slice_distance(frames, affine)
    for frame in frames:
        pixels = decode(frame.index)
        rows, columns = np.nonzero(pixels)
        values = pixels[rows, columns]
        index = _grid_index(frame, rows, columns, affine, shape)
        if kind == "LABELMAP":
            for number in np.unique(values).tolist():
                chosen = values == number
                yield number, tuple(axis[chosen] for axis in index), np.ones(int(chosen.sum()), np.float32)
            continue
        group = group_item(frame.groups, "SegmentIdentificationSequence", header.where)
        found = None if group is None else numbers(group, "ReferencedSegmentNumber", header.where, count=1)
        if found is None:
            where = f"{header.where}, frame {frame.index + 1}"
            raise DicomSeriesError("the number of the frame's segment", "none", where)
        if kind == "FRACTIONAL" and (highest := int(values.max(initial=0))) > maximum:
            expected = f"fractions up to MaximumFractionalValue (0062,000E), {maximum:g}"
            raise DicomSeriesError(expected, str(highest), f"{header.where}, frame {frame.index + 1}")
        yield int(found[0]), index, (values / maximum).astype(np.float32)


def _maximum_fraction(header: Header) -> float:
    """Return the stored value that stands for a fraction of one (PS3.3 C.8.20.2)."""
    found = numbers(header.dataset, "MaximumFractionalValue", header.where, count=1)
    if found is None or found[0] <= 0:
        given = "none" if found is None else f"{found[0]:g}"
        raise DicomSeriesError("a MaximumFractionalValue (0062,000E) above zero", given, header.where)
    return found[0]


def _decoder(header: Header) -> Callable[[int], Array]:
    """Return what decodes a frame by its index: pydicom where bits are packed or in RLE, else as for images."""
    syntax = pydicom.uid.UID(header.transfer_syntax)
    if syntax.is_compressed and syntax not in (RLELossless, DeflatedExplicitVRLittleEndian):
        # The palette of a LABELMAP is for display: its pixels are numbers.
        return FrameSource(header, replace(read_layout(header, 2**32), photometric="MONOCHROME2")).decode
    with open_dicom(header.path) as file:
        dataset = pydicom.dcmread(file)
    if syntax.is_encapsulated:
        require_frames(dataset, header)
    else:
        frame_bits = header.integer("Rows") * header.integer("Columns") * header.integer("BitsAllocated")
        # Bits are packed across frames, and bytes padded to an even number.
        if 8 * len(dataset.PixelData) >= frame_bits * header.frames + max(frame_bits, 16):
            found = f"Pixel Data for {8 * len(dataset.PixelData) // frame_bits}"
            raise DicomSeriesError(f"{header.frames} frame(s) as NumberOfFrames says", found, header.where)
    plugin = "pydicom" if syntax == RLELossless else ""
    return lambda index: pixel_array(dataset, index=index, decoding_plugin=plugin)


def _grid_index(frame: Frame, rows: Array, columns: Array, affine: Array, shape: tuple[int, ...]) -> tuple[Array, ...]:
    """Return the voxels of the grid on which pixels of a frame lie."""
    where = f"{frame.header.where}, frame {frame.index + 1}"
    if frame.position is None or frame.orientation is None:
        raise DicomSeriesError("a position and an orientation", "none", where)
    to_grid = np.linalg.inv(affine) @ frame_affine(frame)
    places = to_grid[:3] @ np.stack([columns, rows, np.zeros_like(rows), np.ones_like(rows)])
    # The far corner is looked at even where few pixels are set, so that another spacing does not pass.
    corner = to_grid[:3] @ [frame.size[0] - 1, frame.size[1] - 1, 0, 1]
    for points in (places, corner, to_grid[:3, 3]):
        if abs(points - np.rint(points)).max(initial=0) > _OFF_GRID:
            raise DicomSeriesError("voxels that coincide with the image's", "a frame off its grid", where)
    # Voxels of twice the size have centres that coincide, and would leave every other voxel empty.
    if (abs(np.rint(to_grid[:3, :2])).sum(0) != 1).any():
        raise DicomSeriesError("voxels of one size with the image's", "larger ones", where)
    index = np.rint(places).astype(np.int64)
    if (index < 0).any() or (index >= np.reshape(shape, (3, 1))).any():
        raise DicomSeriesError("segments within the image", "voxels outside it", where)
    return tuple(index)


def _check_slice_distance(frames: Sequence[Frame], affine: Array) -> None:
    """Refuse slices that state, and keep, a multiple of the image's distance: they would leave slices empty."""
    first = frames[0]
    measures = group_item(first.groups, "PixelMeasuresSequence", first.header.where)
    stated = None if measures is None else numbers(measures, "SpacingBetweenSlices", first.header.where, count=1)
    places = np.array([frame.position for frame in frames if frame.position is not None])
    if stated is None or first.orientation is None or len(places) < 2:
        return
    normal = np.cross(first.orientation[:3], first.orientation[3:])
    distance = abs(affine[:3, :3].T @ normal).max()
    factor = round(abs(stated[0]) / distance)
    gaps = np.rint(np.diff(np.sort(places @ normal)) / distance)
    if factor > 1 and gaps.any() and not (gaps % factor).any():
        found = f"slices {abs(stated[0]):.4g} mm apart where the image's are {distance:.4g}"
        raise DicomSeriesError("voxels of one size with the image's", found, first.header.where)


class LoadDicomSegd(MapTransform):
    """Load DICOM SEG files as labels on the grid of an image that is loaded already.

    Args:
        keys: paths of SEG files.
        reference: the key of the image, a MetaTensor (x, y, z) or (channel, x, y, z).
        channels: whether each segment becomes a channel (see `read_seg`).
        threshold: the least fraction that counts for FRACTIONAL where `channels` is False.
        allow_missing_keys: skip keys that a dictionary lacks.

    Returns (of calling it):
        The dictionary with MetaTensors: segment numbers with the image's dimensions, or (segment, x, y, z).

    Raises:
        SettingError: the image is no volume with an affine.
        DicomSeriesError: the SEG does not fit it (see `read_seg`).
    """

    def __init__(
        self,
        keys: KeysCollection,
        reference: str = "image",
        channels: bool = False,
        threshold: float = 0.5,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.reference = reference
        self.channels = channels
        self.threshold = threshold

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with the labels loaded."""
        result = dict(data)
        image = result[self.reference]
        if not isinstance(image, MetaTensor) or image.ndim not in (3, 4) or image.affine.shape != (4, 4):
            raise SettingError("a MetaTensor (x, y, z) or (channel, x, y, z)", "another value", self.reference)
        affine, shape = image.affine.numpy(), tuple(image.shape[-3:])
        for key in self.key_iterator(result):
            labels = read_seg(result[key], affine, shape, self.channels, self.threshold)
            labels = labels.astype(np.float32) if self.channels else labels.astype(np.int32)
            labels = labels[None] if image.ndim == 4 and not self.channels else labels
            label_meta = {"filename_or_obj": str(result[key]), "spatial_shape": np.asarray(shape)}
            result[key] = MetaTensor(labels, affine=image.affine.clone(), meta=label_meta)
        return result
