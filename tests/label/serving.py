"""A real MONAI Label server as its own process on 127.0.0.1, for tests."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

from label_client import LabelClient

# Seconds. A loaded machine takes many times as long as an idle one.
START = 300
ANSWER = 300
PORTS = 3


@contextmanager
def serving(command: list[str], folder: Path) -> Iterator[LabelClient]:
    """Start a server, wait until it answers, and end it and what it began.

    Args:
        command: arguments of this Python that start it, without host and port.
        folder: for its log.
    """
    server, client = started(command, folder)
    try:
        yield client
    finally:
        _end(server)


def started(command: list[str], folder: Path) -> tuple[subprocess.Popen[bytes], LabelClient]:
    # Scores are computed when a test asks, not whenever the server has nothing else to do.
    environment = {**os.environ, "MONAI_LABEL_AUTO_UPDATE_SCORING": "false"}
    # Series of a DICOM study are folders; Label's store of local images takes what has one of these endings.
    environment["MONAI_LABEL_DATASTORE_FILE_EXT"] = '["*.nii.gz", "*.nii", "*.png", "*.series"]'
    log = folder / "server.log"
    for _ in range(PORTS):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        arguments = [sys.executable, "-W", "ignore", *command, "--host", "127.0.0.1", "--port", str(port)]
        with log.open("wb") as output:
            server = subprocess.Popen(arguments, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=folder)
        client = LabelClient(f"http://127.0.0.1:{port}", timeout=ANSWER)
        try:
            if _answers(server, client):
                return server, client
        except BaseException:
            _end(server)
            raise
        _end(server)
        # Another process may have taken the port before the server did.
        if "address already in use" not in log.read_text(errors="replace"):
            break
    raise RuntimeError("The server did not start:\n" + log.read_text(errors="replace")[-4000:])


def _answers(server: subprocess.Popen[bytes], client: LabelClient) -> bool:
    end = time.monotonic() + START
    while time.monotonic() < end and server.poll() is None:
        try:
            client.info()
        except URLError:
            time.sleep(0.2)
        else:
            return server.poll() is None
    return False


def _end(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(timeout=20)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
