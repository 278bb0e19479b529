"""How fast and how correctly DICOM is read: this package's reader beside MONAI's two.

python -m benchmarks.dicom_reading            seconds for a generated CT series of 300 slices, 512 x 512
python -m benchmarks.dicom_reading --files    a table of pydicom's own test files
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from monai.data import ImageReader, ITKReader, PydicomReader
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_color_lut, apply_modality_lut
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from monai_medmerge.transforms import DicomSeriesReader

READERS = (ITKReader, PydicomReader, DicomSeriesReader)


def write_ct(folder: Path, slices: int, size: int) -> None:
    """Write a CT series of 12-bit noise, as scanners store it: uncompressed, one file for each slice."""
    rng = np.random.default_rng(0)
    series, study, space = generate_uid(), generate_uid(), generate_uid()
    for i in range(slices):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
        dataset.SeriesInstanceUID, dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = series, study, space
        dataset.Modality, dataset.SeriesDate, dataset.InstanceNumber = "CT", "20000101", i + 1
        dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [-150, -150, float(i)], [1, 0, 0, 0, 1, 0]
        dataset.PixelSpacing, dataset.SliceThickness = [0.6, 0.6], 1
        dataset.Rows = dataset.Columns = size
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
        dataset.PixelData = rng.integers(0, 4096, (size, size), dtype=np.uint16).tobytes()
        dataset.save_as(folder / f"{i:04d}.dcm", enforce_file_format=True)


def time_readers(slices: int, size: int, repeats: int) -> dict[str, list[float]]:
    """Return the seconds that each reader takes, in turns, so that the machine's other work meets all alike."""
    seconds: dict[str, list[float]] = {reader.__name__: [] for reader in READERS}
    with tempfile.TemporaryDirectory() as folder:
        write_ct(Path(folder), slices, size)
        for _ in range(repeats):
            for reader_class in READERS:
                reader = reader_class()
                start = time.perf_counter()
                array, _ = reader.get_data(reader.read(folder))
                # Lazy results would not count as read.
                np.ascontiguousarray(array.T[:1])
                seconds[reader_class.__name__].append(time.perf_counter() - start)
    return seconds


def expected_values(path: Path) -> np.ndarray:
    """Return pydicom's pixel data with palette, modality LUT and dose scaling applied, in axes (x, y, z[, RGB])."""
    dataset = pydicom.dcmread(path)
    if path.name in ("JPEG-lossy.dcm", "JPGExtended.dcm"):
        # pydicom has no decoder for 12-bit JPEG that is free of the GPL; ITK has.
        reader = ITKReader()
        return np.asarray(reader.get_data(reader.read(path))[0])
    pixels = dataset.pixel_array
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, dataset)
    elif dataset.SamplesPerPixel == 1:
        pixels = apply_modality_lut(pixels, dataset) * float(dataset.get("DoseGridScaling", 1))
    color = dataset.SamplesPerPixel == 3 or dataset.PhotometricInterpretation == "PALETTE COLOR"
    if dataset.get("NumberOfFrames", 1) == 1:
        pixels = pixels[None]
    return np.asarray(np.moveaxis(pixels, (0, 1, 2), (2, 1, 0)) if color else pixels.T)


def judge(reader: ImageReader, path: Path) -> str:
    """Return "right", "wrong values", "wrong shape", "fails" or, where there is nothing to read, "no image"."""
    try:
        array: Any = reader.get_data(reader.read(path))[0]
    # Any exception of a reader under comparison counts as a failure.
    except Exception as error:  # noqa: BLE001
        return "refused" if isinstance(reader, DicomSeriesReader) else f"fails ({type(error).__name__})"
    try:
        expected = expected_values(path)
    except Exception:  # noqa: BLE001
        return "read, though pydicom cannot decode it"
    if np.squeeze(array).shape != np.squeeze(expected).shape:
        return "wrong shape"
    close = np.allclose(np.squeeze(array).astype(float), np.squeeze(expected), rtol=1e-5)
    return "right" if close else "wrong values"


def is_image(path: Path) -> bool:
    """Return whether the file is a DICOM image, or was one before it was damaged."""
    dataset = pydicom.dcmread(path, force=True)
    return "Rows" in dataset and "PixelData" in dataset


def print_table() -> None:
    """Print what each reader makes of pydicom's test files, as Markdown."""
    paths = sorted((Path(pydicom.__file__).parent / "data/test_files").glob("*.dcm"))
    counts: Counter[tuple[str, str]] = Counter()
    print("| file | " + " | ".join(reader.__name__ for reader in READERS) + " |")
    print("|---" * (len(READERS) + 1) + "|")
    for path in paths:
        kind = "" if is_image(path) else " (no image)"
        verdicts = [judge(reader(), path) for reader in READERS]
        counts.update(
            (reader.__name__, verdict.split(" (")[0]) for reader, verdict in zip(READERS, verdicts, strict=True)
        )
        print(f"| {path.name}{kind} | " + " | ".join(verdicts) + " |")
    print()
    for (name, verdict), count in sorted(counts.items()):
        print(f"{name}: {verdict} {count}")


def main() -> None:
    """Print the speed, or the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", action="store_true", help="print the table of pydicom's test files")
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    if arguments.files:
        print_table()
        return
    print(f"{arguments.slices} slices of {arguments.size} x {arguments.size}, seconds (median; least to most)")
    for name, seconds in time_readers(arguments.slices, arguments.size, arguments.repeats).items():
        print(f"{name:20s} {statistics.median(seconds):6.2f}  ({min(seconds):.2f} to {max(seconds):.2f})")


if __name__ == "__main__":
    main()
