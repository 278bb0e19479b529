"""A site's own cases: images and labels as `load_datalist` reads them, with the columns that divide them."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_medmerge.data.datasets import DATALIST, load_datalist, read_datalist
from monai_medmerge.data.volumes import load_volumes
from monai_medmerge.errors import DatasetError


def load_cases(
    site_data: str | os.PathLike[str],
    section: str,
    classes: int | None = None,
    columns: Sequence[str | None] = (),
    table: str | os.PathLike[str] | None = None,
    task: str = "classification",
) -> list[dict[str, Any]]:
    """The labelled cases of one section, each with its file's name and its value of every column, as text.

    Args:
        site_data: folder with a `dataset.json`.
        section: of the `dataset.json`.
        classes: how many the networks tell apart.
        columns: such as `site`, `scanner` or `sex`; None among them stands for a column that nobody asked for.
        table: CSV file with a column `image`, that names images as the `dataset.json` does, and the other columns. By
            default the columns are entries of the images in the `dataset.json`.
        task: as of `load_datalist`.

    Raises:
        DatasetError: as `load_datalist`, or an image has no value of a column. The image is told by its number.

    Example:
        >>> import json
        >>> from tempfile import TemporaryDirectory
        >>> from PIL import Image
        >>> with TemporaryDirectory() as folder:
        ...     Image.new("L", (4, 4)).save(Path(folder, "a.png"))
        ...     entry = {"image": "a.png", "label": 0, "site": "north"}
        ...     _ = Path(folder, DATALIST).write_text(json.dumps({"class_names": ["x", "y"], "test": [entry]}))
        ...     [{**case, "image": ""} for case in load_cases(folder, "test", columns=["site", None])]
        [{'image': '', 'label': 0, 'file': 'a.png', 'site': 'north'}]
    """
    items = load_datalist(site_data, section, classes, task)
    return [
        {**item, "file": entry["image"], **values}
        for item, entry, values in _with_columns(items, site_data, section, columns, table)
    ]


def load_volume_cases(
    site_data: str | os.PathLike[str],
    section: str,
    columns: Sequence[str | None] = (),
    table: str | os.PathLike[str] | None = None,
) -> list[dict[str, str]]:
    """The labelled volumes of one section, as `load_volumes` reads them, each with its value of every column.

    Args:
        site_data: as of `load_cases`, and so are the others.
        section: likewise.
        columns: likewise.
        table: likewise.

    Raises:
        DatasetError: as `load_volumes`, or a volume has no value of a column.
    """
    items = load_volumes(site_data, section)
    return [{**item, **values} for item, _, values in _with_columns(items, site_data, section, columns, table)]


def _with_columns(
    items: Sequence[Mapping[str, Any]],
    site_data: str | os.PathLike[str],
    section: str,
    columns: Sequence[str | None],
    table: str | os.PathLike[str] | None,
) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any], dict[str, str]]]:
    """Each item with its entry of the datalist and its value of every column."""
    entries = read_datalist(Path(site_data, DATALIST))[section]
    wanted = [column for column in columns if column]
    rows = {entry["image"]: entry for entry in entries} if table is None else _read_table(Path(table))
    where = DATALIST if table is None else Path(table).name
    for number, (item, entry) in enumerate(zip(items, entries, strict=True)):
        row = rows.get(entry["image"], {})
        for column in wanted:
            if row.get(column) in (None, ""):
                raise DatasetError(f"a value of column {column!r}", "none", f"{where}, image {number} of {section}")
        yield item, entry, {column: str(row[column]) for column in wanted}


def _read_table(path: Path) -> Mapping[str, Mapping[str, str]]:
    if not path.is_file():
        raise DatasetError("a CSV file", "none of that name", path.name)
    try:
        # Spreadsheets write a mark before the first name.
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError("a CSV file in UTF-8", type(error).__name__, path.name) from error
    if not rows or "image" not in rows[0]:
        raise DatasetError("a column 'image' and a row for every image", "none", path.name)
    found = {row["image"]: row for row in rows}
    if len(found) < len(rows):
        raise DatasetError("one row for every image", f"{len(rows) - len(found)} more", path.name)
    return found
