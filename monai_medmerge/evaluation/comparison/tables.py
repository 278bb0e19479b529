"""Tables of predictions and of the truth, as `inference.json` and people write them, put side by side."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from monai_medmerge.errors import DatasetError
from monai_medmerge.evaluation.bootstrap import Resampling
from monai_medmerge.evaluation.comparison.cases import age_groups
from monai_medmerge.evaluation.comparison.labels import compare_labels
from monai_medmerge.evaluation.comparison.predictions import compare_predictions
from monai_medmerge.evaluation.comparison.rows import Comparison
from monai_medmerge.files import cell, shown

FILE, PREDICTION, LABEL = "file", "prediction", "label"
TableTask = Literal["classification", "ordinal", "multilabel"]
# Rounding of a table's six digits, over many classes.
_ROUNDING = 1e-3


@dataclass(frozen=True)
class Table:
    """What one network says.

    Args:
        name: base name of the file.
        class_names: in the table's order.
        rows: file to probabilities, float (class,).
    """

    name: str
    class_names: tuple[str, ...]
    rows: dict[str, np.ndarray]


def compare_tables(
    reference: str | os.PathLike[str],
    candidate: str | os.PathLike[str],
    truth: str | os.PathLike[str],
    task: TableTask = "classification",
    subgroups: Sequence[str] = (),
    patient: str | None = None,
    resampling: Resampling | None = None,
    plain: bool = False,
) -> Comparison:
    """Compare two tables of predictions of the same files.

    Args:
        reference: CSV with `file`, `prediction` (not read) and a column of probabilities for each class, of the network
            in use.
        candidate: likewise, of the network that may replace it; its columns may be in another order.
        truth: CSV with `file` and `label` (a class's name or number); for `multilabel` with `file` and a column of 0,
            1 or nothing for each class. Further columns divide the cases or name patients.
        task: `ordinal` for classes that are grades.
        subgroups: columns of the truth.
        patient: column of the truth that says which patient a case is of; shown nowhere.
        resampling: for samples and seed.
        plain: call cases by their file; by default by their row in the truth.

    Raises:
        DatasetError: a table cannot be read, or they are not of the same files and classes.
    """
    first, second = read_predictions(reference), read_predictions(candidate)
    rows, where = _read(truth), shown(Path(truth).name)
    classes = first.class_names
    if sorted(second.class_names) != sorted(classes):
        raise DatasetError(", ".join(classes), ", ".join(second.class_names), f"classes of {second.name}")
    files = [row[FILE] for row in rows]
    for table in (first, second):
        missing, more = len(set(files) - set(table.rows)), len(set(table.rows) - set(files))
        if missing or more:
            raise DatasetError(f"the {len(files)} files of {where}", f"{missing} missing and {more} others", table.name)
    order = [second.class_names.index(name) for name in classes]
    both = np.stack([first.rows[file] for file in files]), np.stack([second.rows[file][order] for file in files])
    columns = {name: age_groups(name, _column(rows, name, where)) for name in subgroups}
    groups = _column(rows, patient, where) if patient else None
    found = resampling or Resampling()
    drawn = Resampling(groups=groups, samples=found.samples, seed=found.seed, level=found.level)
    names = files if plain else [f"case {number}" for number in range(len(files))]
    if task == "multilabel":
        known = np.array([[_one(row, name, where) for name in classes] for row in rows])
        return compare_labels(both[0], both[1], known, classes, columns, names, drawn)
    labels = np.array([_class(text, classes, where) for text in _column(rows, LABEL, where)])
    scaled = [_summing(part, table.name) for part, table in zip(both, (first, second), strict=True)]
    return compare_predictions(scaled[0], scaled[1], labels, classes, columns, names, drawn, task == "ordinal")


def read_predictions(path: str | os.PathLike[str]) -> Table:
    """Read a table as `ProbabilityWriter` writes it.

    Args:
        path: CSV with `file`, perhaps `prediction`, and a column for each class.

    Raises:
        DatasetError: it is none; rows are told by their number.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.csv").write_text("file,prediction,no,yes\\na.png,yes,0.2,0.8\\n")
        ...     read_predictions(Path(folder, "a.csv")).class_names
        ('no', 'yes')
    """
    rows, where = _read(path), shown(Path(path).name)
    classes = tuple(name for name in rows[0] if name not in (FILE, PREDICTION))
    if not classes:
        raise DatasetError("a column of probabilities for each class", "none", where)
    found = {}
    for number, row in enumerate(rows, 1):
        try:
            values = np.array([float(row[name]) for name in classes])
        except ValueError:
            values = np.full(len(classes), np.nan)
        if not ((values >= 0) & (values <= 1)).all():
            raise DatasetError("probabilities from 0 to 1", "something else", f"{where}, row {number}")
        found[row[FILE]] = values
    return Table(where, classes, found)


def _read(path: str | os.PathLike[str]) -> list[dict[str, str]]:
    """Rows with text as tables hold it, so that what was neutralised in one meets what was not in another."""
    where = shown(Path(path).name)
    try:
        # Spreadsheets write a mark before the first name.
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            lines = list(csv.reader(file))
    except OSError as error:
        raise DatasetError("a CSV file", error.strerror or type(error).__name__, where) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError("a CSV file in UTF-8", type(error).__name__, where) from error
    head, *body = [line for line in lines if line] or [[]]
    head = [str(cell(name)) for name in head]
    if FILE not in head or not body or len(set(head)) < len(head):
        raise DatasetError(f"columns of different names, `{FILE}` among them, and a row for each file", "other", where)
    for number, line in enumerate(body, 1):
        if len(line) != len(head):
            raise DatasetError(f"{len(head)} cells", f"{len(line)}", f"{where}, row {number}")
    rows = [{name: str(cell(text)) for name, text in zip(head, line, strict=True)} for line in body]
    if (twice := len(rows) - len({row[FILE] for row in rows})) > 0:
        raise DatasetError("one row for each file", f"{twice} more", where)
    return rows


def _column(rows: Sequence[dict[str, str]], name: str, where: str) -> list[str]:
    if str(cell(name)) not in rows[0]:
        raise DatasetError(f"a column {name!r}", "none", where)
    values = [row[str(cell(name))] for row in rows]
    if "" in values:
        raise DatasetError(f"a value of column {name!r}", "none", f"{where}, row {values.index('') + 1}")
    return values


def _class(text: str, classes: Sequence[str], where: str) -> int:
    if text in classes:
        return list(classes).index(text)
    if text.isdecimal() and int(text) < len(classes):
        return int(text)
    raise DatasetError(f"one of {', '.join(classes)}, or its number", repr(shown(text)), f"{where}, {LABEL}")


def _one(row: dict[str, str], name: str, where: str) -> float:
    text = row.get(name)
    if text is None:
        raise DatasetError(f"a column {name!r}", "none", where)
    if text == "":
        return float("nan")
    try:
        return float(text)
    except ValueError as error:
        raise DatasetError("0, 1 or nothing", repr(shown(text)), f"{where}, {name}") from error


def _summing(values: np.ndarray, where: str) -> np.ndarray:
    """Probabilities that sum to one, rounding put right."""
    total = values.sum(1, keepdims=True)
    if not np.allclose(total, 1, atol=_ROUNDING):
        raise DatasetError("probabilities that sum to one in every row; or --task multilabel", "others", where)
    return np.asarray(values / total)
