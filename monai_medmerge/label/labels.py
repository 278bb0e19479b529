"""Submitted labels as training takes them."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform

from monai_medmerge.errors import DatasetError


def class_number(path: Path, classes: Sequence[str]) -> int:
    """Read the class of an image from a submitted JSON file.

    Args:
        path: of a file with `{"label": NAME or NUMBER}`, or what /infer answers (`{"prediction": [{"label": NAME,
            "score": SHARE}, ...]}`), of which the greatest score counts.
        classes: names of the classes.

    Raises:
        DatasetError: the file is no such JSON, or names another class.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.json").write_text('{"label": "cyst"}')
        ...     class_number(Path(folder, "a.json"), ["none", "cyst"])
        1
    """
    expected = f'{{"label": one of {", ".join(classes)}}}'
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DatasetError(expected, f"no readable JSON ({type(error).__name__})", path.name) from error
    named = content.get("label") if isinstance(content, dict) else None
    if named is None and isinstance(content, dict) and content.get("prediction"):
        try:
            named = max(content["prediction"], key=lambda entry: float(entry["score"]))["label"]
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(expected, f"a prediction of another form ({type(error).__name__})", path.name) from error
    if isinstance(named, str) and named in classes:
        return list(classes).index(named)
    if isinstance(named, int) and not isinstance(named, bool) and 0 <= named < len(classes):
        return named
    raise DatasetError(expected, repr(named), path.name)


class ReadClassd(MapTransform):
    """Read the classes of images where MONAI Label gives the paths of submitted labels.

    Args:
        keys: of the labels: paths as `class_number` reads them, or numbers, which stay.
        class_names: names of the classes.
        allow_missing_keys: skip keys that a dictionary lacks.

    Raises:
        DatasetError: from a call, for a file that names no class.

    Example:
        >>> ReadClassd("label", ["none", "cyst"])({"label": 1})
        {'label': 1}
    """

    def __init__(self, keys: KeysCollection, class_names: Sequence[str], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.class_names = list(class_names)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace the labels."""
        result = dict(data)
        for key in self.key_iterator(result):
            if isinstance(result[key], str):
                result[key] = class_number(Path(result[key]), self.class_names)
        return result
