"""Labelled images in one form: a folder with image files and a `dataset.json` that lists them.

`dataset.json` is a datalist in the form MONAI reads (that of the Medical Segmentation Decathlon), with class numbers
as labels and no patient identifiers; `unlabelled` may be absent::

    {
        "class_names": ["benign", "malignant"],
        "training": [{"image": "training/00000.png", "label": 0}, ...],
        "unlabelled": [{"image": "unlabelled/00000.png"}, ...],
        "validation": [...],
        "test": [...]
    }
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from monai.apps.utils import download_url
from PIL import Image

from monai_medmerge.data.classes import checked_names
from monai_medmerge.errors import DatasetError, OutputError
from monai_medmerge.files import below, read_json, shown, whole_file, whole_folder, write_text

DATALIST = "dataset.json"
MULTILABEL = "multilabel"


def load_datalist(
    dataset_dir: str | os.PathLike[str], section: str, classes: int | None = None, task: str = "classification"
) -> list[dict[str, Any]]:
    """Read one section of a folder's `dataset.json`, checked, with absolute image paths.

    Args:
        dataset_dir: folder that holds `dataset.json`; image paths are relative to it.
        section: `training`, `validation`, `test` or another list of the file.
        classes: how many classes the network tells apart; by default as many as the file has `class_names`.
        task: `multilabel`, where every image has any number of classes: a 0 or 1 for each; else one class number.

    Returns:
        One `{"image": absolute path, "label": class number}` per image, in the file's order; of several labels, float32
        (class,).

    Raises:
        DatasetError: the file or section is absent, empty or malformed, an image does not exist, or a label is not
            an integer from 0 to `classes` - 1. The first such entry is named.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as parent:
        ...     folder = Path(parent, "dataset")
        ...     write_images(folder, {"test": (np.zeros((2, 8, 8), np.uint8), [0, 1])}, ["benign", "malignant"])
        ...     [(Path(item["image"]).name, item["label"]) for item in load_datalist(folder, "test")]
        [('00000.png', 0), ('00001.png', 1)]
    """
    folder = Path(dataset_dir).absolute()
    datalist = read_datalist(folder / DATALIST)
    if classes is None:
        classes = len(checked_names(datalist.get("class_names"), f"{DATALIST}, class_names"))
    if section not in datalist:
        raise DatasetError(f"a section {section!r}", f"only {shown(str(sorted(datalist)))}", DATALIST)
    entries = datalist[section]
    if not isinstance(entries, list) or not entries:
        raise DatasetError("a list with at least one image", described(entries), f"{DATALIST}, {section}")
    check = _check_labels if task == MULTILABEL else _check_entry
    return [check(entry, folder, classes, f"{DATALIST}, {section}[{i}]") for i, entry in enumerate(entries)]


def load_unlabelled(dataset_dir: str | os.PathLike[str]) -> list[dict[str, str]]:
    """The section `unlabelled` of a folder's `dataset.json`, which may be absent: images of the same task, no labels.

    Args:
        dataset_dir: folder that holds `dataset.json`; image paths are relative to it. An entry is `{"image": path}`.

    Returns:
        One `{"image": absolute path}` per image, in the file's order.

    Raises:
        DatasetError: the file is absent or malformed, an image does not exist, or it is in the section `test`.
    """
    folder = Path(dataset_dir).absolute()
    datalist = read_datalist(folder / DATALIST)
    entries = datalist.get("unlabelled", [])
    if not isinstance(entries, list):
        raise DatasetError("a list of images", described(entries), f"{DATALIST}, unlabelled")
    tested = datalist.get("test")
    kept = {entry.get("image") for entry in tested if isinstance(entry, dict)} if isinstance(tested, list) else set()
    found = []
    for i, entry in enumerate(entries):
        where = f"{DATALIST}, unlabelled[{i}]"
        if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
            raise DatasetError('an object with "image" (a path)', described(entry), where)
        image = _image_of(entry, folder, where)
        if entry["image"] in kept:
            raise DatasetError("an image that is not in the section test", shown(image.name), f"{where}.image")
        found.append({"image": str(image)})
    return found


def read_datalist(path: Path) -> dict[str, Any]:
    """The file's content, which must be a dictionary."""
    if not path.is_file():
        raise DatasetError(f"a file {path.name} in the dataset folder", "none", path.parent.name)
    content = read_json(path, DatasetError)
    if not isinstance(content, dict):
        raise DatasetError("a JSON object", type(content).__name__, path.name)
    return content


