"""Folders of the machine and names of images, kept out of answers and logs."""

from __future__ import annotations

import logging
import re
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

# What MONAI Label says below an error repeats whole requests, with names and paths of images.
CHATTER = re.compile(r"\[(?:DEBUG|INFO|WARNING)\] \(monailabel\.")


class Hider:
    """Shortens absolute paths in texts to what follows a folder.

    Args:
        folders: that are not to be told, beside those of Python, of the user and for temporary files.

    Example:
        >>> Hider(["/data/studies"])("Cannot read /data/studies/a.nii.gz")
        'Cannot read a.nii.gz'
    """

    def __init__(self, folders: Iterable[str] = ()) -> None:
        own = (sys.prefix, sys.base_prefix, tempfile.gettempdir(), str(Path.home()), str(Path(__file__).parents[2]))
        known = {form.rstrip("/") for name in (*folders, *own) for form in (name, str(Path(name).resolve()))}
        longest_first = sorted((name for name in known if len(name) > 1), key=len, reverse=True)
        self._pattern = re.compile("|".join(rf"(?<![\w.-]){re.escape(name)}(?:/|(?![\w.-]))" for name in longest_first))

    def __call__(self, text: str) -> str:
        """Shorten.

        Args:
            text: of an answer or a line of a log.
        """
        return self._pattern.sub("", text)


class Discreet(logging.Filter):
    """Lets through what a log may say: no absolute paths, and of MONAI Label errors only.

    Args:
        hider: of paths.
    """

    def __init__(self, hider: Hider) -> None:
        super().__init__()
        self.hider = hider

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is to be written; its message loses its paths."""
        if record.name.split(".")[0] == "monailabel" and record.levelno < logging.ERROR:
            return False
        message = record.getMessage()
        if CHATTER.search(message):
            return False
        if record.exc_info:
            message += "\n" + logging.Formatter().formatException(record.exc_info)
            record.exc_info = record.exc_text = None
        record.msg, record.args = self.hider(message), None
        return True


def make_discreet(hider: Hider) -> None:
    """Filter every handler that logging has now.

    Args:
        hider: of paths.
    """
    loggers = [logging.getLogger(), *map(logging.getLogger, logging.root.manager.loggerDict)]
    for handler in {handler for logger in loggers for handler in logger.handlers}:
        handler.addFilter(Discreet(hider))
