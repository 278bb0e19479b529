"""The bundles that come with the package: in a wheel inside of it, in a checkout beside it."""

from __future__ import annotations

import shutil
from difflib import get_close_matches
from pathlib import Path

import monai_medmerge
from monai_medmerge.errors import SettingError
from monai_medmerge.files import read_json, shown, whole_folder

PARTS = ("configs", "docs", "models", "LICENSE")
"""What a bundle is made of; whatever else lies beside, a run has left."""


def bundled() -> dict[str, Path]:
    """Names of the bundles that come with the package, and their folders.

    Raises:
        SettingError: the package came without them.

    Example:
        >>> sorted(bundled())
        ['medmerge_classification', 'medmerge_segmentation']
    """
    package = Path(str(monai_medmerge.__file__)).parent
    for place in (package / "zoo", package.parent / "bundles"):
        found = sorted(place.glob("*/configs/metadata.json"))
        if found:
            return {path.parent.parent.name: path.parent.parent for path in found}
    raise SettingError("bundles in the package, as the wheel has them", "none; install the wheel", "bundles")


def bundle_folder(name: str) -> Path:
    """The folder of a bundle that comes with the package.

    Args:
        name: as `bundled` tells.

    Raises:
        SettingError: there is none of that name; the nearest is named.
    """
    known = bundled()
    if name in known:
        return known[name]
    nearest = get_close_matches(name, list(known), 1, 0.4)
    also = f"the nearest is {nearest[0]}" if nearest else f"there are {', '.join(known)}"
    raise SettingError("a bundle of the package", f"another; {also}", shown(name))


def bundle_line(folder: Path) -> str:
    """What a bundle is, in the words of its metadata.

    Args:
        folder: of the bundle.
    """
    metadata = read_json(folder / "configs" / "metadata.json")
    return f"{metadata['version']}  {metadata['task']}"


def copy_bundle(name: str, folder: Path) -> Path:
    """Copy a bundle of the package, whole or not at all.

    Args:
        name: as `bundled` tells.
        folder: that becomes the bundle's; it must not exist.

    Returns:
        The folder.

    Raises:
        SettingError: there is no such bundle, or the folder exists.
        OutputError: it cannot be written.
    """
    source = bundle_folder(name)
    if folder.exists() or folder.is_symlink():
        raise SettingError("a folder that does not exist yet", "one that does", shown(folder.absolute().name))
    with whole_folder(folder) as part:
        for entry in PARTS:
            if (source / entry).is_dir():
                # Not the modes: an installed package may be read-only, a copy is to be changed.
                shutil.copytree(source / entry, part / entry, copy_function=shutil.copyfile)
            else:
                shutil.copyfile(source / entry, part / entry)
    return folder
