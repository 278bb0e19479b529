"""Which class each output of a checkpoint is: `merge.json` writes the names beside it, into `metrics.json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from monai_medmerge.errors import DatasetError

BESIDE = "metrics.json"


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
    try:
        named = json.loads(beside.read_text(encoding="utf-8")).get("class_names", otherwise)
    except (ValueError, AttributeError) as error:
        raise DatasetError("a JSON object", type(error).__name__, BESIDE) from error
    return list(named)


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
