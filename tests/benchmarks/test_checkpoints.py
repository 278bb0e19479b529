"""The benchmark of checkpoints: every form into one network, and that it would see what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.checkpoints.__main__ import run, table
from benchmarks.checkpoints.forms import saved, state
from benchmarks.checkpoints.samples import Sample
from benchmarks.checkpoints.speed import compare, write_large
from benchmarks.checkpoints.trial import Form, attempt


def test_every_form_comes_out_as_the_table_says() -> None:
    results = run(["DynUNet"])
    assert len(results) * 6 >= 400
    for form, by_network in results.items():
        assert by_network["DynUNet"].as_said, (form.group, form.name, by_network["DynUNet"].why)
    assert len(table(results).splitlines()) == len(results) + 2


@pytest.mark.parametrize(
    ("form", "outcome"),
    [
        (Form("", "other numbers", saved(lambda s: s.averaged), state), "wrong"),
        (Form("", "taken for a refusal", saved(state), "anything"), "wrong"),
        (Form("", "nothing told", saved(state), state, said="averaged weights"), "wrong"),
        (Form("", "refused for taken", saved(lambda s: {"lr": 0.1}), state), "refused"),
        (Form("", "refused for another reason", saved(lambda s: {"lr": 0.1}), "NaN"), "refused"),
    ],
)
def test_what_comes_out_otherwise_is_seen(form: Form, outcome: str, tmp_path: Path) -> None:
    result = attempt(form, Sample.of("ResNet"), tmp_path)
    assert (result.outcome, result.as_said) == (outcome, False)


def test_times_are_a_table_of_ratios(tmp_path: Path) -> None:
    lines = compare(write_large(tmp_path, 32)).splitlines()
    assert lines[0].startswith("34 MB")
    assert lines[-1].startswith("| Source.from_file |")
    assert lines[-1].endswith("1.00 times that |")
