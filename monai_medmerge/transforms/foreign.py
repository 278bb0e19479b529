"""The border to the libraries that parse files, where their surprises become this package's errors.

pydicom, nibabel, Pillow and the codecs below them raise whatever a damaged file provokes, from `struct.error` to
`RecursionError`, and warn with the values that they stumbled over, which can be a patient's name. Everything that
touches the bytes of a file goes through `guarded` and happens inside `quiet`.
"""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

import pydicom.config

from monai_medmerge.errors import MedMergeError

T = TypeVar("T")

_LOGGERS = ("pydicom", "nibabel", "PIL", "highdicom", "dicomweb_client")
_lock = threading.Lock()
_calls_inside = 0
_restore = ExitStack()


def guarded(error: type[MedMergeError], expected: str, where: str, call: Callable[[], T]) -> T:
    """Run `call`, and turn anything unexpected that it raises into `error`.

    Only the name of the original exception is kept: its message and its traceback may quote the file.

    Args:
        error: the class to raise.
        expected: what the file should have been, in words.
        where: the file's base name, possibly with a tag.
        call: the work, a function without arguments.

    Raises:
        MedMergeError: an `error`, or what `call` raised if that is one of this package's errors already.

    Example:
        >>> from monai_medmerge.errors import NiftiError
        >>> guarded(NiftiError, "a number", "a.nii", lambda: int("Jane Doe"))
        Traceback (most recent call last):
        ...
        monai_medmerge.errors.NiftiError: a.nii: expected a number, found data that fails to parse (ValueError)
    """
    try:
        return call()
    except MedMergeError:
        raise
    # A parser fed with arbitrary bytes raises arbitrary exceptions; this is the one place that says so.
    except Exception as unexpected:  # noqa: BLE001
        kind = type(unexpected).__name__
    # Outside the handler, so that the original exception is not chained to the new one.
    raise error(expected, f"data that fails to parse ({kind})", where)


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file is there; False also for names that no file can have, for which pathlib raises."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether a folder is there; False also for names that none can have."""
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):
        return False


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the file libraries from warning and logging, as their messages quote values of the file.

    The filters of `warnings` belong to the process, so threads may overlap: the first to enter silences and the last
    to leave restores. Warnings of our own are given after leaving.
    """
    global _calls_inside
    with _lock:
        if _calls_inside == 0:
            _silence()
        _calls_inside += 1
    try:
        yield
    finally:
        with _lock:
            _calls_inside -= 1
            if _calls_inside == 0:
                _restore.close()


def _silence() -> None:
    """Silence warnings and the libraries' loggers until `_restore` is closed."""
    _restore.enter_context(warnings.catch_warnings())
    warnings.simplefilter("ignore")
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        _restore.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.CRITICAL + 1)
    settings = pydicom.config.settings
    _restore.callback(setattr, settings, "reading_validation_mode", settings.reading_validation_mode)
    settings.reading_validation_mode = pydicom.config.IGNORE
