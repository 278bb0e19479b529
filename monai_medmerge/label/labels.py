"""Submitted labels as training takes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
        named = max(content["prediction"], key=lambda entry: entry["score"])["label"]
    if isinstance(named, str) and named in classes:
        return list(classes).index(named)
    if isinstance(named, int) and not isinstance(named, bool) and 0 <= named < len(classes):
        return named
    raise DatasetError(expected, repr(named), path.name)
