"""Which files make up a series, and which one of several is meant."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from monai_medmerge.errors import DicomSeriesError
from monai_medmerge.transforms.dicom.archives import is_one_image, unzipped
from monai_medmerge.transforms.dicom.arrangement import count_volumes
from monai_medmerge.transforms.dicom.folders import has_image, is_passed_over, list_files, require_image
from monai_medmerge.transforms.dicom.headers import Header, read_header
from monai_medmerge.transforms.dicom.names import code, hash_uid
from monai_medmerge.transforms.foreign import quiet

_MAX_UNZIPPED = 2**32


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

    @property
    def volumes(self) -> str:
        """How many volumes there are and what tells them apart, "8 volumes by TriggerTime"; empty for a single one."""
        with quiet():
            return count_volumes(self.headers)

    def __str__(self) -> str:
        first = self.headers[0]
        size = f"{first.integer('Columns', 0)}x{first.integer('Rows', 0)}"
        files = f"{len(self.headers)} file{'s' if len(self.headers) > 1 else ''}"
        volumes = f", {self.volumes}" if self.volumes else ""
        return f"{self.digest} ({self.modality or 'no modality'}, {files}, {size}{volumes})"

    def __repr__(self) -> str:
        # A list of series is printed to choose from: not every header, nor UIDs.
        return f"<Series {self}>"


def list_series(paths: Sequence[str | Path] | str | Path) -> list[Series]:
    """Return the image series in files and folders, in the order in which their first files come.

    Args:
        paths: a file, a folder (without its subfolders), a DICOMDIR, a zip file, or several of them.

    Raises:
        DicomSeriesError: a named file is no image, or no image is left.
    """
    named = [paths] if isinstance(paths, (str, Path)) else list(paths)
    with quiet(), unzipped([Path(path) for path in named], _MAX_UNZIPPED) as found:
        return list_unzipped(found)


def list_unzipped(paths: Sequence[Path]) -> list[Series]:
    """Return the image series in files, folders and media directories.

    Args:
        paths: as of `list_series`, but zip files.

    Raises:
        DicomSeriesError: as of `list_series`.
    """
    explicit = {path for path in paths if is_one_image(path)}
    return group_series((read_header(file) for file in list_files(paths)), explicit)


def group_series(headers: Iterable[Header], explicit: set[Path]) -> list[Series]:
    """Group headers by series; what is no image is left out, or refused if it is among `explicit`.

    A damaged image stays in its series, which `choose_series` refuses if it is the one that is meant.
    """
    groups: dict[str, list[Header]] = {}
    skipped: list[Header] = []
    for header in headers:
        if header.path in explicit:
            require_image(header)
        elif is_passed_over(header):
            skipped.append(header)
            continue
        groups.setdefault(header.text("SeriesInstanceUID"), []).append(header)
    if not groups:
        raise DicomSeriesError("an image series", "no image object", skipped[0].where if skipped else "")
    series = [Series(uid, tuple(group)) for uid, group in groups.items()]
    if not any(has_image(header) for one in series for header in one.headers):
        require_image(series[0].headers[0])
    return series


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
        for header in fitting[0].headers:
            require_image(header)
        return fitting[0]
    listed = "; ".join(map(str, fitting or series))
    if fitting:
        found = f"{len(fitting)}, choose by series_uid, description or modality: {listed}"
        raise DicomSeriesError("one series", found, fitting[0].headers[0].where)
    raise DicomSeriesError("a series that fits the choice", f"none among {listed}", series[0].headers[0].where)
