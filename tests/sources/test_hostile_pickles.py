"""A thousand pickles that mean harm: nothing of them is ever run, and each ends soon."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_nothing_of_a_thousand_hostile_pickles_is_run(tmp_path: Path) -> None:
    script = Path(__file__).with_name("hostile_pickles.py")
    # In a process of its own: what is watched there would catch the tests' own doings, and a crash would be seen.
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), str(tmp_path), "1000"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    read, refused, slowest = done.stdout.split()
    assert int(read) + int(refused) == 1000
    assert int(refused) > 500
    assert int(read) > 20
    assert float(slowest) < 2
    assert not (tmp_path / "marker").exists()
