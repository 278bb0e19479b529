"""Names that come from outside, and the paths they may lead to."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path, PurePosixPath, PureWindowsPath

from monai_medmerge.errors import MedMergeError, SettingError

LONGEST_NAME = 255
LONGEST_PATH = 4095
"""Bytes, as Linux and most file systems have it."""
# Control characters, line and paragraph separators, halves of characters: they forge lines or cannot be written at all.
_BAD = ("Cc", "Zl", "Zp", "Cs")


def below(
    folder: str | os.PathLike[str],
    name: str | os.PathLike[str],
    where: str = "name",
    error: type[MedMergeError] = SettingError,
    links: bool = False,
) -> Path:
    """The path of a name below a folder, if it is there that the name leads.

    Args:
        folder: that must not be left.
        name: of a file or folder, which need not exist, with `/` between the parts.
        where: what is at fault otherwise, for the error.
        error: class of the error.
        links: follow symbolic links that lead out; for folders that their user fills, and no client.

    Returns:
        Folder and name, joined, as they were given.

    Raises:
        MedMergeError: of the class given: the name is none, absolute, too long, with `..` or a control character, or
            leads out by a symbolic link. The name is not repeated, as it may be a patient's.

    Example:
        >>> below("data", "a/1.png").as_posix()
        'data/a/1.png'
        >>> below("data", "../1.png", "image")
        Traceback (most recent call last):
        monai_medmerge.errors.SettingError: image: expected a name that stays below its folder, found `..` in it
    """
    text = os.fspath(name)
    found = _fault(text, Path(folder), links) if isinstance(text, str) else f"a {type(text).__name__}"
    if found:
        raise error("a name that stays below its folder", found, where)
    return Path(folder, text)


def _fault(name: str, folder: Path, links: bool) -> str | None:
    """What is wrong with a name, in words; None if it is fine."""
    if any(unicodedata.category(character) in _BAD for character in name):
        return "a control character in it"
    windows = PureWindowsPath(name)
    if PurePosixPath(name).is_absolute() or windows.drive or windows.root:
        return "an absolute path"
    # A backslash divides names for some systems only, and must lead nowhere on any.
    if ".." in PurePosixPath(name).parts or ".." in windows.parts:
        return "`..` in it"
    if not PurePosixPath(name).parts:
        return "none"
    longest = max(len(os.fsencode(part)) for part in PurePosixPath(name).parts)
    if longest > LONGEST_NAME or len(os.fsencode(folder / name)) > LONGEST_PATH:
        return f"one of {len(os.fsencode(name))} bytes"
    if links:
        return None
    try:
        inside = (folder / name).resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # Links in a circle.
        inside = False
    return None if inside else "a link that leaves it"


def shown(name: str, longest: int = 80) -> str:
    r"""A name as messages may show it: on one line, and no longer than a line.

    Args:
        name: any text.
        longest: characters.

    Example:
        >>> shown("a\nb.txt"), shown("x" * 300, 8)
        ('a\\nb.txt', 'xxxxx...')
    """
    text = "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in _BAD else character
        for character in name
    )
    return text if len(text) <= longest else text[: longest - 3] + "..."
