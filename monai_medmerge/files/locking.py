"""One run at a time in a folder."""

from __future__ import annotations

import errno
import os
import threading
import weakref
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch.distributed as dist

from monai_medmerge.errors import OutputError
from monai_medmerge.files.identity import Writer
from monai_medmerge.files.naming import shown
from monai_medmerge.files.writing import sweep

try:
    import fcntl
except ImportError:  # Windows: the name in the lock decides, see below.
    fcntl = None  # type: ignore[assignment]

LOCK = ".medmerge.lock"
"""Name of the file in an owned folder; it holds who owns it, and goes with the run."""

# Note [What a lock is]
# A POSIX lock of a file (fcntl.lockf). The system drops it when the process ends, however it ends, so that no dead
# process holds one; processes forked by the owner do not inherit it. It holds between the machines that share a folder
# by NFS (version 4, or 3 with its lock service), by SMB and by most cluster file systems. Where a file system knows no
# locks, or the system has none, the process that is named in the file counts as the owner for as long as it runs; what
# another machine wrote there then counts too, until the file is removed.

_guard = threading.Lock()
# By process as well, as a forked one inherits the table but not the locks.
_held: dict[tuple[int, Path], _Held] = {}


@dataclass
class _Held:
    """An owned folder: the open lock, how often it is owned, and whether it was made for that."""

    handle: int
    made: bool
    count: int = 1


class FolderLock:
    """That this process owns a folder, until `release`, the end of a `with`, or the end of the object or the process.

    Args:
        folder: resolved.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        _take(folder)
        self._end = weakref.finalize(self, _give_back, os.getpid(), folder)

    def release(self) -> None:
        """Let others have it. A second time does nothing."""
        self._end()

    def __enter__(self) -> Path:
        return self.folder

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


def owned(folder: str | os.PathLike[str]) -> FolderLock:
    """Own a folder for a run: a second run on it is refused. What dead writers left in it, at any depth, is removed.

    The same process may own a folder several times over. In a distributed run the first rank owns it for all.

    Args:
        folder: made if absent.

    Returns:
        To be used in a `with`, or kept for as long as the run lasts.

    Raises:
        OutputError: another process owns it, which is named; or the folder cannot be written to.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     with owned(folder), owned(folder):
        ...         print([path.name for path in Path(folder).iterdir()])
        ...     print([path.name for path in Path(folder).iterdir()])
        ['.medmerge.lock']
        []
    """
    return FolderLock(Path(folder).resolve())


def _take(folder: Path) -> None:
    if dist.is_available() and dist.is_initialized() and dist.get_rank() > 0:
        return
    key = os.getpid(), folder
    with _guard:
        if key in _held:
            _held[key].count += 1
            return
        try:
            made = not folder.exists()
            handle = _lock(folder)
        except OSError as error:
            found = error.strerror or type(error).__name__
            raise OutputError("a folder that can be written to", found, shown(folder.name)) from error
        _held[key] = _Held(handle, made)
    sweep(folder, deep=True)


def _give_back(process: int, folder: Path) -> None:
    # A forked process ends with a copy of the object, and the lock is not its own.
    if process != os.getpid():
        return
    with _guard:
        held = _held.get((process, folder))
        if held is None:
            return
        held.count -= 1
        if held.count:
            return
        del _held[process, folder]
        # Removed while it is still locked: whoever opened it meanwhile finds that it is no longer the one.
        (folder / LOCK).unlink(missing_ok=True)
        os.close(held.handle)
        if held.made:
            # A run that was refused, or wrote nothing, leaves no folder behind.
            with suppress(OSError):
                folder.rmdir()


def _lock(folder: Path) -> int:
    path = folder / LOCK
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        except FileNotFoundError:
            # The one before took its folder with it.
            continue
        try:
            # What is in the file counts only where the lock itself cannot tell.
            owner = None if _locked(handle, folder) else _written(handle)
            if owner is not None and owner != Writer.this() and owner.runs() is not False:
                raise _taken(folder, owner)
            if _is_at(handle, path):
                os.ftruncate(handle, 0)
                os.lseek(handle, 0, os.SEEK_SET)
                os.write(handle, f"{Writer.this()}\n".encode())
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _locked(handle: int, folder: Path) -> bool:
    """Whether the file is locked now; False where there are no locks."""
    if fcntl is None:
        return False
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise _taken(folder, _written(handle)) from None
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL):
            return False
        raise
    return True


def _is_at(handle: int, path: Path) -> bool:
    """Whether an open file is the one of that name, and not one that has been removed meanwhile."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _written(handle: int) -> Writer | None:
    os.lseek(handle, 0, os.SEEK_SET)
    return Writer.parse(os.read(handle, 200).decode("ascii", "replace").strip())


def _taken(folder: Path, owner: Writer | None) -> OutputError:
    place = "" if owner is None or owner.runs() is not None else " of another machine or container"
    found = f"process {owner.process}{place}" if owner else "another process"
    return OutputError("a folder that no other run owns", f"{found} at work in it", shown(folder.name))
