"""Write results whole: in a temporary folder first, flushed to the disk, then moved into place."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from monai_medmerge.errors import DatasetError, MedMergeError, OutputError
from monai_medmerge.files.identity import Writer
from monai_medmerge.files.naming import shown

# Note [Temporary folders]
# What is being written lies under its final name in a folder of its own beside the place where it belongs, which costs
# no more than a renaming in the end. Formats that note a file's name inside (TorchScript, torch.save, gzip) then note
# the right one, and hash the same; no name is too long for a prefix; and formats chosen by suffix are the right ones.
_HOLDER = re.compile(r"\.medmerge-(.+)-[0-9a-f]{8}\.part", re.ASCII)
# Seconds after which a holder that nothing has touched is a dead writer's, where its machine cannot be asked.
_ABANDONED = 24 * 3600
# Only writing ends in these, whoever calls.
_NO_ROOM = {errno.ENOSPC, errno.EFBIG, errno.EROFS, getattr(errno, "EDQUOT", errno.ENOSPC)}
# Bytes that a disk with room takes.
_PROBE = 2**24
# More files than this are flushed by one call for the whole system, which takes less time than one for each.
_FEW = 32

_next_sweep: dict[Path, float] = {}


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path, of the same name, that becomes the wanted one once the block has ended without an error.

    Whatever happens, and whenever the process is killed, the old file or the new one is there, whole. Of two processes
    that write one file, each writes a whole one, and the last to end wins.

    Args:
        path: where the file shall be; an older file there is replaced. Its folder is made.

    Raises:
        OutputError: the disk is full, the folder is read-only, the name too long, or a folder has that name.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     with whole_file(Path(folder, "a.txt")) as part:
        ...         _ = part.write_text("whole")
        ...     Path(folder, "a.txt").read_text()
        'whole'
    """
    final = Path(path).absolute()
    # A device would be replaced too, and /dev/null be a file from then on.
    if (kind := _kind(final)) not in (None, "a file"):
        raise OutputError("a name for a file", str(kind), shown(final.name))
    with _holder(final) as part:
        yield part
        _flush(part)
        part.replace(final)
        _flush(final.parent)


@contextmanager
def whole_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder that takes the given name only once the block has ended without an error.

    Args:
        folder: where the content shall be; it must be absent or empty.

    Raises:
        DatasetError: the folder exists and holds something.
        OutputError: another process is writing it, or it cannot be written.
    """
    final = Path(folder).absolute()
    if (kind := _kind(final)) and (kind != "a folder" or any(final.iterdir())):
        raise DatasetError("a folder that is absent or empty", "one with content", shown(final.name))
    for holder, writer in _holders(final.parent):
        if writer.runs() and (holder / final.name).is_dir():
            found = f"process {writer.process} writing it"
            raise OutputError("a folder that no other process writes", found, shown(final.name))
    with _holder(final) as part:
        part.mkdir()
        yield part
        _flush_all(part)
        # Not every system moves a folder onto an empty one.
        with suppress(OSError):
            final.rmdir()
        try:
            part.rename(final)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            found = "one that another process has filled meanwhile"
            raise OutputError("a folder that is absent or empty", found, shown(final.name)) from error
        _flush(final.parent)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text, whole, in UTF-8.

    Args:
        path: the file.
        text: its content.

    Raises:
        OutputError: it cannot be written.
    """
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8", newline="")


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write a JSON object, whole.

    Args:
        path: the file.
        content: plain types.

    Raises:
        OutputError: it cannot be written.
    """
    write_text(path, json.dumps(content, indent=2) + "\n")


def save_state(path: str | os.PathLike[str], content: Any) -> None:
    """Write what `torch.save` takes, whole.

    Args:
        path: the file.
        content: plain containers of tensors, for any loader of weights only.

    Raises:
        OutputError: it cannot be written.
    """
    # To a file of Python's, which says what the system said.
    with whole_file(path) as part, part.open("wb") as file:
        torch.save(content, file)


def save_weights(path: str | os.PathLike[str], network: nn.Module) -> None:
    """Write a network's state dict as `torch.save` does, whole, for any loader of weights only.

    Args:
        path: the file.
        network: any plain network.

    Raises:
        OutputError: it cannot be written.
    """
    save_state(path, {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()})


def reserve(path: str | os.PathLike[str], size: int) -> None:
    """Make sure, as far as one can, that the disk takes a file of a size, before a library writes it.

    Where `torch.jit.save` meets a full disk it ends the whole process, without an error that one could catch.

    Args:
        path: temporary, of `whole_file`; nothing is there afterwards.
        size: bytes.

    Raises:
        OSError: there is no room, which `whole_file` tells in one line.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        with Path(path).open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    finally:
        Path(path).unlink(missing_ok=True)


