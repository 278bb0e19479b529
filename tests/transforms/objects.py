"""Objects beyond plain series, with a known content: enhanced files, mosaics, slides, parametric maps, gated frames."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage, NuclearMedicineImageStorage
from transforms.phantoms import new_dataset, save, set_pixels

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def item(**attributes: Any) -> Dataset:
    """Return an item of a sequence; "Macro.Keyword" would not be a keyword, so nest items for that."""
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def write_enhanced(
    path: Path,
    volume: np.ndarray,
    heights: Sequence[float],
    groups: Sequence[Mapping[str, Mapping[str, Any]]] = (),
    shared: Mapping[str, Mapping[str, Any]] | None = None,
    sop_class: str = EnhancedMRImageStorage,
    modality: str = "MR",
    orientation: Sequence[float] = AXIAL,
    **attributes: Any,
) -> Path:
    """Write an enhanced object: frames at heights along z, each with further functional groups."""
    dataset = new_dataset(sop_class, modality)
    set_pixels(dataset, volume)
    common = item(
        PixelMeasuresSequence=[item(PixelSpacing=[0.8, 0.6], SliceThickness=2)],
        PlaneOrientationSequence=[item(ImageOrientationPatient=list(orientation))],
    )
    for macro, content in (shared or {}).items():
        setattr(common, macro, [item(**content)])
    dataset.SharedFunctionalGroupsSequence = [common]
    dataset.PerFrameFunctionalGroupsSequence = []
    for number, z in enumerate(heights):
        frame = item(PlanePositionSequence=[item(ImagePositionPatient=[-20, -30, float(z)])])
        for macro, content in (groups[number] if groups else {}).items():
            setattr(frame, macro, [item(**content)])
        dataset.PerFrameFunctionalGroupsSequence.append(frame)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return save(dataset, path)


def csa_header(**tags: Sequence[float]) -> bytes:
    """Return a Siemens CSA header (second version) with numeric tags."""
    data = b"SV10\x04\x03\x02\x01" + struct.pack("<2I", len(tags), 77)
    for name, values in tags.items():
        data += struct.pack("<64si4s3i", name.encode(), len(values), b"FD", 4, len(values), 77)
        for value in values:
            text = f"{value:.8f}".encode() + b"\0"
            data += struct.pack("<4i", len(text), len(text), 77, len(text)) + text + bytes(-len(text) % 4)
    return data


def write_mosaic(
    path: Path,
    volume: np.ndarray,
    orientation: Sequence[float] = AXIAL,
    direction: Sequence[float] | None = (0, 0, 1),
    corner: Sequence[float] = (-20.0, -30.0, 40.0),
    creator_count: bool = True,
    **attributes: Any,
) -> Path:
    """Write a Siemens mosaic of a volume (slice, row, column), whose first slice has its first voxel at `corner`."""
    count, rows, columns = volume.shape
    side = math.ceil(math.sqrt(count))
    image = np.zeros((side * rows, side * columns), volume.dtype)
    for k, values in enumerate(volume):
        top, left = k // side * rows, k % side * columns
        image[top : top + rows, left : left + columns] = values
    dataset = new_dataset(MRImageStorage, "MR")
    set_pixels(dataset, image, stored=12)
    dataset.Manufacturer, dataset.ImageType = "SIEMENS", ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    spacing = np.array([3.0, 2.0])
    dataset.PixelSpacing, dataset.SliceThickness, dataset.SpacingBetweenSlices = spacing.tolist(), 4, 5
    dataset.ImageOrientationPatient = list(orientation)
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    large = np.array(corner) - row * spacing[1] * (side - 1) * columns / 2 - column * spacing[0] * (side - 1) * rows / 2
    dataset.ImagePositionPatient = [round(float(x), 8) for x in large]
    # What dcm2niix wants of an echo-planar series.
    dataset.EchoTime, dataset.RepetitionTime, dataset.AcquisitionNumber = 30, 2000, 1
    if creator_count:
        dataset.private_block(0x19, "SIEMENS MR HEADER", create=True).add_new(0x0A, "US", count)
    if direction is not None:
        header = csa_header(NumberOfImagesInMosaic=[count], SliceNormalVector=list(direction))
        dataset.private_block(0x29, "SIEMENS CSA HEADER", create=True).add_new(
            0x10, "OB", header + b"\0" * (len(header) % 2)
        )
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return save(dataset, path)


def write_vframe(path: Path, volume: np.ndarray, places: bool = True, **attributes: Any) -> Path:
    """Write a United Imaging grid: as many columns of tiles as the root of their number, and rows as they need."""
    count, rows, columns = volume.shape
    across = math.ceil(math.sqrt(count))
    down = math.ceil(count / across)
    image = np.zeros((down * rows, across * columns), volume.dtype)
    for k, values in enumerate(volume):
        top, left = k // across * rows, k % across * columns
        image[top : top + rows, left : left + columns] = values
    dataset = new_dataset(MRImageStorage, "MR")
    set_pixels(dataset, image, stored=12)
    dataset.Manufacturer, dataset.ImageType = "UIH", ["ORIGINAL", "PRIMARY", "M", "VFRAME"]
    dataset.PixelSpacing, dataset.SliceThickness, dataset.SpacingBetweenSlices = [3, 2], 4, 5
    dataset.ImageOrientationPatient, dataset.ImagePositionPatient = list(AXIAL), [-20, -30, 40]
    block = dataset.private_block(0x65, "Image Private Header", create=True)
    block.add_new(0x50, "DS", str(count))
    if places:
        frames = [item(ImagePositionPatient=[-20, -30, 40 + 5 * k]) for k in range(count)]
        block.add_new(0x51, "SQ", frames)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return save(dataset, path)


def write_nuclear(path: Path, pixels: np.ndarray, located: bool = True, step: float = -5, **attributes: Any) -> Path:
    """Write reconstructed SPECT, whose place is that of its detector (PS3.3 C.8.4.11)."""
    dataset = new_dataset(NuclearMedicineImageStorage, "NM")
    set_pixels(dataset, pixels)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"]
    dataset.PixelSpacing, dataset.SpacingBetweenSlices = [4, 4], step
    if located:
        place = item(ImagePositionPatient=[-100, -90, 300], ImageOrientationPatient=list(AXIAL))
        dataset.DetectorInformationSequence = [place]
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return save(dataset, path)
