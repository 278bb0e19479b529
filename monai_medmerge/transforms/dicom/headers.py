"""What a DICOM file says about its image, read without its pixels and without anything of its patient."""

from __future__ import annotations

import hashlib
import math
import os
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pydicom
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from monai_medmerge.errors import DicomSeriesError
from monai_medmerge.transforms.dicom.elements import element_value
from monai_medmerge.transforms.dicom.tags import BLOCKS, TAGS
from monai_medmerge.transforms.foreign import guarded, is_file

_PATIENT = tag_for_keyword("PatientID") or 0
# Patients are told apart by hashes that mean nothing outside of this process.
_SALT = os.urandom(16)

_MAX_INFLATED = 2**30


@dataclass(frozen=True, slots=True)
class Header:
    """One DICOM file without its pixels.

    Args:
        path: the file.
        dataset: the tags above.
        transfer_syntax: the transfer syntax UID.
        pixel_offset: where the pixel data element starts in the file, None if it has none or is deflated as a whole.
        patient: a hash of PatientID under a salt of this process, by which two files can be compared and nothing else;
            empty where there is none.
        sop_class: SOPClassUID, of the file's meta information where the object has none, as in a DICOMDIR.
    """

    path: Path
    dataset: Dataset
    transfer_syntax: str
    pixel_offset: int | None
    patient: str = ""
    sop_class: str = ""

    @property
    def where(self) -> str:
        """The file's base name: all of its path that errors may carry."""
        return self.path.name

    def text(self, keyword: str) -> str:
        """Return a string attribute, empty where absent."""
        where = f"{self.where}, {keyword}"
        value = guarded(DicomSeriesError, "text", where, lambda: element_value(self.dataset, keyword))
        return "" if value is None else str(value).strip()

    def numbers(self, keyword: str, count: int | None = None) -> tuple[float, ...] | None:
        """Return a numeric attribute as finite floats, None where absent or empty; `count` of them if given."""
        return numbers(self.dataset, keyword, self.where, count)

    def integer(self, keyword: str, default: int | None = None) -> int:
        """Return an integer attribute, or `default` where it is absent."""
        values = self.numbers(keyword, count=1)
        if values is None:
            if default is None:
                raise DicomSeriesError(f"{keyword} to be given", "no value", self.where)
            return default
        return int(values[0])

    @property
    def image_type(self) -> tuple[str, ...]:
        """The values of ImageType, in capitals."""
        value = element_value(self.dataset, "ImageType") or []
        return tuple(str(word).strip().upper() for word in ([value] if isinstance(value, str) else value))

    def private_numbers(self, group: int, creator: str, element: int) -> tuple[float, ...] | None:
        """Return a vendor's numeric attribute, None where it is absent or does not parse: nothing depends on it alone.

        Args:
            group: the odd group number.
            creator: how the private creator begins.
            element: the lower byte of the element.
        """
        known = self.dataset.keys()
        for block in BLOCKS:
            tag = group << 16 | block << 8 | element
            if tag in known and (group << 16 | block) in known:
                owner = str(self.dataset[group << 16 | block].value or "").strip()
                if owner and owner.startswith(creator):
                    return _private_values(self.dataset[tag].value)
        return None

    @property
    def frames(self) -> int:
        """The number of frames, one for objects that do not say."""
        return self.integer("NumberOfFrames", 1)


def _private_values(value: Any) -> tuple[float, ...] | None:
    """Return numbers from a value of any representation, also from the bytes of an unknown one."""
    if isinstance(value, bytes):
        text = value.strip(b" \0").decode("ascii", "replace")
        value = text.split("\\") if re.fullmatch(r"[-+0-9.eE \\]+", text) else np.frombuffer(value, "<u2")[:1]
    try:
        found = tuple(float(item) for item in np.atleast_1d(value))
    except (TypeError, ValueError):
        return None
    return found if found and np.isfinite(found).all() else None


