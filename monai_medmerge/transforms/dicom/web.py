"""A series of a DICOMweb server (PS3.18), fetched once into a folder that the readers take."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from monai.utils import optional_import

from monai_medmerge.errors import DicomSeriesError, SettingError
from monai_medmerge.files import whole_folder
from monai_medmerge.transforms.dicom.names import hash_uid
from monai_medmerge.transforms.foreign import guarded, is_folder, quiet

dicomweb_client, has_client = optional_import("dicomweb_client")

T = TypeVar("T")

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_MOST_FILES = 2**17
# As the server has them, rather than decoded by it.
_AS_STORED = (("application/dicom", "*"),)


def fetch_series(
    url: str, study_uid: str, series_uid: str, cache: str | Path, session: Any = None, max_bytes: int = 2**32
) -> Path:
    """Fetch a series over DICOMweb into a folder of the cache, unless it is there.

    Every instance that the server lists (QIDO-RS) must come (WADO-RS), as it is stored there. The folder is there whole
    or not at all, so that one that was begun and lost is fetched anew.

    Args:
        url: of the service, `https://host/dicom-web`.
        study_uid: StudyInstanceUID.
        series_uid: SeriesInstanceUID.
        cache: the folder that holds a folder for each series; its name says nothing of the series.
        session: a `requests.Session` with whatever log-in the server wants, None for none.
        max_bytes: the most that the files may take.

    Returns:
        The series' folder, for `DicomSeriesReader`.

    Raises:
        SettingError: dicomweb-client is not installed, or the URL or a UID is none.
        DicomSeriesError: the server cannot be reached, refuses, has no such series, sends another, less or too much.
    """
    if not has_client:
        raise SettingError("dicomweb-client, pip install monai_medmerge[web]", "no such package", "fetch_series")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise SettingError("an http or https URL without a log-in in it", "another", "url")
    for name, uid in (("study_uid", study_uid), ("series_uid", series_uid)):
        if not _UID.fullmatch(uid) or len(uid) > 64:
            raise SettingError("a UID of digits and points", "another", name)
    key = hashlib.sha256("|".join((url, study_uid, series_uid)).encode()).hexdigest()[:20]
    folder = Path(cache) / key
    if is_folder(folder) and any(folder.iterdir()):
        return folder
    with quiet():
        client = dicomweb_client.DICOMwebClient(url, session=session)
        # Whoever asks may ask again; waiting for half a minute in silence helps nobody.
        client.set_http_retry_params(retry=False)
        with whole_folder(folder) as part:
            where = f"series {hash_uid(series_uid)}"
            guarded(
                DicomSeriesError,
                "a series over DICOMweb",
                where,
                lambda: _fetch(client, study_uid, series_uid, part, max_bytes, where),
            )
    return folder


def _fetch(client: Any, study_uid: str, series_uid: str, folder: Path, max_bytes: int, where: str) -> None:
    wanted = _listed(client, study_uid, series_uid, where)
    if not 0 < len(wanted) <= _MOST_FILES:
        raise DicomSeriesError(f"1 to {_MOST_FILES} instances on the server", str(len(wanted)), where)
    found = _answered(lambda: client.iter_series(study_uid, series_uid, media_types=_AS_STORED), where)
    room = max_bytes
    while (dataset := _answered(lambda: next(found, None), where)) is not None:
        if dataset.get("SeriesInstanceUID") != series_uid or dataset.get("SOPInstanceUID") not in wanted:
            raise DicomSeriesError("instances of the series", "another, or one twice", where)
        wanted.remove(dataset.SOPInstanceUID)
        path = folder / f"{len(wanted):06d}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        room -= path.stat().st_size
        if room < 0:
            raise DicomSeriesError(f"at most {max_bytes} bytes (max_bytes)", "more", where)
    if wanted:
        raise DicomSeriesError("every instance that the server lists", f"{len(wanted)} that did not come", where)


def _listed(client: Any, study_uid: str, series_uid: str, where: str) -> set[str]:
    """Return the SOPInstanceUIDs of a series, page by page, until one has no new ones."""
    found: set[str] = set()
    while len(found) <= _MOST_FILES:
        search = partial(client.search_for_instances, study_uid, series_uid, offset=len(found) or None)
        page = {str(item["00080018"]["Value"][0]) for item in _answered(search, where)}
        if page <= found:
            break
        found |= page
    return found


def _answered(ask: Callable[[], T], where: str) -> T:
    """Return what a server answers, and say its refusal without the address, which has UIDs in it."""
    try:
        return ask()
    except OSError as error:
        # All errors of requests are of this class.
        status = getattr(getattr(error, "response", None), "status_code", None)
        kind = type(error).__name__
    raise DicomSeriesError("an answer of the DICOMweb server", f"status {status}" if status else kind, where)
