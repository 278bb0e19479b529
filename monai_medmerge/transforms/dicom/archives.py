"""Studies as they are handed over: a DICOMDIR of a medium, and a zip file.

A zip is unpacked into a temporary folder that only this user can read, under names of its own, and removed once the
series is read.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

import pydicom
from pydicom.dataset import Dataset

from monai_medmerge.errors import DicomSeriesError
from monai_medmerge.files.naming import below
from monai_medmerge.transforms.foreign import guarded, is_file, is_folder

# Suffixes that claim a DICOM file.
DICOM_SUFFIXES = (".dcm", ".ima", ".dicom")
_MOST_FILES = 2**17
_CHUNK = 2**20
_LONGEST_NAME = 100


def is_zip(path: Path) -> bool:
    """Whether a file is a zip file, by its first bytes."""
    if not is_file(path):
        return False
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def is_dicomdir(path: Path) -> bool:
    """Whether a file is the directory of a medium, by the name that it must have (PS3.10 8.6)."""
    return path.name.upper() == "DICOMDIR" and is_file(path)


def is_one_image(path: Path) -> bool:
    """Whether a path is that of one file, and not of what holds several."""
    return not (is_folder(path) or is_dicomdir(path) or is_zip(path))


def list_directory(path: Path) -> list[Path]:
    """Return the images that a DICOMDIR names (PS3.3 F.3), which lie below its folder.

    Args:
        path: the DICOMDIR.

    Raises:
        DicomSeriesError: it is damaged, a file leads out of the folder, or one is absent.
    """
    where = path.name
    names = guarded(DicomSeriesError, "a media directory", where, lambda: _referenced(path))
    found = [_find(path.parent, name, where) for name in names]
    if absent := found.count(None):
        raise DicomSeriesError(f"{len(found)} files that it names", f"{absent} of them absent", where)
    return sorted(file for file in found if file is not None)


def _referenced(path: Path) -> list[str]:
    records = pydicom.dcmread(path, specific_tags=["DirectoryRecordSequence"]).get("DirectoryRecordSequence") or []
    # Several records may be of one file.
    return list(dict.fromkeys(_file_id(record) for record in records if record.get("DirectoryRecordType") == "IMAGE"))


def _file_id(record: Dataset) -> str:
    parts = record.ReferencedFileID
    return "/".join([parts] if isinstance(parts, str) else map(str, parts))


def _find(folder: Path, name: str, where: str) -> Path | None:
    # Names are in capitals on the medium; copies of it often are not.
    candidates = [below(folder, word, f"{where}, ReferencedFileID", DicomSeriesError) for word in (name, name.lower())]
    return next((file for file in candidates if is_file(file)), None)


@contextmanager
def unzipped(paths: Sequence[Path], max_bytes: int) -> Iterator[list[Path]]:
    """Yield paths with folders in place of zip files, which hold the DICOM files of these and are removed at the end.

    Args:
        paths: files and folders.
        max_bytes: the most that the files of a zip may take unpacked.

    Raises:
        DicomSeriesError: a zip is damaged, encrypted, holds too many files, too much, or no DICOM file.
    """
    if not any(is_zip(path) for path in paths):
        yield list(paths)
        return
    with tempfile.TemporaryDirectory(prefix="medmerge-") as folder:
        found: list[Path] = []
        for number, path in enumerate(paths):
            if is_zip(path):
                found += _unzip(path, Path(folder, str(number)), max_bytes)
            else:
                found.append(path)
        yield found


def _unzip(path: Path, folder: Path, max_bytes: int) -> list[Path]:
    """Unpack the DICOM files of a zip, and return the folders that they are in, one for each of the zip's."""
    where = path.name
    folders: dict[str, Path] = {}

    def unpack() -> None:
        room = max_bytes
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            if len(members) > _MOST_FILES:
                raise DicomSeriesError(f"a zip of at most {_MOST_FILES} files", str(len(members)), where)
            if any(member.flag_bits & 1 for member in members):
                raise DicomSeriesError("a zip that is not encrypted", "an encrypted one", where)
            for number, member in enumerate(members):
                name = PurePosixPath(member.filename.replace("\\", "/"))
                with archive.open(member) as stream:
                    head = stream.read(132)
                    if head[128:] != b"DICM" and name.suffix.lower() not in DICOM_SUFFIXES:
                        continue
                    inside = folders.setdefault(str(name.parent), folder / str(len(folders)))
                    inside.mkdir(parents=True, exist_ok=True)
                    room -= _copy(head, stream, inside / _plain_name(name, number), room)
                if room < 0:
                    raise DicomSeriesError(f"at most {max_bytes} bytes unpacked (max_bytes)", "more", where)

    guarded(DicomSeriesError, "an intact zip file", where, unpack)
    if not folders:
        raise DicomSeriesError("a zip with DICOM files", "none in it", where)
    return list(folders.values())


def _plain_name(name: PurePosixPath, number: int) -> str:
    plain = name.name.isprintable() and name.name.isascii() and len(name.name) <= _LONGEST_NAME
    # A directory of the medium would name what it had, not what is here.
    return name.name if plain and name.name.upper() != "DICOMDIR" else f"{number:06d}{name.suffix.lower()[:6]}"


def _copy(head: bytes, stream: IO[bytes], target: Path, room: int) -> int:
    """Write a file, and return its length, which passes `room` by a chunk at most."""
    with target.open("xb") as file:
        size = file.write(head)
        while size <= room and (chunk := stream.read(_CHUNK)):
            size += file.write(chunk)
    return size
