"""Which files of a folder are DICOM, and which objects are images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    EnhancedUSVolumeStorage,
    ParametricMapStorage,
    RTDoseStorage,
)

from monai_medmerge.errors import DicomSeriesError
from monai_medmerge.transforms.dicom.archives import DICOM_SUFFIXES, is_dicomdir, list_directory
from monai_medmerge.transforms.dicom.headers import Header, is_dicom
from monai_medmerge.transforms.foreign import is_folder

_NO_IMAGE = "an image object with Rows, Columns and Pixel Data"
# Images whose class does not have the word in its name.
_IMAGE_CLASSES = (RTDoseStorage, ParametricMapStorage, EnhancedUSVolumeStorage)
# Modalities of objects that share a series or a folder with images without being images to stack.
_NO_IMAGES = ("SEG", "SR", "PR", "KO", "RTSTRUCT", "RTPLAN", "RTRECORD", "REG", "DOC", "ECG")


def list_files(paths: Sequence[str | Path]) -> list[Path]:
    """Return the DICOM files among files and folders, folders without their subfolders, and those a DICOMDIR names.

    In a folder, files of other formats are passed over, unless their suffix claims that they are DICOM or their name
    is like that of the DICOM files beside them (`IM0007` beside `IM0006`, `1.2.7` beside `1.2.6`): such a file is a
    damaged slice, and a volume without it would be too short. A file that is named itself must be one.

    Raises:
        DicomSeriesError: a path does not exist, a file that should be DICOM is not, or nothing is left.
    """
    found = [file for path in paths for file in _list_path(Path(path))]
    if not found:
        raise DicomSeriesError("DICOM files", "none", ", ".join(Path(path).name for path in paths[:3]))
    return found


def _list_path(path: Path) -> Iterator[Path]:
    if is_dicomdir(path):
        yield from list_directory(path)
        return
    if not is_folder(path):
        yield path
        return
    files = sorted(file for file in path.iterdir() if file.is_file())
    dicom = {file for file in files if is_dicom(file)}
    suffixes = {_suffix(file) for file in dicom if file.name.upper() != "DICOMDIR"} | set(DICOM_SUFFIXES)
    for file in files:
        if file in dicom:
            if file.name.upper() != "DICOMDIR":
                yield file
        elif _suffix(file) in suffixes and not file.name.startswith("."):
            raise DicomSeriesError("a DICOM file, as its name says", "another or a damaged format", file.name)


def _suffix(path: Path) -> str:
    """The suffix, empty where it is the last number of a UID."""
    suffix = path.suffix.lower()
    return "" if suffix[1:].isdigit() else suffix


def is_passed_over(header: Header) -> bool:
    """Whether an object in a folder is none to read: a report, raw data, a media directory, annotations, ...

    An object of an image class that lacks its image is a damaged slice, and stays.
    """
    if header.text("Modality") in _NO_IMAGES:
        return True
    return not has_image(header) and bool(header.sop_class) and not _is_image_class(header)


def has_image(header: Header) -> bool:
    """Whether there are rows, columns and pixels."""
    if "Rows" not in header.dataset or "Columns" not in header.dataset:
        return False
    return header.pixel_offset is not None or header.transfer_syntax == DeflatedExplicitVRLittleEndian


def _is_image_class(header: Header) -> bool:
    sop_class = UID(header.sop_class)
    # Private classes have no name, and may be anything.
    return sop_class in _IMAGE_CLASSES or "Image Storage" in sop_class.name


def require_image(header: Header) -> None:
    """Refuse objects that hold no image that this package reads as one.

    Raises:
        DicomSeriesError: a report, plan, structure set, waveform, directory or segmentation.
    """
    if header.text("Modality") == "SEG":
        raise DicomSeriesError("an image", "a segmentation, which LoadDicomSegd reads", header.where)
    if "Rows" not in header.dataset or "Columns" not in header.dataset:
        sop_class = UID(header.sop_class)
        # Only the standard's own UIDs have a type, and a name that is safe to show.
        kind = sop_class.name if sop_class.type else "an object"
        raise DicomSeriesError(_NO_IMAGE, f"{kind} without Rows or Columns", header.where)
    if header.pixel_offset is None and header.transfer_syntax != DeflatedExplicitVRLittleEndian:
        raise DicomSeriesError(_NO_IMAGE, "an object without Pixel Data", header.where)