def sweep(folder: str | os.PathLike[str], deep: bool = False) -> list[str]:
    """Remove what writers that no longer run have left in a folder, and nothing else.

    Only temporary folders of this package's own kind of name are looked at; those of a writer on another machine, which
    may run, are removed when nothing in them has changed for a day.

    Args:
        folder: to look into.
        deep: look into the folders below, too.

    Returns:
        Names of what was removed.
    """
    removed = []
    for holder, writer in _holders(Path(folder)):
        runs = writer.runs()
        if runs is False or (runs is None and time.time() - _newest(holder) > _ABANDONED):
            shutil.rmtree(holder, ignore_errors=True)
            removed.append(holder.name)
    if deep:
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False) and not _HOLDER.fullmatch(entry.name):
                    removed += sweep(entry.path, deep=True)
    return removed


@contextmanager
def _holder(final: Path) -> Iterator[Path]:
    """A path of the final name in a temporary folder; what the system refuses is told in one line."""
    holder = final.with_name(f".medmerge-{Writer.this()}-{secrets.token_hex(4)}.part")
    try:
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            _sweep_now_and_then(final.parent)
            holder.mkdir()
        except OSError as error:
            raise _refused(final, error) from error
        with refusals_told(final, holder):
            yield holder / final.name
    finally:
        shutil.rmtree(holder, ignore_errors=True)


@contextmanager
def refusals_told(path: Path, folder: Path) -> Iterator[None]:
    """Tell what the system refuses in one line, where a library writes by itself: logs, that grow as they are read.

    Args:
        path: what is written; only its name is told.
        folder: where the library writes, and nothing else does.

    Raises:
        OutputError: something inside failed because the system refused to write.
    """
    try:
        yield
    except MedMergeError as error:
        # What was made of a library's own words, such as "the network cannot be exported", may be a full disk too.
        if not isinstance(error, OutputError) and (behind := _behind(error, folder)):
            raise _refused(path, behind) from error
        raise
    except Exception as error:
        if behind := _behind(error, folder):
            raise _refused(path, behind) from error
        raise


def _kind(path: Path) -> str | None:
    """What is there under a name; None if nothing is, or what a link leads to is not there."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _refused(path, error) from error
    return "a folder" if stat.S_ISDIR(mode) else "a file" if stat.S_ISREG(mode) else "a device"


def _refused(final: Path, error: OSError) -> OutputError:
    return OutputError("a place that can be written to", error.strerror or type(error).__name__, shown(final.name))


def _behind(error: BaseException, holder: Path) -> OSError | None:
    """What the system said against writing, if that is what is behind an error."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        if isinstance(link, OSError) and (link.errno in _NO_ROOM or _concerns(link, holder)):
            return link
        link = link.__cause__ or link.__context__
    return _exhausted(holder)


def _exhausted(holder: Path) -> OSError | None:
    """Whether the system takes no more bytes, asked by writing on: writers in C++ say only that they failed."""
    files = sorted((path for path in holder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    try:
        with (files[-1] if files else holder / "more").open("ab") as file:
            file.write(bytes(_PROBE))
    except OSError as error:
        return error if error.errno in _NO_ROOM else None
    return None


def _concerns(error: OSError, holder: Path) -> bool:
    names = (error.filename, error.filename2)
    return any(isinstance(name, str | os.PathLike) and Path(name).is_relative_to(holder) for name in names)


def _sweep_now_and_then(folder: Path) -> None:
    """Look for leftovers, but for no more than a hundredth of the time: folders may hold very many files."""
    start = time.monotonic()
    if start < _next_sweep.get(folder, start):
        return
    sweep(folder)
    end = time.monotonic()
    _next_sweep[folder] = end + 100 * (end - start)


def _holders(folder: Path) -> list[tuple[Path, Writer]]:
    """Temporary folders in a folder, with whose they are."""
    found = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            hit = _HOLDER.fullmatch(entry.name)
            writer = Writer.parse(hit[1]) if hit else None
            if writer is not None and entry.is_dir(follow_symlinks=False):
                found.append((Path(entry.path), writer))
    return found


def _newest(folder: Path) -> float:
    """When something in a folder changed last; now, if it is just going."""
    try:
        return max(path.lstat().st_mtime for path in (folder, *folder.rglob("*")))
    except OSError:
        return time.time()


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems know no flushing of folders.
        if not path.is_dir() or error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def _flush_all(folder: Path) -> None:
    paths = [folder, *(path for path in folder.rglob("*") if not path.is_symlink())]
    if len(paths) > _FEW and hasattr(os, "sync"):
        os.sync()
        return
    for path in paths:
        _flush(path)
