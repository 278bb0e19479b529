"""Which class each output of a checkpoint is: `merge.json` writes the names beside it, into `metrics.json`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_medmerge.errors import DatasetError
from monai_medmerge.files import read_json, shown

BESIDE = "metrics.json"
LONGEST_NAME = 200
MOST_CLASSES = 10_000


def checked_names(names: Any, where: str) -> list[str]:
    """Class names, if that is what they are.

    Args:
        names: whatever stands where they should.
        where: the file and entry, for the error.

    Raises:
        DatasetError: they are no list of different names, or one is empty, long or has control characters.

    Example:
        >>> checked_names(["benign", "malignant"], "dataset.json")
        ['benign', 'malignant']
        >>> checked_names("benign", "dataset.json")
        Traceback (most recent call last):
        monai_medmerge.errors.DatasetError: dataset.json: expected a list of class names, found a str
    """
    if not isinstance(names, list | tuple) or not 0 < len(names) <= MOST_CLASSES:
        found = f"a {type(names).__name__}" if names else repr(names)
        raise DatasetError("a list of class names", found, where)
    for number, name in enumerate(names):
        fits = isinstance(name, str) and name.strip() and len(name) <= LONGEST_NAME
        if not fits or shown(name, len(name)) != name:
            expected = f"a name on one line, of up to {LONGEST_NAME} characters"
            raise DatasetError(expected, "another text" if isinstance(name, str) else "no text", f"{where}[{number}]")
    if len(set(names)) < len(names):
        twice = next(name for n, name in enumerate(names) if name in names[:n])
        raise DatasetError("different names", f"{shown(twice)!r} twice", where)
    return list(names)


def dataset_classes(dataset_dir: str | Path) -> list[str]:
    """The class names of a dataset folder's `dataset.json`, by their numbers.

    Args:
        dataset_dir: the folder.

    Raises:
        DatasetError: there is no such file, or it names no classes.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     _ = Path(folder, "dataset.json").write_text('{"class_names": ["none", "cyst"]}')
        ...     dataset_classes(folder)
        ['none', 'cyst']
    """
    content = read_json(Path(dataset_dir, "dataset.json"), DatasetError)
    named = content.get("class_names") if isinstance(content, dict) else None
    return checked_names(named, "dataset.json, class_names")


def class_names(checkpoint: str | Path, otherwise: Sequence[str]) -> list[str]:
    """The names that a checkpoint's outputs had when it was trained.

    Args:
        checkpoint: file of the weights.
        otherwise: names where nothing beside the checkpoint tells them.

    Raises:
        DatasetError: what is beside it cannot be read.

    Example:
        >>> class_names("nowhere/model.pt", ["benign", "malignant"])
        ['benign', 'malignant']
    """
    beside = Path(checkpoint).with_name(BESIDE)
    if not beside.is_file():
        return list(otherwise)
    # Measures that are not known are NaN there.
    content = read_json(beside, DatasetError, constants=True)
    if not isinstance(content, dict):
        raise DatasetError("a JSON object", f"a {type(content).__name__}", BESIDE)
    return checked_names(content.get("class_names", list(otherwise)), f"{BESIDE}, class_names")


def agreed_class_names(names: Sequence[str], *checkpoints: str | Path) -> list[str]:
    """The class names of a data set, if the checkpoints that are tried on it were trained with the same, in order.

    Args:
        names: of the data set's classes, by their numbers.
        checkpoints: files of weights; those with nothing beside them that tells names agree with any.

    Raises:
        DatasetError: a checkpoint has other names, or another order, so that its outputs would pass for other classes.

    Example:
        >>> agreed_class_names(["benign", "malignant"], "nowhere/model.pt")
        ['benign', 'malignant']
    """
    for checkpoint in checkpoints:
        trained = class_names(checkpoint, names)
        if trained != list(names):
            where = f"{Path(checkpoint).name}, {BESIDE} beside it"
            raise DatasetError(f"the classes of the data, {', '.join(names)}", ", ".join(trained), where)
    return list(names)
