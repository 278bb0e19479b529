"""The bundles that come with the package: where they are, and how a user gets a copy of one."""

from __future__ import annotations

import os
import shutil
from difflib import get_close_matches
from pathlib import Path

import monai_medmerge
from monai_medmerge.errors import OutputError, SettingError
from monai_medmerge.files import read_json, shown, whole_folder

METADATA = "configs/metadata.json"
PARTS = ("configs", "docs", "models", "LICENSE")
"""What a bundle is made of; whatever else lies beside, a run has left, and it may be of patients."""


def shipped_bundles() -> dict[str, Path]:
    """The folders of the bundles that came with the package, by name.

    Example:
        >>> sorted(shipped_bundles())
        ['medmerge_classification', 'medmerge_segmentation']
    """
    folder = Path(monai_medmerge.__file__).parent / "zoo"
    return {path.name: path for path in sorted(folder.glob("*")) if (path / METADATA).is_file()}


def find_bundle(name: str) -> Path:
    """The folder of one of them.

    Args:
        name: as `shipped_bundles` has it.

    Raises:
        SettingError: there is none of this name; the nearest is named.
    """
    there = shipped_bundles()
    if name not in there:
        nearest = get_close_matches(name, there, 1)
        also = f"; the nearest is {nearest[0]}" if nearest else ""
        raise SettingError(f"a bundle among {', '.join(there) or 'none'}", f"{shown(name)}{also}", "bundles")
    return there[name]


def describe(bundle: Path) -> str:
    """Its version and task, as its metadata says them.

    Args:
        bundle: its folder.
    """
    metadata = read_json(bundle / METADATA)
    return f"{metadata['version']}: {metadata['task']}"


def copy_bundle(name: str, folder: str | os.PathLike[str]) -> Path:
    """Copy a bundle into a folder, whole or not at all, as MONAI's `monai.bundle download` leaves one.

    Args:
        name: as `shipped_bundles` has it.
        folder: it becomes `folder/name`.

    Returns:
        The copy.

    Raises:
        SettingError: there is no such bundle.
        OutputError: the folder holds one of this name, or cannot be written to.
    """
    source, target = find_bundle(name), Path(folder) / name
    if target.exists() or target.is_symlink():
        raise OutputError("no folder of this name yet", "one", str(target.name))
    with whole_folder(target) as part:
        for entry in PARTS:
            # Not the modes: an installed package may be read-only, and a copy is there to be changed.
            if (source / entry).is_dir():
                shutil.copytree(source / entry, part / entry, copy_function=shutil.copyfile)
            else:
                shutil.copyfile(source / entry, part / entry)
    return target