def numbers(dataset: Dataset, keyword: str, where: str, count: int | None = None) -> tuple[float, ...] | None:
    """Return a numeric attribute of any dataset as a tuple of finite floats.

    Args:
        dataset: a dataset or an item of a sequence.
        keyword: the attribute's DICOM keyword.
        where: the file's base name, for errors.
        count: how many values there must be, None for any.

    Raises:
        DicomSeriesError: the values do not parse, are not finite, or are not `count`.
    """

    def parse() -> tuple[float, ...]:
        value = element_value(dataset, keyword)
        if value is None or (isinstance(value, str) and not value.strip()):
            return ()
        values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        return tuple(float(item) for item in values)

    expected = "numbers" if count is None else f"{count} finite number{'s' if count > 1 else ''}"
    found = guarded(DicomSeriesError, expected, f"{where}, {keyword}", parse)
    if not found:
        return None
    if not all(map(math.isfinite, found)):
        raise DicomSeriesError(expected, "a value that is not finite", f"{where}, {keyword}")
    if count is not None and len(found) != count:
        raise DicomSeriesError(expected, f"{len(found)} of them", f"{where}, {keyword}")
    return found


def items(dataset: Dataset, keyword: str, where: str) -> list[Dataset]:
    """Return the items of a sequence attribute, empty where it is absent."""

    def parse() -> list[Dataset]:
        value = dataset.get(keyword)
        found = [] if value is None else list(value)
        if not all(isinstance(item, Dataset) for item in found):
            raise TypeError
        return found

    return guarded(DicomSeriesError, "a sequence of items", f"{where}, {keyword}", parse)


def is_dicom(path: Path) -> bool:
    """Return whether the file is a DICOM Part 10 file: "DICM" after 128 bytes of preamble."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_header(path: Path) -> Header:
    """Read one file's header.

    Raises:
        DicomSeriesError: the file is absent, not DICOM Part 10, or does not parse.
    """
    if not is_file(path):
        raise DicomSeriesError("a file", "nothing of that name", path.name)
    return guarded(DicomSeriesError, "a DICOM file", path.name, lambda: _parse_header(path))


def _parse_header(path: Path) -> Header:
    with open_dicom(path) as file:
        dataset = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=[*TAGS, _PATIENT])
        # pydicom stops in front of the pixel data element and rewinds to its tag.
        offset = file.tell()
        more = file.read(1)
        seekable_in_file = not isinstance(file, BytesIO)
    syntax = str(dataset.file_meta.get("TransferSyntaxUID", "") or "")
    sop_class = str(element_value(dataset, "SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID") or "")
    offset_in_file = offset if more and seekable_in_file else None
    return Header(path, dataset, syntax, offset_in_file, _take_patient(dataset), sop_class)


def _take_patient(dataset: Dataset) -> str:
    """Take PatientID out of a dataset, as its bytes are stored, and return its hash."""
    if _PATIENT not in dataset:
        return ""
    value = dataset.get_item(_PATIENT).value
    del dataset[_PATIENT]
    stored = (value if isinstance(value, bytes) else str(value or "").encode()).strip(b" \0")
    return hashlib.sha256(_SALT + stored).hexdigest() if stored else ""


def open_dicom(path: Path) -> BinaryIO:
    """Open a DICOM file, unless it is deflated and would inflate beyond a gigabyte."""
    file = path.open("rb")
    head = file.read(4096)
    file.seek(0)
    if head[128:132] != b"DICM":
        file.close()
        raise DicomSeriesError('a DICOM Part 10 file ("DICM" at byte 128)', "another format", path.name)
    if str(DeflatedExplicitVRLittleEndian).encode() not in head:
        return file
    with file:
        meta = pydicom.filereader.read_file_meta_info(path)
        if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            # Preamble, "DICM", the group length element of 12 bytes, and the group.
            _check_inflated_size(path, 144 + int(meta.FileMetaInformationGroupLength))
        return BytesIO(path.read_bytes())


def _check_inflated_size(path: Path, start: int) -> None:
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    data, size = path.read_bytes()[start:], 0
    while data and not inflate.eof:
        size += len(inflate.decompress(data, 2**20))
        data = inflate.unconsumed_tail
        if size > _MAX_INFLATED:
            raise DicomSeriesError(f"at most {_MAX_INFLATED} bytes after inflation", "more", path.name)
