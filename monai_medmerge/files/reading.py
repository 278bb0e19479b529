"""Read JSON that others wrote: bounded in size, depth and numbers, each name once, no file's content in an error."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, NoReturn

from monai_medmerge.errors import MedMergeError, SettingError
from monai_medmerge.files.naming import shown

LARGEST = 2**28
"""Bytes of a file."""
DEEPEST = 64
"""Objects and lists within one another."""
_LONGEST_NUMBER = 32


def read_json(path: str | os.PathLike[str], error: type[MedMergeError] = SettingError, constants: bool = False) -> Any:
    """The content of a JSON file.

    Args:
        path: the file, in UTF-8.
        error: class of the error.
        constants: take NaN and Infinity, which JSON has not but Python writes.

    Raises:
        MedMergeError: of the class given: the file is absent, too large, no JSON, nested too deep, names an entry
            twice, or holds a number that no float can.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.json").write_text('{"a": 1, "a": 2}')
        ...     read_json(Path(folder, "a.json"))
        Traceback (most recent call last):
        monai_medmerge.errors.SettingError: a.json: expected every entry once, found 'a' twice
    """
    file, name = Path(path), shown(Path(path).name)
    try:
        size = file.stat().st_size if file.is_file() else None
        if size is None:
            raise error("a JSON file", "a folder" if file.is_dir() else "none of that name", name)
        if size > LARGEST:
            raise error(f"a JSON file of at most {LARGEST} bytes", f"{size}", name)
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        raise error("JSON text in UTF-8", f"another byte at {cause.start}", name) from cause
    except (OSError, ValueError) as cause:
        if isinstance(cause, MedMergeError):
            raise
        raise error("a JSON file", getattr(cause, "strerror", None) or type(cause).__name__, name) from cause
    return parse_json(text, name, error, constants)


def parse_json(
    text: str | bytes, where: str, error: type[MedMergeError] = SettingError, constants: bool = False
) -> Any:
    """What a JSON text says; arguments and errors as of `read_json`.

    Args:
        text: in UTF-8.
        where: what it is from, for errors.
        error: class of the error.
        constants: take NaN and Infinity.

    Raises:
        MedMergeError: of the class given.

    Example:
        >>> parse_json("[1, 2.5]", "request")
        [1, 2.5]
    """
    hooks: dict[str, Any] = {
        "object_pairs_hook": lambda pairs: _each_once(pairs, where, error),
        "parse_int": lambda digits: _number(digits, int, where, error),
        "parse_float": lambda digits: _number(digits, float, where, error),
    }
    if not constants:
        hooks["parse_constant"] = lambda name: _no_number(name, where, error)
    try:
        content = json.loads(text, **hooks)
    except RecursionError as cause:
        raise error(f"JSON of at most {DEEPEST} levels", "more", where) from cause
    except MedMergeError:
        raise
    except ValueError as cause:  # broken JSON and broken UTF-8
        found = f"{cause.msg} in line {cause.lineno}" if isinstance(cause, json.JSONDecodeError) else "other bytes"
        raise error("JSON text", found, where) from cause
    level = [content] if isinstance(content, dict | list) else []
    for _ in range(DEEPEST):
        inside = [value.values() if isinstance(value, dict) else value for value in level]
        level = [value for values in inside for value in values if isinstance(value, dict | list)]
        if not level:
            return content
    raise error(f"JSON of at most {DEEPEST} levels", "more", where)


def _each_once(pairs: list[tuple[str, Any]], where: str, error: type[MedMergeError]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for n, name in enumerate(names) if name in names[:n])
        raise error("every entry once", f"{shown(twice)!r} twice", where)
    return found


def _number(digits: str, kind: type[int] | type[float], where: str, error: type[MedMergeError]) -> int | float:
    # Python's own limit on digits is higher, and other libraries fail on what no float can hold.
    if kind is int and len(digits) > _LONGEST_NUMBER:
        raise error("numbers of usual size", f"one of {len(digits)} digits", where)
    value = kind(digits)
    if not math.isfinite(value):
        raise error("numbers of usual size", shown(digits, 16), where)
    return value


def _no_number(name: str, where: str, error: type[MedMergeError]) -> NoReturn:
    raise error("finite numbers", name, where)
