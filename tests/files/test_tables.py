"""Text in a table is text."""

import csv
import io
import os
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monai_medmerge.bundle import list_images
from monai_medmerge.files import csv_text
from monai_medmerge.handlers import ProbabilityWriter


@given(st.lists(st.lists(st.text(st.characters(codec=None)), min_size=2, max_size=2), max_size=5))
def test_no_cell_is_a_formula_or_breaks_the_table(rows):
    text = csv_text(["a", "b"], rows)
    text.encode("utf-8")
    read = list(csv.reader(io.StringIO(text, newline="")))
    assert len(read) == len(rows) + 1
    for cell in (cell for row in read for cell in row):
        number = cell.strip("+-").replace(".", "").replace("e", "").replace("E", "").replace("+", "").replace("-", "")
        assert not cell.startswith(("=", "@", "\t", "\r")), cell
        assert not cell.startswith(("+", "-")) or number.isdecimal(), cell


@pytest.mark.parametrize("name", ["=HYPERLINK(1)", " =1+1", "+cmd|' /C calc'!A0", "-1+1", "@SUM(1)", "\t=1", "\uff1d1"])
def test_formulas_become_text(name):
    row = next(csv.reader(io.StringIO(csv_text([name], []), newline="")))
    assert row[0].startswith("'")


def test_a_name_that_is_not_utf8_costs_no_other_prediction(tmp_path):
    names = [b"a.png", b"b\xff.png", b"=1.png"]
    images = tmp_path / "images"
    images.mkdir()
    for name in names:
        (images / "x").touch()
        os.rename(images / "x", bytes(images) + b"/" + name)  # noqa: PTH104  (bytes)
    found = [item["file"] for item in list_images(images)]
    writer = ProbabilityWriter(tmp_path / "predictions.csv", ["no", "yes"])
    engine = SimpleNamespace(state=SimpleNamespace(output={"pred": torch.eye(3)[:, :2]}, batch={"file": found}))
    writer.start(engine)
    writer.write(engine)
    writer.finish(engine)
    with (tmp_path / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["file"] for row in rows) == ["'=1.png", "a.png", "b\\udcff.png"]
