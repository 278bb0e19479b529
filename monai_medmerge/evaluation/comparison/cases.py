"""What a report calls a case: never by what may identify a patient, unless the user asks."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from monai_medmerge.errors import SettingError

# What reports call the scope of measures that are of no column; a column of such a name would be taken for it.
ALL, CLASS = "all cases", "class"
# A column with more values than this divides nothing, and may hold names or dates.
MOST_GROUPS = 20
# Years.
_AGES = ((0, 17), (18, 39), (40, 59), (60, 79))


@dataclass(frozen=True)
class Naming:
    """How cases are called in reports.

    By their number in the data, from 0. With a salt, a salted hash of the file's name is added, by which the site that
    keeps the salt finds the file; a hash without a secret would give names away to whoever guesses them.

    Args:
        key: entry of the batch with the images' file names; by default those that MONAI keeps with the image.
        salt: a secret of the site.
        plain: show base names as they are.

    Example:
        >>> batch = {"image": None, "file": ["/data/doe_john.png"]}
        >>> Naming(key="file").names(batch, 1, first=7)
        ['case 7']
        >>> Naming(key="file", salt="secret").names(batch, 1, first=7)
        ['case 7, 68439006aea7']
    """

    key: str | None = None
    salt: str = ""
    plain: bool = False

    def names(self, batch: Any, count: int, first: int) -> list[str]:
        """Names of the cases of one batch.

        Args:
            batch: a dictionary, or anything else, which knows no file names.
            count: how many cases it has.
            first: number of its first case.
        """
        numbers = [f"case {number}" for number in range(first, first + count)]
        files = self._files(batch)
        if len(files) != count or not (self.plain or self.salt):
            return numbers
        # Paths of either kind of system.
        bases = [PurePosixPath(PureWindowsPath(file).as_posix()).name for file in files]
        shown = bases if self.plain else [self._hash(base) for base in bases]
        return [f"{number}, {name}" for number, name in zip(numbers, shown, strict=True)]

    def _files(self, batch: Any) -> list[str]:
        if not isinstance(batch, Mapping):
            return []
        if self.key is not None:
            found = batch.get(self.key, ())
        else:
            found = getattr(batch.get("image"), "meta", {}).get("filename_or_obj", ())
        return [found] if isinstance(found, str) else [str(file) for file in found]

    def _hash(self, name: str) -> str:
        return hashlib.sha256(f"{self.salt}:{name}".encode()).hexdigest()[:12]


def read_columns(batch: Any, columns: Sequence[str], count: int) -> dict[str, list[str]]:
    """What the named columns say of the cases of one batch.

    Args:
        batch: a dictionary with an entry per column: one value per case.
        columns: their names.
        count: how many cases the batch has.

    Raises:
        SettingError: a column is absent or has not one value per case.

    Example:
        >>> read_columns({"site": ["north", "south"]}, ["site"], 2)
        {'site': ['north', 'south']}
    """
    found = {}
    for column in columns:
        given = batch.get(column) if isinstance(batch, Mapping) else None
        values = [given] if isinstance(given, str) else list(given) if given is not None else []
        if len(values) != count:
            raise SettingError(f"a value of column {column!r} for each of {count} cases", f"{len(values)}", "data")
        found[column] = [str(value.item() if hasattr(value, "item") else value) for value in values]
    return found


def age_groups(column: str, values: Sequence[str]) -> list[str]:
    """Ages in years as groups; columns of other names, or of what is no number, as they are.

    DICOM's form (0010,1010), such as 067Y, is read too.

    Args:
        column: its name.
        values: one per case.

    Example:
        >>> age_groups("age", ["067Y", "7", "41.5"]), age_groups("site", ["67"])
        (['60 to 79', '0 to 17', '40 to 59'], ['67'])
    """
    if "age" not in column.lower().replace("_", " ").split():
        return list(values)
    numbers = [re.fullmatch(r"0*(\d{1,3})(?:\.\d+)?\s*[Yy]?", value.strip()) for value in values]
    found = []
    for value, number in zip(values, numbers, strict=True):
        if number is None:
            return list(values)
        age = int(number[1])
        group = next((f"{low} to {high}" for low, high in _AGES if low <= age <= high), "80 and over")
        found.append(group if value else "")
    return found


def check_groups(columns: Mapping[str, Sequence[str]]) -> None:
    """Refuse columns that name cases and not groups.

    Args:
        columns: name to values.

    Raises:
        SettingError: a column has more than 20 different values, which are not shown, or a name that reports use for
            all cases or for classes.

    Example:
        >>> check_groups({"class": ["a", "b"]})
        Traceback (most recent call last):
        ...
        monai_medmerge.errors.SettingError: subgroups: expected columns of other names than all cases and class, ...
    """
    for column, values in columns.items():
        if column in (ALL, CLASS):
            raise SettingError(f"columns of other names than {ALL} and {CLASS}", repr(column), "subgroups")
        if len(set(values)) > MOST_GROUPS:
            raise SettingError(f"a column of at most {MOST_GROUPS} groups", f"{len(set(values))}", f"column {column!r}")
