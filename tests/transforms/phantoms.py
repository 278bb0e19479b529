"""Small DICOM files with a known content, written with pydicom alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    generate_uid,
)

PATIENT = "Zyxwvut^Planted"
PATIENT_ID = "PLANTED-4711"
BIRTH_DATE = "19010203"
STUDY_DATE = "19991231"
SECRETS = ("Zyxwvut", "Planted", "PLANTED", "4711", BIRTH_DATE, STUDY_DATE)


def new_dataset(sop_class: str = CTImageStorage, modality: str = "CT") -> Dataset:
    """Return a dataset with a patient, a study and a series, and without an image."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = generate_uid()
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = PATIENT, PATIENT_ID, BIRTH_DATE
    dataset.PatientSex = "O"
    dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = STUDY_DATE
    dataset.StudyTime = dataset.ContentTime = "120000"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.FrameOfReferenceUID = generate_uid()
    dataset.StudyID, dataset.AccessionNumber, dataset.ReferringPhysicianName = PATIENT_ID, PATIENT_ID, PATIENT
    dataset.PositionReferenceIndicator = ""
    dataset.Modality = modality
    dataset.Manufacturer = "phantom"
    dataset.SeriesNumber, dataset.InstanceNumber = 1, 1
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.PatientOrientation = ""
    return dataset


def set_pixels(dataset: Dataset, pixels: np.ndarray, photometric: str = "MONOCHROME2", stored: int = 0) -> None:
    """Put an uncompressed image into a dataset: (rows, columns), (frames, rows, columns), a last axis for RGB."""
    color = photometric in ("RGB", "YBR_FULL")
    rows, columns = pixels.shape[-3:-1] if color else pixels.shape[-2:]
    dataset.Rows, dataset.Columns = rows, columns
    dataset.SamplesPerPixel = 3 if color else 1
    if color:
        dataset.PlanarConfiguration = 0
    if pixels.ndim > (3 if color else 2):
        dataset.NumberOfFrames = len(pixels)
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = 8 * pixels.dtype.itemsize
    dataset.BitsStored = stored or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)


def save(dataset: Dataset, path: Path) -> Path:
    """Write a dataset as a DICOM file."""
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)
    return path


def voxels(shape: tuple[int, int, int] = (6, 8, 10), seed: int = 0, high: int = 4096) -> np.ndarray:
    """Return random stored values of 12 bits, (z, y, x)."""
    return np.random.default_rng(seed).integers(0, high, shape, dtype=np.uint16)


def write_series(
    folder: Path,
    volume: np.ndarray,
    orientation: Sequence[float] = (1, 0, 0, 0, 1, 0),
    step: Sequence[float] = (0, 0, 2.5),
    origin: Sequence[float] = (-20, -30, 40),
    seed: int = 1,
    **attributes: Any,
) -> list[Path]:
    """Write a CT series, one file per slice, under names whose order is not that of the slices."""
    folder.mkdir(parents=True, exist_ok=True)
    names = np.random.default_rng(seed).permutation(len(volume))
    shared = new_dataset()
    paths = []
    for i, image in enumerate(volume):
        dataset = new_dataset()
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
            setattr(dataset, keyword, getattr(shared, keyword))
        dataset.InstanceNumber = i + 1
        dataset.ImageOrientationPatient = [round(float(x), 10) for x in orientation]
        dataset.ImagePositionPatient = [round(float(o + i * s), 8) for o, s in zip(origin, step, strict=True)]
        dataset.PixelSpacing = [0.8, 0.6]
        dataset.SliceThickness = 2.5
        dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, -1024, "HU"
        set_pixels(dataset, image, stored=12)
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)
        paths.append(save(dataset, folder / f"{names[i]:03d}.dcm"))
    return paths


def oblique(degrees: float = 20) -> tuple[list[float], list[float]]:
    """Return an orientation turned about two axes, and its normal."""
    a, b = np.radians([degrees, degrees / 2])
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    tip = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    axes = turn @ tip
    return [*axes[:, 0], *axes[:, 1]], axes[:, 2].tolist()


def write_enhanced_ct(
    path: Path, volume: np.ndarray, order: Sequence[int], slopes: Sequence[float], intercepts: Sequence[float]
) -> Path:
    """Write an enhanced CT whose frames come in `order`, each with its own rescaling."""
    dataset = new_dataset(EnhancedCTImageStorage)
    set_pixels(dataset, volume[list(order)], stored=12)
    measures = Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.8, 0.6], 3
    axes = Dataset()
    axes.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared = Dataset()
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [axes]
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = []
    for z in order:
        plane, values, frame = Dataset(), Dataset(), Dataset()
        plane.ImagePositionPatient = [-20, -30, 40 + 3 * z]
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = slopes[z], intercepts[z], "HU"
        frame.PlanePositionSequence, frame.PixelValueTransformationSequence = [plane], [values]
        dataset.PerFrameFunctionalGroupsSequence.append(frame)
    return save(dataset, path)


def lookup_table(keyword: str, first: int, values: np.ndarray) -> Dataset:
    """Return an item of a ModalityLUTSequence or VOILUTSequence."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(values), first, 16])
    if keyword == "ModalityLUTSequence":
        item.ModalityLUTType = "US"
    item.add_new("LUTData", "OW", values.astype("<u2").tobytes())
    return item


def new_secondary_capture(pixels: np.ndarray, photometric: str, **attributes: Any) -> Dataset:
    """Return an image without geometry, as screenshots and scanned films are."""
    dataset = new_dataset(SecondaryCaptureImageStorage, "OT")
    set_pixels(dataset, pixels, photometric)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset
