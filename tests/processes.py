"""Processes that write and are killed, forked so that nothing has to be imported again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path


class Forked:
    """A child that runs a function and ends; its status is 0, or 1 with the error's text in `error`."""

    def __init__(self, function: Callable[[], object], told: Path) -> None:
        self.told = told
        self.process = os.fork()
        if self.process:
            return
        status = 1
        try:
            function()
            status = 0
        except BaseException as error:  # noqa: BLE001
            told.write_text(f"{type(error).__name__}: {error}")
            if os.environ.get("SHOW_CHILDREN"):
                traceback.print_exc()
        finally:
            os._exit(status)

    def wait(self) -> int:
        """Its exit status; minus the signal's number if one ended it."""
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])

    def kill(self) -> None:
        """End it as a failing machine would."""
        os.kill(self.process, signal.SIGKILL)
        self.wait()

    @property
    def error(self) -> str:
        """Of the function."""
        return self.told.read_text() if self.told.exists() else ""


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for something another process does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def python(code: str, *arguments: object, **keywords: object) -> subprocess.Popen[str]:
    """A process of its own that runs code."""
    command = [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **keywords)  # type: ignore[call-overload, no-any-return]