def _check_entry(entry: Any, folder: Path, classes: int, where: str) -> dict[str, Any]:
    """One image with its label, as the data loaders want it."""
    if not isinstance(entry, dict) or not isinstance(entry.get("image"), str) or "label" not in entry:
        raise DatasetError('an object with "image" (a path) and "label"', described(entry), where)
    image, label = _image_of(entry, folder, where), entry["label"]
    # JSON's true would pass for 1.
    if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label < classes:
        raise DatasetError(
            f"a class number from 0 to {classes - 1}", shown(repr(label)), f"{where}.label ({shown(image.name)})"
        )
    return {"image": str(image), "label": label}


def _check_labels(entry: Any, folder: Path, classes: int, where: str) -> dict[str, Any]:
    """One image with a 0 or 1 for each class."""
    labels = entry.get("label") if isinstance(entry, dict) else None
    if not isinstance(labels, list) or len(labels) != classes or any(label not in (0, 1) for label in labels):
        raise DatasetError(f"a 0 or 1 for each of {classes} classes", described(labels), f"{where}.label")
    checked = _check_entry({**entry, "label": 0}, folder, classes, where)
    return {**checked, "label": np.array(labels, np.float32)}


def _image_of(entry: Mapping[str, Any], folder: Path, where: str) -> Path:
    image = below(folder, entry["image"], f"{where}.image", DatasetError, links=True)
    if not image.exists():
        raise DatasetError("an image that exists", f"no {shown(image.name)}", f"{where}.image")
    return image


def described(value: Any) -> str:
    """What came, without its content: free text may identify a patient."""
    if isinstance(value, dict):
        return f"an object with {shown(str(sorted(value)))}"
    return "an empty list" if value == [] else f"a value of type {type(value).__name__}"


def write_datalist(
    folder: Path,
    sections: Mapping[str, Sequence[Mapping[str, Any]]],
    class_names: Sequence[str],
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write a `dataset.json`; `about` adds entries such as name, licence and reference."""
    content = {**(about or {}), "class_names": list(class_names), **{key: list(sections[key]) for key in sections}}
    write_text(folder / DATALIST, json.dumps(content, indent=1) + "\n")


def write_images(
    folder: str | os.PathLike[str],
    sections: Mapping[str, tuple[np.ndarray, Sequence[int] | np.ndarray]],
    class_names: Sequence[str],
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write arrays as PNG files with their `dataset.json`: the whole folder or none of it.

    Args:
        folder: the folder to make; it must be absent or empty.
        sections: per section (`training`, ...) the images, uint8, (image, row, column) for grey or
            (image, row, column, 3) for colour, and a class number for each.
        class_names: one name per class.
        about: further entries of `dataset.json`, such as name, licence and reference.

    Raises:
        DatasetError: the folder holds something already, or images and labels are not as described.
    """
    for section, (images, labels) in sections.items():
        _check_arrays(images, np.asarray(labels), len(class_names), section)
    with whole_folder(folder) as partial:
        entries: dict[str, list[dict[str, Any]]] = {}
        for section, (images, labels) in sections.items():
            (partial / section).mkdir()
            entries[section] = []
            for index, (image, label) in enumerate(zip(images, labels, strict=True)):
                name = f"{section}/{index:05d}.png"
                Image.fromarray(image).save(partial / name)
                entries[section].append({"image": name, "label": int(label)})
        write_datalist(partial, entries, class_names, about)


def _check_arrays(images: np.ndarray, labels: np.ndarray, classes: int, section: str) -> None:
    if images.dtype != np.uint8 or not (images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)):
        raise DatasetError("grey or RGB images, uint8", f"{images.dtype} of shape {images.shape}", section)
    if labels.shape != (len(images),) or len(images) == 0:
        raise DatasetError("one label for each of at least one image", f"{labels.shape} for {len(images)}", section)
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= classes:
        wrong = f"{labels.dtype} from {labels.min()} to {labels.max()}"
        raise DatasetError(f"integer labels from 0 to {classes - 1}", wrong, section)


