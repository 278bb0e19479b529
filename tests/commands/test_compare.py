"""`compare` as a shell runs it: tables of every task, networks of a bundle, and what does not belong together."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from monai_medmerge.__main__ import main

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))
from phantom_lesions import write_phantoms  # noqa: E402
from phantom_volumes import write_volumes  # noqa: E402

CLASSES = ["cyst", "benign", "<b>malignant</b>"]


def table(path: Path, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])
    return str(path)


@pytest.fixture
def tables(tmp_path: Path) -> list[str]:
    """Two tables whose rows and columns are in other orders, and the truth: 90 cases, 6 lost, 2 won."""
    labels, files = np.arange(90) % 3, [f"=DOE^JANE_{n}.png" for n in range(90)]
    sure = np.where(labels[:, None] == np.arange(3), 0.8, 0.1)
    before, now = sure.copy(), sure.copy()
    now[:6], before[10:12] = np.roll(now[:6], 1, 1), np.roll(before[10:12], 1, 1)
    first = [["'" + file, "x", *row] for file, row in zip(files, before, strict=True)]
    second = [[file, *row[::-1]] for file, row in zip(files, now, strict=True)][::-1]
    truth = [[file, CLASSES[label], "AB"[n % 2]] for n, (file, label) in enumerate(zip(files, labels, strict=True))]
    return [
        table(tmp_path / "a.csv", ["file", "prediction", *CLASSES], first),
        table(tmp_path / "b.csv", ["file", *CLASSES[::-1]], second),
        table(tmp_path / "truth.csv", ["file", "label", "scanner"], truth),
    ]


def compared(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    assert main(["compare", *arguments, "--output", str(tmp_path / "out"), "--samples", "50"]) == 0
    found: dict[str, Any] = json.loads((tmp_path / "out" / "report.json").read_text())["comparison"]
    return found


def test_tables_meet_by_file_and_class(tmp_path: Path, tables: list[str]) -> None:
    found = compared(tmp_path, *tables[:2], "--truth", tables[2], "--subgroup", "scanner")
    assert [case["name"] for case in found["flipped"]] == [f"case {n}" for n in range(6)]
    assert [case["name"] for case in found["gained"]] == ["case 10", "case 11"]
    assert found["tests"][0]["p"] == pytest.approx(0.2890625)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "McNemar" in page
    assert "Wrong before and right now" in page
    assert "DOE^JANE" not in page
    assert "<b>malignant" not in page


def test_grades_and_any_number_of_labels(tmp_path: Path, tables: list[str]) -> None:
    found = compared(tmp_path, *tables[:2], "--truth", tables[2], "--task", "ordinal")
    assert "quadratic kappa" in {row["measure"] for row in found["rows"]}
    truth = [[f"{n}", n % 2, "" if n == 3 else int(n % 3 == 0)] for n in range(40)]
    said = [[row[0], 0.9 * row[1], 0.2] for row in truth]
    a = table(tmp_path / "c.csv", ["file", "effusion", "nodule"], said)
    b = table(tmp_path / "d.csv", ["file", "effusion", "nodule"], [[f, e, 0.7] for f, e, _ in said])
    real = table(tmp_path / "e.csv", ["file", "effusion", "nodule"], truth)
    found = compared(tmp_path, a, b, "--truth", real, "--task", "multilabel")
    assert found["task"] == "multi-label"
    assert {test["of"]: (test["worse"], test["better"]) for test in found["tests"]}["nodule"] == (26, 13)
    assert "More labels wrong than before" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda rows: rows[:-1], "1 missing and 0 others"),
        (lambda rows: [*rows, rows[-1]], "1 more"),
        (lambda rows: [[*rows[0][:2], 0.4, 0.4, 0.4], *rows[1:]], "sum to one"),
        (lambda rows: [[*rows[0][:2], "nan", 0.5, 0.5], *rows[1:]], "row 1"),
        (lambda rows: [rows[0][:3], *rows[1:]], "5 cells, found 3"),
    ],
)
def test_what_does_not_fit_is_one_line(
    tmp_path: Path, tables: list[str], capsys: pytest.CaptureFixture[str], change: Any, told: str
) -> None:
    with Path(tables[0]).open(encoding="utf-8") as file:
        head, *rows = list(csv.reader(file))
    table(Path(tables[0]), head, change(rows))
    assert main(["compare", *tables[:2], "--truth", tables[2], "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert "DOE" not in error
    assert not (tmp_path / "out").exists()


def test_networks_of_a_bundle_with_pictures_of_flips(tmp_path: Path) -> None:
    models = ROOT / "bundles" / "medmerge_classification" / "models"
    data = write_phantoms(tmp_path / "data", training=3, validation=3, test=30, seed=3)
    state = torch.load(models / "model.pt", weights_only=True)
    state["fc.bias"][2] += 6
    torch.save(state, tmp_path / "model.pt")
    (tmp_path / "model.json").write_text((models / "model.json").read_text())
    found = compared(tmp_path, str(models / "model.pt"), str(tmp_path / "model.pt"), "--data", str(data))
    assert found["flipped"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "newly wrong cases" in page
    assert "data:image/webp" in page


@pytest.mark.slow
def test_segmentations_are_compared_label_by_label(tmp_path: Path) -> None:
    models = ROOT / "bundles" / "medmerge_segmentation" / "models"
    data = write_volumes(tmp_path / "data", training=1, validation=1, test=20, seed=0)
    content = json.loads((data / "dataset.json").read_text())
    content["class_names"] = json.loads((models / "model.json").read_text())["class_names"]
    for number, entry in enumerate(content["test"]):
        entry["site"] = "NS"[number % 2]
    (data / "dataset.json").write_text(json.dumps(content))
    state = torch.load(models / "model.pt", weights_only=True)
    last = [name for name in state if state[name].ndim == 1][-1]
    state[last] = state[last] + torch.arange(len(state[last]))
    torch.save(state, tmp_path / "model.pt")
    (tmp_path / "model.json").write_text((models / "model.json").read_text())
    found = compared(
        tmp_path, str(models / "model.pt"), str(tmp_path / "model.pt"), "--data", str(data), "--subgroup", "site"
    )
    assert {row["group"] for row in found["rows"] if row["scope"] == "site"} == {"N", "S"}
    assert found["task"] == "segmentation"
    assert {test["test"] for test in found["tests"]} == {"Wilcoxon signed rank"}
    assert {"Dice", "lesions invented"} <= {row["measure"] for row in found["rows"]}


def test_a_network_and_a_table_are_refused(
    tmp_path: Path, tables: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", tables[0], "b.pt", "--truth", tables[2], "--output", str(tmp_path / "out")]) == 2
    assert "two files of weights or two tables" in capsys.readouterr().err
    assert main(["compare", *tables[:2], "--output", str(tmp_path / "out")]) == 2
    assert "--truth" in capsys.readouterr().err
