"""Which files make up a series, and which one of several is meant."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from monai_medmerge.errors import DicomSeriesError
from monai_medmerge.transforms.dicom.headers import Header, list_files, read_header, require_image
from monai_medmerge.transforms.foreign import quiet

# UIDs of objects that share a series or a folder with images without being images to stack.
_NO_IMAGES = ("SEG", "SR", "PR", "KO", "RTSTRUCT", "RTPLAN", "RTRECORD", "REG", "DOC", "ECG")


@dataclass(frozen=True, repr=False)
class Series:
    """The headers of the files that share a SeriesInstanceUID.

    Args:
        uid: SeriesInstanceUID, (0020,000E). UIDs can embed dates: never put one in a message, use `digest`.
        headers: one of each file, in the order of their names.
    """

    uid: str
    headers: tuple[Header, ...]

    @property
    def digest(self) -> str:
        """Ten hexadecimal digits that name the series in messages, and that `series_uid` takes as well."""
        return hash_uid(self.uid)

    @property
    def description(self) -> str:
        """SeriesDescription, (0008,103E): free text, which may identify a patient and stays out of messages."""
        return self.headers[0].text("SeriesDescription")

    @property
    def modality(self) -> str:
        """Modality, (0008,0060)."""
        return code(self.headers[0].text("Modality"))

    def __str__(self) -> str:
        first = self.headers[0]
        size = f"{first.integer('Columns', 0)}x{first.integer('Rows', 0)}"
        files = f"{len(self.headers)} file{'s' if len(self.headers) > 1 else ''}"
        return f"{self.digest} ({self.modality or 'no modality'}, {files}, {size})"

    def __repr__(self) -> str:
        # A list of series is printed to choose from: not every header, nor UIDs.
        return f"<Series {self}>"


def hash_uid(uid: str, salt: str = "") -> str:
    """Return ten hexadecimal digits of a UID's salted SHA-256.

    Example:
        >>> hash_uid("1.2.3", salt="site A")
        '500e5ee497'
    """
    return hashlib.sha256(f"{salt}:{uid}".encode()).hexdigest()[:10]


def code(text: str) -> str:
    """Return a coded string as it is if it looks like a short code (DICOM's CS), else an empty string."""
    return text if re.fullmatch(r"[A-Z0-9_ ]{1,16}", text) else ""


def list_series(paths: Sequence[str | Path] | str | Path) -> list[Series]:
    """Return the image series in files and folders, in the order in which their first files come.

    Args:
        paths: a file, a folder (without its subfolders), or several of them.

    Raises:
        DicomSeriesError: a named file is no image, or no image is left.
    """
    named = [paths] if isinstance(paths, (str, Path)) else list(paths)
    with quiet():
        explicit = {Path(path) for path in named if not Path(path).is_dir()}
        return group_series((read_header(file) for file in list_files(named)), explicit)


def group_series(headers: Iterable[Header], explicit: set[Path]) -> list[Series]:
    """Group headers by series; those that are no images are left out, or refused if they are among `explicit`."""
    groups: dict[str, list[Header]] = {}
    skipped = ""
    for header in headers:
        if header.path not in explicit and header.text("Modality") in _NO_IMAGES:
            skipped = header.where
            continue
        require_image(header)
        groups.setdefault(header.text("SeriesInstanceUID"), []).append(header)
    if not groups:
        raise DicomSeriesError("an image series", "no image object", skipped)
    return [Series(uid, tuple(group)) for uid, group in groups.items()]


def choose_series(
    series: Sequence[Series], uid: str | None = None, description: str | None = None, modality: str | None = None
) -> Series:
    """Return the one series that fits all the given criteria.

    Args:
        series: the candidates.
        uid: a SeriesInstanceUID, or a digest as messages show it.
        description: a regular expression that SeriesDescription contains, whatever the case.
        modality: a Modality, such as "MR".

    Raises:
        DicomSeriesError: none fits, or several do; the message lists the candidates by digest, modality and size.
    """
    fitting = [
        one
        for one in series
        if (uid is None or uid in (one.uid, one.digest))
        and (description is None or re.search(description, one.description, re.IGNORECASE))
        and (modality is None or one.modality == modality.upper())
    ]
    if len(fitting) == 1:
        return fitting[0]
    listed = "; ".join(map(str, fitting or series))
    if fitting:
        found = f"{len(fitting)}, choose by series_uid, description or modality: {listed}"
        raise DicomSeriesError("one series", found, fitting[0].headers[0].where)
    raise DicomSeriesError("a series that fits the choice", f"none among {listed}", series[0].headers[0].where)
