"""Files that clients send: images and labels by their content, not by what they are called."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

import nibabel as nib
from PIL import Image

from monai_medmerge.errors import DatasetError
from monai_medmerge.label.door.checks import check_name, checked_object, read_json
from monai_medmerge.sources import Source
from monai_medmerge.transforms.dicom.headers import read_header
from monai_medmerge.transforms.foreign import guarded

Content = Literal["image", "label", "weights"]
Check = Callable[[BinaryIO, Content], None]
NIFTI_HEADER = 540
NRRD_HEADER = 65_536
LARGEST_JSON = 1_000_000
PICTURES = ("PNG", "JPEG", "TIFF", "BMP")


def check_upload(file: BinaryIO, name: str, content: Content) -> None:
    """See whether a file is what its ending says: an image, a label, or weights.

    Args:
        file: opened; it is at its start afterwards.
        name: that the client gave it.
        content: an image, or a label, which may be JSON too, or weights.

    Raises:
        SettingError: the name leads elsewhere.
        DatasetError: the file is none, or its header cannot be read.
        UnsafeCheckpointError: it is no plain weights.
    """
    check_name(name, f"the {content}'s file name")
    lower = name.lower()
    offered: dict[str, Check] = {".pt": _check_weights} if content == "weights" else dict(IMAGES)
    if content == "label":
        offered[".json"] = _check_json
    ending = next((ending for ending in offered if lower.endswith(ending)), None)
    if ending is None:
        raise DatasetError(f"a file that ends in {', '.join(offered)}", "another", content)
    file.seek(0)
    guarded(DatasetError, f"a {content} that can be read", content, lambda: offered[ending](file, content))
    file.seek(0)


def _check_nifti(file: BinaryIO, content: Content) -> None:
    zipped = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    head = gzip.GzipFile(fileobj=file, mode="rb").read(NIFTI_HEADER) if zipped else file.read(NIFTI_HEADER)
    two = head[4:7] == b"n+2"
    if not two and head[344:347] != b"n+1":
        raise DatasetError("NIfTI", "another format", content)
    header = (nib.Nifti2Header if two else nib.Nifti1Header).from_fileobj(io.BytesIO(head), check=True)
    if not header.get_data_shape() or min(header.get_data_shape()) < 1:
        raise DatasetError("NIfTI with voxels", "none", content)


def _check_dicom(file: BinaryIO, content: Content) -> None:
    if file.read(132)[128:] != b"DICM":
        raise DatasetError("DICOM", "another format", content)
    file.seek(0)
    with _copied(file, "upload.dcm") as copy:
        header = read_header(copy)
    if not header.sop_class:
        raise DatasetError("DICOM of a known class", "none", content)


@contextmanager
def _copied(file: BinaryIO, name: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, name)
        with copy.open("wb") as target:
            shutil.copyfileobj(file, target)
        yield copy


def _check_weights(file: BinaryIO, content: Content) -> None:
    with _copied(file, "upload.pt") as copy:
        Source.from_file(copy)


def _check_picture(file: BinaryIO, content: Content) -> None:
    with Image.open(file, formats=PICTURES) as picture:
        if min(picture.size) < 1:
            raise DatasetError("a picture with pixels", "none", content)


def _check_nrrd(file: BinaryIO, content: Content) -> None:
    head = file.read(NRRD_HEADER)
    if not head.startswith(b"NRRD000"):
        raise DatasetError("NRRD", "another format", content)
    lines = head.split(b"\n\n", 1)[0].replace(b"\r", b"").split(b"\n")
    fields = {line.split(b":", 1)[0].strip().lower() for line in lines if b":" in line}
    if fields & {b"data file", b"datafile"}:
        # It would have the reader open any file of the server.
        raise DatasetError("NRRD with its voxels in it", "one that names another file", content)
    if not {b"type", b"sizes", b"encoding"} <= fields:
        raise DatasetError("NRRD with type, sizes and encoding", "a damaged header", content)


def _check_json(file: BinaryIO, content: Content) -> None:
    text = file.read(LARGEST_JSON + 1)
    if len(text) > LARGEST_JSON:
        raise DatasetError("JSON of up to a megabyte", "more", content)
    label: Any = read_json(text, content)
    if not isinstance(label, dict):
        raise DatasetError("a JSON object", json.dumps(label)[:40], content)
    checked_object(label, content)


IMAGES: dict[str, Check] = {
    ".nii.gz": _check_nifti,
    ".nii": _check_nifti,
    ".dcm": _check_dicom,
    ".png": _check_picture,
    ".jpg": _check_picture,
    ".jpeg": _check_picture,
    ".tif": _check_picture,
    ".tiff": _check_picture,
    ".bmp": _check_picture,
    ".nrrd": _check_nrrd,
}
