"""Volumes and label maps of a dataset folder, and volumes to be segmented: NIfTI files or DICOM series."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from monai_medmerge.data.datasets import DATALIST, described, read_datalist
from monai_medmerge.errors import DatasetError
from monai_medmerge.files import below, shown
from monai_medmerge.transforms.dicom.archives import DICOM_SUFFIXES
from monai_medmerge.transforms.dicom.headers import is_dicom

NIFTI = (".nii", ".nii.gz")


def load_volumes(
    dataset_dir: str | os.PathLike[str], section: str, volumes: int | None = None, seed: int = 0
) -> list[dict[str, str]]:
    """Read one section of a folder's `dataset.json`, checked, with absolute paths.

    The file is a datalist in the form MONAI reads (that of the Medical Segmentation Decathlon)::

        {"class_names": ["background", "anterior"], "training": [{"image": "a.nii.gz", "label": "b.nii.gz"}, ...]}

    Args:
        dataset_dir: folder that holds `dataset.json`; paths are relative to it.
        section: `training`, `validation`, `test` or another list of the file.
        volumes: how many to draw; all, in the file's order, if None.
        seed: of the draw.

    Returns:
        One `{"image": path, "label": path}` per volume.

    Raises:
        DatasetError: the file or section is absent, empty or malformed, a file does not exist, or there are fewer
            volumes than wanted.

    Example:
        >>> import json
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     for name in ("image.nii", "label.nii"):
        ...         Path(folder, name).touch()
        ...     entry = {"image": "image.nii", "label": "label.nii"}
        ...     _ = Path(folder, "dataset.json").write_text(json.dumps({"training": [entry]}))
        ...     [Path(path).name for path in load_volumes(folder, "training")[0].values()]
        ['image.nii', 'label.nii']
    """
    folder = Path(dataset_dir).absolute()
    datalist = read_datalist(folder / DATALIST)
    entries = datalist.get(section)
    if not isinstance(entries, list) or not entries:
        raise DatasetError(f"a list {section!r} with at least one volume", described(entries), DATALIST)
    found = [_checked(entry, folder, f"{DATALIST}, {section}[{n}]") for n, entry in enumerate(entries)]
    if volumes is None:
        return found
    if not 1 <= volumes <= len(found):
        raise DatasetError(f"a number from 1 to {len(found)}", str(volumes), "volumes")
    return [found[n] for n in np.random.default_rng(seed).permutation(len(found))[:volumes]]


def list_volumes(folder: str | os.PathLike[str]) -> list[dict[str, str]]:
    """Every NIfTI file below a folder, and every subfolder (or the folder itself) with DICOM files as a series.

    A file is DICOM by its content or its suffix; without NIfTI beside it also by having no suffix, so that a damaged
    series is named and not left out. Other files are passed over.

    Args:
        folder: searched with its subfolders; hidden files are left out.

    Returns:
        One `{"image": path, "source": path, "file": name}` per volume, sorted.

    Raises:
        DatasetError: there is no such folder, or nothing in it.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     Path(folder, "series").mkdir()
        ...     for name in ("a.nii.gz", "notes.txt", "series/1.dcm", "series/2.dcm"):
        ...         Path(folder, name).touch()
        ...     [item["file"] for item in list_volumes(folder)]
        ['a.nii.gz', 'series']
    """
    root = Path(folder).absolute()
    if not root.is_dir():
        raise DatasetError("a folder of volumes", "none of that name", root.name)
    files = [path for path in root.rglob("*") if path.is_file() and not path.name.startswith(".")]
    nifti = {path for path in files if path.name.lower().endswith(NIFTI)}
    beside = {path.parent for path in nifti}
    series = {path.parent for path in files if path not in nifti and _is_slice(path, path.parent not in beside)}
    volumes = sorted(nifti | series)
    if not volumes:
        raise DatasetError("NIfTI files or folders with a DICOM series", "none", root.name)
    # A folder that is itself the series has its own name below its parent.
    above = root.parent if root in series else root
    return [{"image": str(v), "source": str(v), "file": str(v.relative_to(above))} for v in volumes]


def _is_slice(path: Path, alone: bool) -> bool:
    if path.name.upper() == "DICOMDIR":
        return False
    return path.name.lower().endswith(DICOM_SUFFIXES) or (alone and not path.suffix) or is_dicom(path)


def _checked(entry: Any, folder: Path, where: str) -> dict[str, str]:
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("image", "label")):
        raise DatasetError('an object with the paths "image" and "label"', described(entry), where)
    for key in ("image", "label"):
        if not below(folder, entry[key], f"{where}.{key}", DatasetError, links=True).exists():
            raise DatasetError("a file that exists", f"no {shown(Path(entry[key]).name)}", f"{where}.{key}")
    return {key: str(folder / entry[key]) for key in ("image", "label")}
