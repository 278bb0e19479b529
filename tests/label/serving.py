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

START = 120


@contextmanager
def serving(command: list[str], folder: Path) -> Iterator[LabelClient]:
    """Start a server, wait until it answers, and end it and what it began.

    Args:
        command: arguments of this Python that start it, without host and port.
        folder: for its log.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Scores are computed when a test asks, not whenever the server has nothing else to do.
    environment = {**os.environ, "MONAI_LABEL_AUTO_UPDATE_SCORING": "false"}
    # Series of a DICOM study are folders; Label's store of local images takes what has one of these endings.
    environment["MONAI_LABEL_DATASTORE_FILE_EXT"] = '["*.nii.gz", "*.nii", "*.png", "*.series"]'
    log = folder / "server.log"
    with log.open("wb") as output:
        arguments = [sys.executable, "-W", "ignore", *command, "--host", "127.0.0.1", "--port", str(port)]
        server = subprocess.Popen(arguments, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=folder)
        try:
            client = LabelClient(f"http://127.0.0.1:{port}", timeout=120)
            _wait(server, client, log)
            yield client
        finally:
            server.terminate()
            try:
                server.wait(timeout=20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _wait(server: subprocess.Popen[bytes], client: LabelClient, log: Path) -> None:
    end = time.monotonic() + START
    while time.monotonic() < end and server.poll() is None:
        try:
            client.info()
        except URLError:
            time.sleep(0.2)
        else:
            return
    raise RuntimeError("The server did not start:\n" + log.read_text(errors="replace")[-4000:])
