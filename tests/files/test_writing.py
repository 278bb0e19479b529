"""Writing whole: against kills, second writers, full disks and folders that refuse."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch
from processes import Forked, until

from monai_medmerge.errors import DatasetError, MedMergeError, OutputError
from monai_medmerge.files import (
    Writer,
    below,
    reserve,
    save_state,
    save_weights,
    sweep,
    whole_file,
    whole_folder,
    write_json,
    write_text,
)

DEAD = ".medmerge-{}-{}-{}-{}-0123abcd.part"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.name != "posix" or os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder that nobody, root included, can write to."""
    folder = tmp_path / "readonly"
    folder.mkdir()
    (folder / "old.txt").write_text("old")
    if os.geteuid():
        folder.chmod(0o500)
        yield folder
        folder.chmod(0o700)
        return
    mount = ["mount", "--bind", "-o", "ro", str(folder), str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("root without the right to mount can write everywhere")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def content(folder: Path) -> dict[str, bytes | None]:
    """All that is in a folder, hidden files too."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


WRITERS: dict[str, Callable[[Path], object]] = {
    "text": lambda path: write_text(path, "x" * 3_000_000),
    "json": lambda path: write_json(path, {"long": ["x" * 100] * 30_000}),
    "network": lambda path: save_weights(path, torch.nn.Linear(1000, 1000)),
    "state": lambda path: save_state(path, {"many": [torch.zeros(1000) for _ in range(1000)]}),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_leaves_the_old_file_and_one_line(kind: str, small_disk: Path) -> None:
    path = small_disk / "result.pt"
    path.write_text("old")
    with pytest.raises(OutputError, match=r"result.pt: expected a place .* No space left on device") as refused:
        WRITERS[kind](path)
    assert content(small_disk) == {"result.pt": b"old"}
    assert "\n" not in str(refused.value)
    assert str(small_disk.parent) not in str(refused.value)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_limit_on_the_size_of_files_leaves_the_old_file_and_one_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "result.pt"
    path.write_text("old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, before[1]))
    try:
        with pytest.raises(OutputError, match=r"result.pt: expected a place .* File too large") as refused:
            WRITERS[kind](path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert content(tmp_path) == {"result.pt": b"old"}
    assert "\n" not in str(refused.value)
    assert str(tmp_path) not in str(refused.value)


def test_a_read_only_folder_is_named_without_its_path(read_only: Path) -> None:
    for write in WRITERS.values():
        with pytest.raises(
            OutputError, match=r"old.txt: expected a place that can be written to, found (Read-only|Perm)"
        ):
            write(read_only / "old.txt")
    with pytest.raises(OutputError, match=r"^new: "), whole_folder(read_only / "new"):
        pass
    assert content(read_only) == {"old.txt": b"old"}


def test_writers_in_other_languages_meet_the_same_line(small_disk: Path) -> None:
    # Both raise errors of their own, in which nothing is left of what the system said.
    for write in (
        lambda part: torch.save(torch.zeros(10**6), part),
        lambda part: safetensors.torch.save_file({"a": torch.zeros(10**6)}, str(part)),
    ):
        with pytest.raises(OutputError, match=r"a.bin: .*No space left"), whole_file(small_disk / "a.bin") as part:
            write(part)
    assert not content(small_disk)


def test_room_is_asked_for_before_a_library_that_would_end_the_process(small_disk: Path) -> None:
    with pytest.raises(OutputError, match=r"a.ts: .*No space left"), whole_file(small_disk / "a.ts") as part:
        reserve(part, 4 * 10**6)
    with whole_file(small_disk / "a.ts") as part:
        reserve(part, 500_000)
        assert not part.exists()
        part.write_text("a")
    assert content(small_disk) == {"a.ts": b"a"}


@pytest.mark.parametrize("name", ["x" * 300 + ".txt", "é" * 200])
def test_a_name_too_long_is_told_in_a_short_line(name: str, tmp_path: Path) -> None:
    for refused in (lambda: write_text(tmp_path / name, "a"), lambda: whole_folder(tmp_path / name).__enter__()):
        with pytest.raises(OutputError, match="File name too long") as error:
            refused()
        assert len(str(error.value)) < 200
        assert str(tmp_path) not in str(error.value)
    assert not content(tmp_path)


def test_a_name_as_long_as_the_system_allows_is_written(tmp_path: Path) -> None:
    write_text(tmp_path / ("x" * 255), "a")
    assert content(tmp_path) == {"x" * 255: b"a"}


def test_folders_and_devices_are_no_names_for_files(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="found a folder"):
        write_text(tmp_path / "folder", "a")
    with pytest.raises(OutputError, match="found a device"):
        write_text("/dev/null", "a")
    (tmp_path / "file").write_text("a")
    with pytest.raises(OutputError, match="Not a directory"):
        write_text(tmp_path / "file" / "below", "a")


def _half(path: Path, error: BaseException) -> None:
    with whole_file(path) as part:
        part.write_text("half")
        raise error


def test_what_the_block_itself_raises_stays(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "old")
    for error in (KeyError("own"), FileNotFoundError(2, "No such file", "input.png"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as raised:
            _half(tmp_path / "a", error)
        assert raised.value is error
    assert content(tmp_path) == {"a": b"old"}


def test_the_same_content_gives_the_same_bytes_each_time(tmp_path: Path) -> None:
    network = torch.nn.Linear(3, 3)
    for folder in ("a", "b"):
        save_weights(tmp_path / folder / "model.pt", network)
    # A name of its own for each writing would be in the archive.
    assert (tmp_path / "a" / "model.pt").read_bytes() == (tmp_path / "b" / "model.pt").read_bytes()


def _slowly(path: Path, pauses: tuple[float, float], letter: str) -> None:
    with whole_file(path) as part, part.open("w") as file:
        file.write(letter * 500)
        file.flush()
        time.sleep(pauses[0])
        file.write(letter * 500)
        file.flush()
        time.sleep(pauses[1])


def test_two_writers_of_one_file_each_write_a_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    first = Forked(lambda: _slowly(path, (0.1, 0.3), "A"), tmp_path / "first")
    until(lambda: len(list(tmp_path.glob(".medmerge-*"))) == 1)
    second = Forked(lambda: _slowly(path, (0.8, 5), "B"), tmp_path / "second")
    assert first.wait() == 0
    assert path.read_text() == "A" * 1000
    second.kill()
    assert path.read_text() == "A" * 1000
    third = Forked(lambda: _slowly(path, (0, 0), "C"), tmp_path / "third")
    assert third.wait() == 0
    # What the killed one left is gone too.
    assert content(tmp_path) == {"model.pt": b"C" * 1000}


def test_the_later_one_wins_whole(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    writers = [Forked(lambda n=n: _slowly(path, (0.1 * n, 0), "AB"[n]), tmp_path / str(n)) for n in range(2)]  # type: ignore[misc]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert content(tmp_path) == {"model.pt": b"B" * 1000}


def _fill(folder: Path, letter: str, seconds: float) -> None:
    with whole_folder(folder) as part:
        for number in range(10):
            (part / f"{letter}{number}").write_text(letter)
            time.sleep(seconds / 10)


def test_two_writers_of_one_folder_never_mix(tmp_path: Path) -> None:
    first = Forked(lambda: _fill(tmp_path / "out", "a", 0.5), tmp_path / "first")
    until(lambda: bool(list(tmp_path.glob(".medmerge-*/out"))))
    second = Forked(lambda: _fill(tmp_path / "out", "b", 0), tmp_path / "second")
    assert (second.wait(), first.wait()) == (1, 0)
    assert second.error == (
        f"OutputError: out: expected a folder that no other process writes, found process {first.process} writing it"
    )
    (tmp_path / "second").unlink()
    assert sorted(content(tmp_path / "out")) == [f"a{n}" for n in range(10)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_folder_filled_meanwhile_stays_as_it_is(tmp_path: Path) -> None:
    def late() -> None:
        with whole_folder(tmp_path / "out") as part:
            (part / "mine").write_text("mine")
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "theirs").write_text("theirs")

    with pytest.raises(OutputError, match="has filled meanwhile"):
        late()
    assert content(tmp_path) == {"out": None, "out/theirs": b"theirs"}


def test_an_empty_folder_is_taken_and_a_full_one_is_not(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with whole_folder(tmp_path / "out") as part:
        (part / "deep").mkdir()
        write_text(part / "deep" / "a.txt", "a")
    assert content(tmp_path) == {"out": None, "out/deep": None, "out/deep/a.txt": b"a"}
    with pytest.raises(DatasetError, match="absent or empty"), whole_folder(tmp_path / "out"):
        pass


def test_a_folder_of_many_files_is_whole(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "out") as part:
        for number in range(100):
            (part / str(number)).write_text("x")
    assert len(content(tmp_path / "out")) == 100


def test_only_leftovers_of_dead_writers_are_removed(tmp_path: Path) -> None:
    this = Writer.this()
    other = "0" * 8
    live = tmp_path / DEAD.format(*this)
    dead = [
        DEAD.format(this.machine, this.boot, this.process, this.start - 1),
        DEAD.format(this.machine, other, this.process, this.start),
    ]
    # Names a user may have, one of them with our beginning and end.
    kept = ["study.part", ".medmerge-mine.part", ".medmerge-notes.part.txt", DEAD.format(*this)[:-5], ".result.1.part"]
    elsewhere = DEAD.format(other, this.boot, 1, 1)
    for name in (*dead, *kept, elsewhere, live.name):
        (tmp_path / name).mkdir()
        (tmp_path / name / "only_copy.txt").write_text("mine")
    # A file or a link of such a name was not made here.
    (tmp_path / DEAD.format(this.machine, other, 7, 7)).write_text("a file")
    (tmp_path / DEAD.format(this.machine, other, 8, 8)).symlink_to(tmp_path / "study.part")
    before = {path.name for path in tmp_path.iterdir()}
    write_text(tmp_path / "new.txt", "new")
    assert {path.name for path in tmp_path.iterdir()} == before - set(dead) | {"new.txt"}
    # Nobody can ask another machine; a day without a change is long enough.
    old = time.time() - 2 * 24 * 3600
    os.utime(tmp_path / elsewhere / "only_copy.txt", (old, old))
    assert sweep(tmp_path) == []
    os.utime(tmp_path / elsewhere, (old, old))
    assert sweep(tmp_path) == [elsewhere]


def test_a_killed_writer_leaves_what_the_next_one_removes(tmp_path: Path) -> None:
    write_text(tmp_path / "deep" / "a.txt", "old")
    for write, begun in (
        (lambda: _slowly(tmp_path / "deep" / "a.txt", (9, 9), "x"), "deep/.medmerge-*/a.txt"),
        (lambda: _fill(tmp_path / "b", "x", 9), ".medmerge-*/b/x0"),
    ):
        child = Forked(write, tmp_path / "told")
        until(lambda begun=begun: bool(list(tmp_path.glob(begun))))  # type: ignore[misc]
        child.kill()
    assert len(list(tmp_path.rglob(".medmerge-*.part"))) == 2
    assert len(sweep(tmp_path, deep=True)) == 2
    assert content(tmp_path) == {"deep": None, "deep/a.txt": b"old"}


def test_a_killed_parent_with_a_number_used_again_is_dead() -> None:
    this = Writer.this()
    assert this.runs() is True
    assert this._replace(start=this.start + 1).runs() is False
    assert this._replace(boot="0" * 8).runs() is False
    assert this._replace(process=2**22 + 1).runs() is False
    assert this._replace(machine="0" * 8).runs() is None


def test_a_child_nobody_waited_for_is_dead(tmp_path: Path) -> None:
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, str(Writer.this()).encode())
        time.sleep(30)
        os._exit(0)
    writer = Writer.parse(os.read(read, 100).decode())
    assert writer is not None
    assert (writer.process, writer.runs()) == (child, True)
    os.kill(child, 9)
    until(lambda: writer.runs() is False)
    os.waitpid(child, 0)
    assert writer.runs() is False


def test_names_lead_below(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "in").symlink_to(tmp_path / "inside")
    (tmp_path / "out").symlink_to(tmp_path.parent)
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for name in ("a", "a/b.png", "in/a", "a..b/..c", "ü", "x" * 255, ".hidden", "a b"):
        assert below(tmp_path, name) == tmp_path / name
    wrong = {
        "an absolute path": ["/etc/passwd", "C:\\x", "\\\\host\\share", "//x"],
        "`..`": ["..", "../x", "a/../../x", "a/..", "..\\x", "a\\..\\b"],
        "a control character": ["a\nb", "\x1b[2J", "a\0", "a\u2028b", "\udce9"],
        "none": ["", ".", "./"],
        "bytes": ["x" * 256, "é" * 128, "/".join(["a"] * 2100)],
        "a link that leaves it": ["out", "out/x", "circle/x"],
    }
    for found, names in wrong.items():
        for name in names:
            with pytest.raises(DatasetError, match=f"image: .* found .*{re.escape(found)}") as error:
                below(tmp_path, name, "image", DatasetError)
            assert str(error.value).isprintable()
            assert len(str(error.value)) < 150
    for odd in (3, None):
        with pytest.raises((MedMergeError, TypeError)):
            below(tmp_path, odd)  # type: ignore[arg-type]
