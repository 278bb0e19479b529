"""The dataset folder: images by part under plain names, `dataset.json`, and the sheet of thumbnails."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_medmerge.data.classes import checked_names
from monai_medmerge.data.datasets import write_datalist
from monai_medmerge.data.gathering.items import PARTS, Item, suffix_of
from monai_medmerge.data.gathering.thumbnails import draw_sheet
from monai_medmerge.errors import DatasetError
from monai_medmerge.files import whole_folder

SHEET = "thumbnails.png"


def write_dataset(
    folder: str | os.PathLike[str],
    items: Sequence[Item],
    class_names: Sequence[str],
    about: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> None:
    """Write the folder, whole or not at all. Images keep their bytes, and lose names, which may name patients.

    Args:
        folder: to be made; absent or empty.
        items: each with a part; patients become numbers.
        class_names: in the order of their numbers; for label maps the background first.
        about: further entries of `dataset.json`.
        seed: of the thumbnails.

    Raises:
        DatasetError: an item's class has no name here, or some items have label maps and others classes.
        OutputError: the folder holds something already, or cannot be written to.
    """
    names = checked_names(class_names, "class names")
    if len({isinstance(item.label, Path) for item in items if item.label is not None}) > 1:
        raise DatasetError("classes or label maps", "both", "labels")
    patients = {name: n for n, name in enumerate(dict.fromkeys(item.patient for item in items if item.patient), 1)}
    with whole_folder(folder) as part:
        sections: dict[str, list[dict[str, Any]]] = {name: [] for name in PARTS}
        for item in items:
            section = str(item.part)
            entry: dict[str, Any] = {"image": _place(item.image, part, section, len(sections[section]), "")}
            if isinstance(item.label, Path):
                entry["label"] = _place(item.label, part, section, len(sections[section]), "_label")
            elif item.label is not None:
                if item.label not in names:
                    raise DatasetError(f"a class among {names}", "another", section)
                entry["label"] = names.index(item.label)
            if item.patient:
                entry["patient"] = f"patient {patients[item.patient]}"
            sections[section].append(entry)
        write_datalist(part, {name: there for name, there in sections.items() if there}, names, about)
        draw_sheet(items, part / SHEET, seed)


def _place(source: Path, folder: Path, section: str, number: int, end: str) -> str:
    """Link or copy an image to its plain name, which is returned."""
    suffix = suffix_of(source)
    name = f"{section}/{number:05d}{end}{'' if suffix == 'series' else suffix}"
    target = folder / name
    target.parent.mkdir(exist_ok=True)
    if source.is_dir():
        target.mkdir()
        for n, file in enumerate(sorted(path for path in source.rglob("*") if path.is_file())):
            shutil.copyfile(file, target / f"{n:05d}.dcm")
    else:
        shutil.copyfile(source, target)
    return name
