"""Folders that one run owns."""

from __future__ import annotations

import errno
import gc
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import Forked, python, until

from monai_medmerge.errors import OutputError
from monai_medmerge.files import LOCK, Writer, locking, owned, whole_file

OWN = """
import sys, time
from monai_medmerge.files import owned
with owned(sys.argv[1]):
    print("owned", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def test_a_second_run_is_refused_in_one_line_that_names_the_first(tmp_path: Path) -> None:
    first = python(OWN, tmp_path / "out", 60)
    assert first.stdout is not None
    assert first.stdout.readline() == "owned\n"
    try:
        with pytest.raises(OutputError) as refused:
            owned(tmp_path / "out")
        assert str(refused.value) == (
            f"out: expected a folder that no other run owns, found process {first.pid} at work in it"
        )
        assert (tmp_path / "out" / LOCK).exists()
    finally:
        first.kill()
        first.wait()
    # A dead process's lock is no lock, and goes with the next run.
    assert (tmp_path / "out" / LOCK).exists()
    with owned(tmp_path / "out"):
        pass
    assert not list((tmp_path / "out").iterdir())


def test_a_run_that_writes_nothing_leaves_no_folder_that_was_not_there(tmp_path: Path) -> None:
    with owned(tmp_path / "a" / "b"):
        pass
    assert not (tmp_path / "a" / "b").exists()
    (tmp_path / "there").mkdir()
    with owned(tmp_path / "there"), owned(tmp_path / "kept"):
        (tmp_path / "kept" / "file").write_text("a")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "kept", "there"]


def test_one_process_may_own_a_folder_several_times_over(tmp_path: Path) -> None:
    outer = owned(tmp_path)
    with owned(tmp_path / "." / "x" / ".."):
        pass
    child = Forked(lambda: owned(tmp_path), tmp_path.parent / "told")
    assert child.wait() == 1
    assert f"process {os.getpid()} at work" in child.error
    # The child's end took nothing from its parent.
    assert (tmp_path / LOCK).exists()
    outer.release()
    outer.release()
    assert not (tmp_path / LOCK).exists()
    assert Forked(lambda: owned(tmp_path), tmp_path.parent / "told2").wait() == 0


def test_a_lock_that_nobody_keeps_is_given_back(tmp_path: Path) -> None:
    lock = owned(tmp_path)
    del lock
    gc.collect()
    assert not (tmp_path / LOCK).exists()


def test_workers_that_outlive_a_killed_run_do_not_own_its_folder(tmp_path: Path) -> None:
    pid = tmp_path / "worker"

    def run() -> None:
        owned(tmp_path / "out").__enter__()
        lock.append(owned(tmp_path / "out"))
        worker = os.fork()
        if not worker:
            time.sleep(20)
            os._exit(0)
        pid.write_text(str(worker))
        time.sleep(20)

    lock: list[object] = []
    child = Forked(run, tmp_path / "told")
    until(lambda: pid.exists() and bool(pid.read_text()))
    child.kill()
    try:
        owned(tmp_path / "out").release()
    finally:
        os.kill(int(pid.read_text()), 9)


def test_owning_removes_leftovers_at_any_depth(tmp_path: Path) -> None:
    def write() -> None:
        with whole_file(tmp_path / "out" / "deep" / "a") as part:
            part.write_text("half")
            time.sleep(20)

    child = Forked(write, tmp_path / "told")
    until(lambda: bool(list(tmp_path.rglob("a"))))
    child.kill()
    with owned(tmp_path / "out"):
        assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == [LOCK, "deep"]


def test_of_many_that_start_at_once_one_owns_the_folder(tmp_path: Path) -> None:
    go = tmp_path / "go"

    def run() -> None:
        until(go.exists)
        with owned(tmp_path / "out"):
            time.sleep(0.7)

    for _ in range(2):
        children = [Forked(run, tmp_path / f"told{n}") for n in range(8)]
        go.touch()
        assert sorted(child.wait() for child in children) == [0] + [1] * 7
        go.unlink()


def test_one_after_the_other_never_finds_a_lock_of_the_past(tmp_path: Path) -> None:
    def run() -> None:
        end = time.monotonic() + 1
        while time.monotonic() < end:
            try:
                with owned(tmp_path / "out"):
                    # Whoever is in here is alone.
                    (tmp_path / "inside").mkdir()
                    (tmp_path / "inside").rmdir()
            except OutputError:
                pass

    children = [Forked(run, tmp_path / f"told{n}") for n in range(4)]
    assert [(child.wait(), child.error) for child in children] == [(0, "")] * 4


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS])
def test_where_there_are_no_locks_the_name_in_the_file_counts(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(*arguments: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(locking.fcntl, "lockf", without)
    with owned(tmp_path):
        child = Forked(lambda: owned(tmp_path), tmp_path.parent / "told")
        assert child.wait() == 1
        assert f"process {os.getpid()} at work" in child.error
    this = Writer.this()
    (tmp_path / LOCK).write_text(str(this._replace(start=this.start - 1)))
    owned(tmp_path).release()
    (tmp_path / LOCK).write_text(str(this._replace(machine="0" * 8)))
    with pytest.raises(OutputError, match=f"process {this.process} of another machine"):
        owned(tmp_path)


def test_a_folder_that_is_a_file_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a")
    with pytest.raises(OutputError, match=r"^file: expected a folder that can be written to, found File exists$"):
        owned(tmp_path / "file")


RANKS = """
import sys, torch.distributed as dist
from monai_medmerge.files import owned
dist.init_process_group("gloo")
with owned(sys.argv[1]):
    dist.barrier()
dist.barrier()
dist.destroy_process_group()
"""


def test_ranks_of_one_run_share_a_folder(tmp_path: Path) -> None:
    script = tmp_path / "ranks.py"
    script.write_text(RANKS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    subprocess.run([*command, str(script), str(tmp_path / "out")], check=True, timeout=120, capture_output=True)
    assert not (tmp_path / "out").exists()
