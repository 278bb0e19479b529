"""The judge of goals: paired differences by hand, what is missing, and the exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.goals import Goal, Lines, Reached, goals, summary, worst_target


def written(folder: Path, rows: list[tuple[str, str, int, int, float]]) -> Path:
    folder.mkdir(parents=True)
    keys = ("way", "target", "labels", "seed", "f1")
    lines = [json.dumps({**dict(zip(keys, row, strict=True)), "seconds": 1, "notes": {}}) for row in rows]
    (folder / "runs.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "runs.jsonl"


def test_only_cells_that_both_ways_have_are_compared(tmp_path: Path) -> None:
    rows = [("auto", "a", 30, 0, 0.7), ("ft", "a", 30, 0, 0.6), ("auto", "b", 30, 0, 0.9), ("ft", "b", 60, 0, 0.1)]
    found = Lines(written(tmp_path / "sites", rows)).between("auto", "ft")
    assert found is not None
    assert (found.cells, found.targets) == (1, {"a": pytest.approx(10)})


def test_all_budgets_of_a_seed_are_drawn_together() -> None:
    same = summary({("a", labels, seed): float(seed) for labels in (30, 60) for seed in range(4)})
    once = summary({("a", 30, seed): float(seed) for seed in range(4)})
    assert same is not None
    assert once is not None
    assert (same.value, same.low, same.high) == (once.value, once.low, once.high)


def test_the_worst_target_is_found() -> None:
    found = worst_target(summary({("a", 30, 0): 1.0, ("b", 30, 0): -2.0}))
    assert found is not None
    assert found.value == -2


def test_a_fixed_way_is_chosen_on_other_targets(tmp_path: Path) -> None:
    from benchmarks.goals import FIXED

    rows = [(way, target, 30, 0, 0.5) for way in FIXED for target in ("a", "b", "c") if way != "taught"]
    rows += [("taught", "a", 30, 0, 0.2), ("taught", "b", 30, 0, 0.9), ("taught", "c", 30, 0, 0.9)]
    rows += [("auto", target, 30, 0, 0.6) for target in ("a", "b", "c")]
    found = Lines(written(tmp_path / "sites", rows)).left_out("auto")
    assert found is not None
    # For a, b and c say `taught`, which is worth 20 there; for b and c it is still ahead in the mean of the others.
    assert found.targets == {"a": pytest.approx(40), "b": pytest.approx(-30), "c": pytest.approx(-30)}


def test_what_was_not_measured_is_missed_and_the_interval_counts() -> None:
    reached = Reached(4.0, 1.9, 6.0, 3, {})
    assert not Goal("x", 4, None).met
    assert Goal("x", 4, reached).met
    assert not Goal("x", 4, reached, above=2).met


def test_the_program_ends_with_one_where_a_goal_is_missed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.goals", "--results", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert f"0 of {len(goals(tmp_path))} goals are met." in done.stdout
