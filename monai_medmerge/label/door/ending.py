"""How a server ends: within ten seconds of SIGTERM, and with it what it began."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
import time
from types import FrameType

import psutil
from monailabel.utils.async_tasks import utils as background

logger = logging.getLogger(__name__)
GRACE = 5.0
"""Seconds that a training has to write what it has learnt."""
LAST = 8.5
"""Seconds after which the server ends, whatever still holds it."""


class Ending:
    """Ends the processes of trainings and scores, and then the server, at the first SIGTERM or when it shuts down."""

    def __init__(self) -> None:
        self._begun = threading.Event()
        self._done = threading.Event()

    def on_signal(self) -> None:
        """Begin at SIGTERM, before the server's own handler is called. Call it in the main thread."""
        servers = signal.getsignal(signal.SIGTERM)

        def end(number: int, frame: FrameType | None) -> None:
            self.begin()
            if callable(servers):
                servers(number, frame)

        signal.signal(signal.SIGTERM, end)

    def begin(self) -> None:
        """Begin to end; a second call does nothing."""
        if not self._begun.is_set():
            self._begun.set()
            threading.Thread(target=self._end, daemon=True).start()

    def wait(self) -> None:
        """Wait until the processes have ended."""
        self._done.wait(LAST)

    def _end(self) -> None:
        begun = time.monotonic()
        for executor in background.background_executors.values():
            executor.shutdown(wait=False, cancel_futures=True)
        running = [process for tasks in background.background_processes.values() for process in tasks.values()]
        # A training is told before it is made to: it writes its weights and ends.
        for process in running:
            process.terminate()
        for process in running:
            _end_process(process, begun + GRACE)
        self._done.set()
        time.sleep(max(0.0, begun + LAST - time.monotonic()))
        logger.error("Ended with requests still open")
        os._exit(0)


def _end_process(process: subprocess.Popen[str], until: float) -> None:
    try:
        children = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        children = []
    while process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    if process.poll() is None:
        process.kill()
    for child in children:
        if child.is_running():
            child.kill()
