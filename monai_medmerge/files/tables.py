"""Write CSV in which text is text: no cell is a formula, none is broken, none forges a line."""

from __future__ import annotations

import csv
import io
import math
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from monai_medmerge.files.naming import shown
from monai_medmerge.files.writing import write_text

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?", re.ASCII)


def cell(value: Any) -> Any:
    r"""A value as a cell of a table may hold it.

    Spreadsheets run text that begins like a formula (OWASP, CSV injection): a quotation mark goes before it. Control
    characters, and the bytes of names that are not UTF-8, are escaped. Numbers stay.

    Args:
        value: text, a number or None; NaN becomes an empty cell.

    Example:
        >>> cell("=HYPERLINK(1)"), cell("-3.5"), cell("a\nb.png"), cell(float("nan"))
        ("'=HYPERLINK(1)", '-3.5', 'a\\nb.png', '')
    """
    if isinstance(value, float) and math.isnan(value):
        return ""
    if not isinstance(value, str):
        return value
    # Full-width signs are signs to some spreadsheets, and blanks before them are passed over.
    first = unicodedata.normalize("NFKC", value.lstrip(" ")[:1])
    formula = value.startswith(_FORMULA) or first in _FORMULA
    text = shown(value, longest=max(80, 8 * len(value)))
    return f"'{text}" if formula and not _NUMBER.fullmatch(value) else text


def csv_text(columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    r"""A table as text.

    Args:
        columns: their names.
        rows: a cell for each column.

    Example:
        >>> csv_text(["file", "score"], [["@a.png", 0.5]])
        "file,score\r\n'@a.png,0.5\r\n"
    """
    target = io.StringIO(newline="")
    csv.writer(target).writerows([cell(value) for value in row] for row in (columns, *rows))
    return target.getvalue()


def write_csv(path: str | os.PathLike[str], columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a table, whole or not at all.

    Args:
        path: the file.
        columns: their names.
        rows: a cell for each column.

    Raises:
        OutputError: it cannot be written.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     write_csv(Path(folder, "a.csv"), ["x"], [[1], ["=1"]])
        ...     Path(folder, "a.csv").read_text().split()
        ['x', '1', "'=1"]
    """
    write_text(path, csv_text(columns, rows))
