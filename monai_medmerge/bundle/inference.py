"""A folder of images to predictions: one unreadable image costs only itself, and is never passed over in silence."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch.utils.data import IterableDataset

from monai_medmerge.bundle.configuration import reason
from monai_medmerge.data.datasets import load_unlabelled
from monai_medmerge.errors import DatasetError
from monai_medmerge.files import shown

logger = logging.getLogger(__name__)
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".dcm", ".dicom", ".nii", ".nii.gz")


def list_images(folder: str | os.PathLike[str]) -> list[dict[str, str]]:
    """Every image file below a folder, sorted: known suffixes, and files without one (as DICOM exports have them).

    Args:
        folder: searched with its subfolders; hidden files are left out.

    Raises:
        DatasetError: there is no such folder, or no image in it.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     Path(folder, "b.png").touch(); Path(folder, "a.dcm").touch(); Path(folder, "notes.txt").touch()
        ...     [Path(item["image"]).name for item in list_images(folder)]
        ['a.dcm', 'b.png']
    """
    root = Path(folder).absolute()
    if not root.is_dir():
        raise DatasetError("a folder of images", "none of that name", root.name)
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.name.startswith("."))
    images = [path for path in files if not path.suffix or path.name.lower().endswith(IMAGE_SUFFIXES)]
    if not images:
        raise DatasetError(f"an image ({', '.join(IMAGE_SUFFIXES)})", f"{len(files)} other files", root.name)
    return [{"image": str(path), "file": str(path.relative_to(root))} for path in images]


def unlabelled_images(
    dataset_dir: str | os.PathLike[str], folder: str | os.PathLike[str] | None = None
) -> list[dict[str, str]]:
    """Images of the task without labels: those that `dataset.json` lists as `unlabelled`, and those below a folder.

    Args:
        dataset_dir: with a `dataset.json`.
        folder: with further images; None for none.

    Raises:
        DatasetError: as of `load_unlabelled` and `list_images`.
    """
    more = [] if folder is None else [{"image": item["image"]} for item in list_images(folder)]
    return [*load_unlabelled(dataset_dir), *more]


class ReadableImages(IterableDataset):
    """Images of a list as a transform makes them, one after the other; those it cannot read are named and passed over.

    To be loaded in the process of the engine (`num_workers=0`), so that `failures` is known there.

    Args:
        data: dictionaries with `image` (a path) and `file` (the name that reports use).
        transform: from such a dictionary to what the network takes.
    """

    def __init__(self, data: list[dict[str, str]], transform: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self.data = data
        self.transform = transform
        self.failures: dict[str, str] = {}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for item in self.data:
            try:
                prepared = self.transform(dict(item))
            # Readers of many formats meet damaged files in as many ways; MONAI wraps them all in RuntimeError.
            except (RuntimeError, ValueError, OSError) as error:
                self.failures[item["file"]] = reason(error)
                logger.error("Could not read %s", shown(item["file"]))
            else:
                yield prepared

    def raise_failures(self) -> None:
        """End in an error if an image could not be read; called last, so that all others are predicted by then.

        Raises:
            DatasetError: naming every such image.
        """
        if self.failures:
            listed = "; ".join(f"{shown(file)} ({why})" for file, why in self.failures.items())
            raise DatasetError("readable images", f"{len(self.failures)} of {len(self.data)} that are not", listed)
