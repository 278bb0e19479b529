"""Who writes: a process that can be told from every other one, and of which one can say later whether it still runs."""

from __future__ import annotations

import hashlib
import os
import platform
import re
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")


class Writer(NamedTuple):
    """A process, as names of temporary folders and locks tell it.

    Numbers of processes are used again, so that a number alone would take a stranger for the writer: with the time of
    its start, counted from the start of the machine, it is one process.

    Args:
        machine: eight digits that stand for the machine, and in a container for that container.
        boot: eight digits that stand for this start of the machine.
        process: its number.
        start: when it started, in ticks since then; 0 where the system does not tell.

    Example:
        >>> Writer.parse(str(Writer.this())) == Writer.this(), Writer.this().runs()
        (True, True)
    """

    machine: str
    boot: str
    process: int
    start: int

    @classmethod
    def this(cls) -> Writer:
        """The process that calls."""
        return _of(os.getpid())

    @classmethod
    def parse(cls, text: str) -> Writer | None:
        """What `str()` of a writer said; None if it is something else.

        Args:
            text: any.
        """
        hit = re.fullmatch(r"([0-9a-f]{8})-([0-9a-f]{8})-(\d{1,10})-(\d{1,20})", text, re.ASCII)
        return cls(hit[1], hit[2], int(hit[3]), int(hit[4])) if hit else None

    def __str__(self) -> str:
        return f"{self.machine}-{self.boot}-{self.process}-{self.start}"

    def runs(self) -> bool | None:
        """Whether it still runs; None if it is of another machine or container, where nobody here can look."""
        here = Writer.this()
        if self.machine != here.machine:
            return None
        return self.boot == here.boot and self.start == _start(self.process)


@lru_cache(maxsize=4)
def _of(process: int) -> Writer:
    space = ""
    # Containers of one machine may share its name, and each has numbers of its own.
    with suppress(OSError):
        space = str((PROC / "self" / "ns" / "pid").readlink())
    boot = ""
    with suppress(OSError):
        boot = (PROC / "sys" / "kernel" / "random" / "boot_id").read_text()
    return Writer(_digits(f"{platform.node()}|{space}"), _digits(boot), process, _start(process) or 0)


def _digits(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _start(process: int) -> int | None:
    """When a process started, 0 where there is no way to know; None if there is no such process."""
    if not (PROC / "self" / "stat").exists():
        return 0 if _answers(process) else None
    try:
        # The name of the program, in brackets, may hold anything; the state is the first field after it.
        state, *fields = (PROC / str(process) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    # A dead process that nobody has waited for yet writes no more.
    return None if state in "ZX" else int(fields[18])


def _answers(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
