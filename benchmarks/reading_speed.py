"""How fast DICOM is read: this package's reader beside MONAI's two, in turns, on the same generated files.

python -m benchmarks.reading_speed            a CT series of 500 slices and an enhanced CT of 500 frames, 512 x 512
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from monai.data import ITKReader, PydicomReader
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

from monai_medmerge.transforms import DicomSeriesReader

READERS = (ITKReader, PydicomReader, DicomSeriesReader)


def new_image(sop_class: UID, ids: tuple[UID, UID, UID], pixels: np.ndarray) -> Dataset:
    """Return an uncompressed CT image of 12 bits."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = sop_class
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = ids
    dataset.Modality, dataset.SeriesDate = "CT", "20000101"
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelData = pixels.tobytes()
    return dataset


def write_ct(folder: Path, slices: int, size: int) -> Path:
    """Write a CT series of 12-bit noise, as scanners store it: uncompressed, one file for each slice."""
    rng = np.random.default_rng(0)
    ids = generate_uid(), generate_uid(), generate_uid()
    for i in range(slices):
        dataset = new_image(CTImageStorage, ids, rng.integers(0, 4096, (size, size), dtype=np.uint16))
        dataset.InstanceNumber, dataset.AcquisitionNumber, dataset.KVP = i + 1, 1, 120
        dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [-150, -150, float(i)], [1, 0, 0, 0, 1, 0]
        dataset.PixelSpacing, dataset.SliceThickness = [0.6, 0.6], 1
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
        dataset.save_as(folder / f"{i:04d}.dcm", enforce_file_format=True)
    return folder


def write_enhanced_ct(folder: Path, slices: int, size: int) -> Path:
    """Write an enhanced CT of 12-bit noise: one file with functional groups for each frame."""
    rng = np.random.default_rng(0)
    ids = generate_uid(), generate_uid(), generate_uid()
    pixels = rng.integers(0, 4096, (slices, size, size), dtype=np.uint16)
    dataset = new_image(EnhancedCTImageStorage, ids, pixels)
    dataset.NumberOfFrames = slices
    shared, measures, axes = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.6, 0.6], 1
    axes.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [axes]
    dataset.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for i in range(slices):
        frame, plane, content, values = Dataset(), Dataset(), Dataset(), Dataset()
        plane.ImagePositionPatient = [-150, -150, float(i)]
        content.StackID, content.InStackPositionNumber, content.DimensionIndexValues = "1", i + 1, [1, i + 1]
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = 1, -1024, "HU"
        frame.PlanePositionSequence, frame.FrameContentSequence = [plane], [content]
        frame.PixelValueTransformationSequence = [values]
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = frames
    dataset.save_as(folder / "enhanced.dcm", enforce_file_format=True)
    return folder / "enhanced.dcm"


def time_readers(path: Path, repeats: int) -> dict[str, list[float]]:
    """Return the seconds that each reader takes, in turns, so that the machine's other work meets all alike."""
    seconds: dict[str, list[float]] = {reader.__name__: [] for reader in READERS}
    for _ in range(repeats):
        for reader_class in READERS:
            reader = reader_class()
            start = time.perf_counter()
            try:
                array, _ = reader.get_data(reader.read(path))
            # MONAI's readers fail on some objects; that is told, not hidden.
            except Exception as error:  # noqa: BLE001
                print(f"{reader_class.__name__} fails on {path.name}: {type(error).__name__}")
                continue
            # Lazy results would not count as read.
            np.ascontiguousarray(array.T[:1])
            seconds[reader_class.__name__].append(time.perf_counter() - start)
    return {name: found for name, found in seconds.items() if found}


def main() -> None:
    """Print the seconds, and their ratio to those of the faster of MONAI's readers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=500)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    kinds: dict[str, Callable[[Path, int, int], Path]] = {"CT series": write_ct, "enhanced CT": write_enhanced_ct}
    print(f"{arguments.slices} slices of {arguments.size} x {arguments.size}, seconds: median (least to most)")
    for kind, write in kinds.items():
        with tempfile.TemporaryDirectory() as folder:
            seconds = time_readers(write(Path(folder), arguments.slices, arguments.size), arguments.repeats)
        medians = {name: statistics.median(found) for name, found in seconds.items()}
        print(kind)
        for name, found in seconds.items():
            print(f"  {name:20s} {medians[name]:6.2f}  ({min(found):.2f} to {max(found):.2f})")
        faster = min(median for name, median in medians.items() if name != "DicomSeriesReader")
        print(f"  ratio to the faster of MONAI's {medians['DicomSeriesReader'] / faster:.2f}")


if __name__ == "__main__":
    main()
