"""The report: complete, self-contained, the same in three forms, without a patient's name; and seen in a browser."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation.reports import parse
from sklearn import metrics
from torch import Tensor

from monai_medmerge.evaluation import Resampling, check, compare_predictions, contributions
from monai_medmerge.evaluation.report.assembly import ReportContent, describe_command, document
from monai_medmerge.evaluation.report.first_screen import summary
from monai_medmerge.evaluation.report.page import CARD, DATA, PAGE, number, write_report
from monai_medmerge.evaluation.report.points import net_benefit, precision_points, roc_points


def test_the_page_holds_everything_and_asks_for_nothing(written: dict[str, Path]) -> None:
    page, text = parse(written[PAGE]), written[PAGE].read_text()
    assert page.open == []
    assert len(written[PAGE].read_bytes()) < 5_000_000
    addresses = [v for _, a in page.found for k, v in a.items() if k in ("src", "srcset", "href") and v]
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert "url(" not in text
    assert "@import" not in text
    names = {tag for tag, _ in page.found}
    assert {"main", "nav", "h1", "figcaption", "table", "picture"} <= names
    assert not {"script", "iframe", "form"} & names
    assert all(attributes.get("alt") for tag, attributes in page.found if tag == "img")
    identifiers = [a["id"] for _, a in page.found if "id" in a]
    assert len(identifiers) == len(set(identifiers))
    headings = {"short", "results", "done"}
    assert {f"#{name}" for name in identifiers if name not in headings} == {a for a in addresses if a.startswith("#")}
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_all_three_say_the_same(written: dict[str, Path], content: ReportContent) -> None:
    data = json.loads(written[DATA].read_text())
    assert data == json.loads(json.dumps(document(content)))
    page, card = written[PAGE].read_text(), written[CARD].read_text()
    assert content.comparison is not None
    assert content.gate is not None
    for row in content.comparison.rows:
        value = number(row.found.candidate.value)
        assert value in page
        assert value in card
    for text in (page, card):
        assert f"{content.sources[0].sha256[16:]}" in text
        assert "CC BY 4.0" in text
        assert "not stated" in text
        assert "redundant: the same features as" in text
        assert "not a medical device" in text.lower()
        assert content.gate.outcome in text
        assert data["versions"]["torch"] in text
        assert "verify.json" in text
        assert "default, not chosen by the site" in text
    assert data["sources"][0]["data"] == "chest X-ray, T1/T2"


def test_no_name_of_a_patient_is_anywhere(written: dict[str, Path]) -> None:
    for path in written.values():
        assert "MUSTERMANN" not in path.read_text()
        assert "ward" not in path.read_text()


def test_names_are_text_and_never_markup(written: dict[str, Path]) -> None:
    assert "<script" not in written[PAGE].read_text()
    card = written[CARD].read_text()
    assert "<script" not in re.sub(r"\\<script", "", card)
    tables = [line for line in card.splitlines() if line.startswith("|")]
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in tables]
    # Every table keeps the number of columns that its rule has.
    width = 0
    for n, found in enumerate(widths):
        if n + 1 < len(tables) and set(tables[n + 1]) <= set("|-"):
            width = found
        assert found == width


def test_a_report_of_nothing_is_a_report(tmp_path: Path) -> None:
    paths = write_report(tmp_path / "new" / "folder", ReportContent("Nothing yet"))
    assert parse(paths[PAGE]).open == []
    assert json.loads(paths[DATA].read_text())["gate"] is None
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == sorted([PAGE, DATA, CARD])


def test_the_same_content_is_the_same_report(tmp_path: Path, content: ReportContent, written: dict[str, Path]) -> None:
    again = write_report(tmp_path, content)
    assert all(again[name].read_bytes() == written[name].read_bytes() for name in written)


def test_a_report_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    paths = write_report(tmp_path, ReportContent("Old"))
    old = {name: path.read_bytes() for name, path in paths.items()}
    with pytest.raises(ValueError, match="could not convert"):
        write_report(tmp_path, ReportContent("New", curves={"loss": [("one", 1.0)]}))
    assert {name: path.read_bytes() for name, path in paths.items()} == old


def test_training_that_diverged_is_reported(tmp_path: Path) -> None:
    curves = {"loss": [(1.0, 0.5), (2.0, float("nan"))], "never begun": []}
    paths = write_report(tmp_path, ReportContent("Diverged", curves=curves))
    assert json.loads(paths[DATA].read_text())["curves"] == {"loss": [[1.0, 0.5], [2.0, None]]}
    assert "from 0.500 to – in 2 epochs" in paths[CARD].read_text()


def test_odd_values_become_plain_ones() -> None:
    stage = {"a": np.float32(0.5), "b": float("nan"), "c": Tensor([1.0]), "d": (1, None), "e": {"f": np.int64(3)}}
    found = document(ReportContent("x", stages={"s": stage}))["stages"]["s"]
    assert found == {"a": 0.5, "b": None, "c": "a Tensor", "d": [1, None], "e": {"f": 3}}


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (["run", "/a/doe.dcm"], "run PATH"),
        (["--files", "['/a/doe', 'b']"], "--files PATH"),
        (["--meta_file=C:\\x\\metadata.json"], "--meta_file=metadata.json"),
        (["--epochs", "20"], "--epochs 20"),
    ],
)
def test_commands_lose_their_paths(parts: list[str], expected: str) -> None:
    assert describe_command(parts) == expected


def test_names_with_dollars_and_braces_are_drawn_as_text(tmp_path: Path) -> None:
    labels = np.arange(60) % 2
    good = np.where(labels[:, None] == [0, 1], 0.9, 0.1)
    names = ["$x_{$", "\\alpha $"]
    found = compare_predictions(good, 1 - good, labels, names, resampling=Resampling(samples=20))
    frame = contributions({"$a.weight": torch.ones(2, 3) / 2}, ["$s", "t$"])
    paths = write_report(tmp_path, ReportContent("$t$", comparison=found, gate=check(found), contributions=frame))
    assert "$x_{$" in paths[PAGE].read_text()


def test_the_first_screen_says_what_it_is_in_words() -> None:
    labels = np.arange(300) % 2
    good = np.where(labels[:, None] == [0, 1], 0.95, 0.05)
    worse = good.copy()
    worse[1:60:2] = worse[1:60:2, ::-1]
    found = compare_predictions(good, worse, labels, ["cyst", "solid"], resampling=Resampling(samples=100))
    told = summary(found, check(found))
    assert (told["use"]["sign"], told["use"]["word"], told["better"]["word"]) == ("✗", "Failed", "Worse")
    assert [text.split(":")[0] for text in told["worse_for"]] == ["solid"]
    same = compare_predictions(good, good, labels, ["cyst", "solid"], resampling=Resampling(samples=100))
    told = summary(same, check(same))
    assert (told["use"]["word"], told["better"]["word"], told["worse_for"]) == ("Passed", "Equal in every case", [])


def test_curves_are_those_of_the_libraries() -> None:
    rng = np.random.default_rng(0)
    positive = rng.random(500) < 0.3
    scores = (rng.random(500) + positive).round(2) / 2
    false, true = roc_points(scores, positive)
    assert np.trapezoid(true, false) == pytest.approx(metrics.roc_auc_score(positive, scores), abs=1e-9)
    recall, precision = precision_points(scores, positive)
    area = float(np.sum(np.diff(recall) * precision[1:]))
    assert area == pytest.approx(metrics.average_precision_score(positive, scores), abs=1e-9)
    benefit = net_benefit(scores, positive)
    for n in (9, 49, 89):
        threshold, said = benefit["network"][0][n], scores >= benefit["network"][0][n]
        by_hand = (said & positive).mean() - (said & ~positive).mean() * threshold / (1 - threshold)
        assert benefit["network"][1][n] == pytest.approx(by_hand, abs=1e-9)


def test_ten_thousand_cases_are_reported_in_under_a_minute(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 10_000)
    both = []
    for strength in (1.5, 1.6):
        scores = np.exp(rng.normal(size=(10_000, 4)) + strength * np.eye(4)[labels])
        both.append(scores / scores.sum(1, keepdims=True))
    start = time.process_time()
    found = compare_predictions(*both, labels, list("abcd"), {"site": [str(n % 3) for n in range(10_000)]})
    paths = write_report(tmp_path, ReportContent("Many", comparison=found, gate=check(found)))
    assert time.process_time() - start < 60
    assert paths[PAGE].stat().st_size < 5_000_000
