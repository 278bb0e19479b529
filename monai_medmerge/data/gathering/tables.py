"""Images listed in a CSV or a spreadsheet, and the arrays of a MedMNIST file."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from monai.utils import optional_import
from PIL import Image

from monai_medmerge.data.gathering.items import VOLUMES, Item, part_named, suffix_of
from monai_medmerge.errors import DatasetError, SettingError
from monai_medmerge.files import below, shown

COLUMNS = {
    "image": ("image", "file", "filename", "file_name", "path", "image_path", "img", "volume"),
    "label": ("label", "class", "diagnosis", "target", "finding", "category", "mask", "segmentation"),
    "patient": ("patient", "patient_id", "patientid", "subject", "subject_id", "case_id"),
    "part": ("part", "split", "set", "subset", "section"),
}
MOST_BYTES = 2**28


def read_table(
    path: Path, images: Path | None = None, columns: Mapping[str, str] | None = None
) -> tuple[list[Item], dict[str, str]]:
    """The images of a table, and which column was taken for what.

    Args:
        path: CSV with comma, semicolon or tab, or a spreadsheet (`.xlsx`, with openpyxl).
        images: folder that the paths in it begin at; by default the table's own.
        columns: `image`, `label`, `patient` and `part` to the names of columns; others are found by their usual names.

    Returns:
        Items, and what each of the four was read from. An empty label is none.

    Raises:
        DatasetError: the table has no such columns or rows, or a path that is absent or leads out of the folder.
        SettingError: a named column is not there.
    """
    rows = _spreadsheet(path) if path.suffix.lower() == ".xlsx" else _csv(path)
    if not rows:
        raise DatasetError("a row of names and one for each image", "nothing", shown(path.name))
    chosen = _chosen(list(rows[0]), dict(columns or {}), path)
    root = (images or path.parent).absolute()
    return [_item(row, chosen, root, f"{shown(path.name)}, row {n}") for n, row in enumerate(rows, 2)], chosen


def _csv(path: Path) -> list[dict[str, str]]:
    if not path.is_file() or path.stat().st_size > MOST_BYTES:
        raise DatasetError(f"a table of at most {MOST_BYTES} bytes", "none or a larger one", shown(path.name))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError("text in UTF-8", "another encoding", shown(path.name)) from error
    first = text.split("\n", 1)[0]
    mark = max(",;\t", key=first.count)
    return [{k: v or "" for k, v in row.items() if k} for row in csv.DictReader(text.splitlines(), delimiter=mark)]


def _spreadsheet(path: Path) -> list[dict[str, str]]:
    openpyxl, there = optional_import("openpyxl")
    if not there:
        raise SettingError("openpyxl, for spreadsheets (or a CSV)", "none installed", shown(path.name))
    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    lines = [["" if cell is None else str(cell) for cell in row] for row in book.active.iter_rows(values_only=True)]
    return [dict(zip(lines[0], line, strict=False)) for line in lines[1:]] if lines else []


def _chosen(there: list[str], named: dict[str, str], path: Path) -> dict[str, str]:
    for use, name in named.items():
        if name not in there:
            raise SettingError(f"a column among {', '.join(map(shown, there))}", shown(name), f"--{use}-column")
    for use, usual in COLUMNS.items():
        if use in named:
            continue
        fits = [name for name in there if name.strip().lower() in usual]
        if len(fits) > 1:
            raise DatasetError(f"--{use}-column", f"several: {', '.join(map(shown, fits))}", shown(path.name))
        if fits:
            named[use] = fits[0]
    if "image" not in named:
        expected = f"a column named one of {', '.join(COLUMNS['image'])}, or --image-column"
        raise DatasetError(expected, ", ".join(map(shown, there)), shown(path.name))
    return named


def _item(row: Mapping[str, str], chosen: Mapping[str, str], root: Path, where: str) -> Item:
    values = {use: row.get(name, "").strip() for use, name in chosen.items()}
    image = _path(values["image"], root, where)
    label: str | Path | None = values.get("label") or None
    if label and str(label).lower().endswith(VOLUMES):
        label = _path(str(label), root, where)
    part = values.get("part") or None
    if part and part_named(part) is None:
        raise DatasetError("training, validation, test or unlabelled", shown(part), f"{where}, {chosen['part']}")
    return Item(
        image, label, values.get("patient") or None, "unlabelled" if label is None else part and part_named(part)
    )


def _path(text: str, root: Path, where: str) -> Path:
    name = Path(text)
    relative = str(name.relative_to(root)) if name.is_absolute() and name.is_relative_to(root) else text
    path = below(root, relative, where)
    if not path.exists() or not suffix_of(path):
        raise DatasetError("an image (PNG, JPEG, TIFF, BMP, NIfTI, DICOM, a folder with a series)", "none", where)
    return path


def read_arrays(path: Path, names: list[str], folder: Path) -> list[Item]:
    """The images of an `.npz` as MedMNIST has them (`train_images`, `train_labels`, ...), written as PNG.

    Args:
        path: the file.
        names: one name a class, in the order of its numbers.
        folder: the images are written below it.

    Raises:
        DatasetError: it holds other arrays, or numbers without a name.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError) as error:
        raise DatasetError("an .npz of plain arrays", "another or a damaged file", shown(path.name)) from error
    found = []
    for word, part in (("train", "training"), ("val", "validation"), ("test", "test")):
        images, labels = arrays.get(f"{word}_images"), arrays.get(f"{word}_labels")
        if images is None or labels is None:
            continue
        numbers = labels.reshape(len(labels), -1)
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or len(images) != len(labels) or numbers.shape[1] != 1:
            raise DatasetError("uint8 images and one class number each", "other arrays", f"{shown(path.name)}, {word}")
        if numbers.min() < 0 or numbers.max() >= len(names):
            raise DatasetError(f"--class-names for {int(numbers.max()) + 1} classes", f"{len(names)}", shown(path.name))
        (folder / word).mkdir(parents=True)
        for n, (image, number) in enumerate(zip(images, numbers[:, 0], strict=True)):
            target = folder / word / f"{n:05d}.png"
            Image.fromarray(image).save(target)
            found.append(Item(target, names[int(number)], None, part))
    if not found:
        raise DatasetError("arrays train_images and train_labels", ", ".join(map(shown, arrays)), shown(path.name))
    return found