@dataclass(frozen=True)
class MedMnist:
    """One file of MedMNIST v2 (Yang et al., Scientific Data 2023, doi 10.1038/s41597-022-01721-8)."""

    url: str
    md5: str
    class_names: tuple[str, ...]
    licence: str


MEDMNIST = {
    "breastmnist": MedMnist(
        url="https://zenodo.org/records/10519652/files/breastmnist.npz?download=1",
        md5="750601b1f35ba3300ea97c75c52ff8f6",
        class_names=("malignant", "normal or benign"),
        licence="CC BY 4.0",
    ),
}


def prepare_medmnist(
    name: str,
    output: str | os.PathLike[str],
    data_dir: str | os.PathLike[str] | None = None,
    url: str | None = None,
) -> Path:
    """Make a dataset folder of a MedMNIST v2 file; a folder already made is left as it is.

    Args:
        name: a key of `MEDMNIST`.
        output: the dataset folder to make.
        data_dir: folder that holds `medmnist/NAME.npz`; by default the one the environment variable MEDMERGE_DATA
            names. Without either, the file is downloaded, once, to the folder above `output`.
        url: download from here instead of the address MedMNIST publishes, for instance from a mirror.

    Returns:
        The dataset folder.

    Raises:
        DatasetError: an unknown name, or the file is absent, cannot be downloaded or is not the published one (MD5).
    """
    if name not in MEDMNIST:
        raise DatasetError(f"one of {sorted(MEDMNIST)}", repr(name), "MedMNIST")
    known, output = MEDMNIST[name], Path(output)
    if (output / DATALIST).is_file():
        return output
    data_dir = data_dir or os.environ.get("MEDMERGE_DATA")
    if data_dir:
        archive = Path(data_dir, "medmnist", f"{name}.npz")
        if not archive.is_file():
            raise DatasetError(f"a file medmnist/{archive.name}", "none", "the folder MEDMERGE_DATA names")
    else:
        archive = output.absolute().parent / f"{name}.npz"
        if not archive.is_file():
            _download(url or known.url, archive, known.md5)
    found = hashlib.md5(archive.read_bytes(), usedforsecurity=False).hexdigest()
    if found != known.md5:
        raise DatasetError(f"the published file, MD5 {known.md5}", f"MD5 {found}", archive.name)
    with np.load(archive, allow_pickle=False) as arrays:
        sections = {
            section: (arrays[f"{split}_images"], arrays[f"{split}_labels"].ravel())
            for section, split in (("training", "train"), ("validation", "val"), ("test", "test"))
        }
    write_images(output, sections, known.class_names, {"name": name, "licence": known.licence, "reference": known.url})
    return output


def _download(url: str, path: Path, md5: str) -> None:
    """Fetch a file with MONAI's download_url, which keeps it only if it has that MD5."""
    try:
        with whole_file(path) as part:
            download_url(url, part, hash_val=md5, hash_type="md5", progress=False)
    except OutputError:
        raise
    except (OSError, RuntimeError, ValueError) as error:  # no network, no such page, cut short; another MD5
        found = str(getattr(error, "reason", "")) or type(error).__name__
        raise DatasetError(f"the file of MD5 {md5} at {url}", found, path.name) from error
