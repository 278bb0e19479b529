"""GDCM in a process of its own, because damaged frames can make it abort, and an abort cannot be caught.

`decode_apart` sends one compressed frame to a child process and takes the pixels from it. The child is started when
it is first needed and then kept; one that dies or does not answer in time is replaced, and its frame refused.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import JPEGLSLossless, JPEGLSNearLossless

from monai_medmerge.errors import DicomSeriesError

_SECONDS = 4.0
_JPEG_LS = (JPEGLSLossless, JPEGLSNearLossless)
# The child finds modules where its parent does, whatever the working directory holds.
_START = (
    "import sys, json, runpy; sys.path[:] = json.loads(sys.argv[1]); runpy.run_path(sys.argv[2], run_name='__main__')"
)
_WORKER = Path(__file__).with_name("worker.py")


class _Child:
    """The child process of one process; forks start their own."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.process: subprocess.Popen[bytes] | None = None
        self.owner = 0

    def exchange(self, request: dict[str, Any], stream: bytes) -> tuple[dict[str, Any], bytes] | None:
        """Send a request and return the answer, None where the child dies or takes too long."""
        with self.lock:
            process = self._running()
            if process.stdin is None or process.stdout is None:
                return None
            # Starting up takes longer than decoding; the first answer says that the child is ready.
            timer = threading.Timer(_SECONDS, process.kill)
            timer.start()
            try:
                process.stdin.write(json.dumps({**request, "length": len(stream)}).encode() + b"\n" + stream)
                process.stdin.flush()
                answer = json.loads(process.stdout.readline())
                data = process.stdout.read(answer["length"])
                if len(data) == answer["length"]:
                    return answer, data
            except (BrokenPipeError, ValueError):
                pass
            finally:
                timer.cancel()
            # Its pipes close before it can be waited for: a child that failed once must not be asked again.
            self.stop()
            return None

    def _running(self) -> subprocess.Popen[bytes]:
        if self.process is not None and self.owner == os.getpid() and self.process.poll() is None:
            return self.process
        # A fork must not use its parent's pipes, nor close its child.
        self.process, self.owner = None, os.getpid()
        # Nothing of the arguments comes from a user or a file.
        self.process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", _START, json.dumps(sys.path), str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        if self.process.stdout is not None:
            self.process.stdout.readline()
        return self.process

    def stop(self) -> None:
        """End the child with its parent."""
        if self.process is not None and self.owner == os.getpid():
            self.process.kill()
            self.process.wait()
            self.process = None


_child = _Child()
atexit.register(_child.stop)


def decode_apart(stream: bytes, description: dict[str, Any], where: str) -> NDArray[Any]:
    """Decode one frame of JPEG lossless, JPEG-LS, JPEG 2000 or 12-bit JPEG.

    Args:
        stream: the compressed frame.
        description: "transfer_syntax", "rows", "columns", "samples_per_pixel", "photometric_interpretation",
            "bits_allocated", "bits_stored", "pixel_representation", "planar_configuration" and "precision".
        where: the file's base name and frame.

    Returns:
        (rows, columns) or (rows, columns, 3) in RGB.

    Raises:
        DicomSeriesError: GDCM refuses the frame, dies of it, or takes more than four seconds.
    """
    answer = _child.exchange(description, stream)
    if answer is None or "shape" not in answer[0]:
        found = "one on which the codec dies or hangs" if answer is None else "a damaged one"
        if answer is not None and description["transfer_syntax"] in _JPEG_LS and description["precision"] < 8:
            # It refuses most intact frames of so few bits as well.
            expected = "JPEG-LS of 8 to 16 bits, which is what the decoder (GDCM) takes"
            raise DicomSeriesError(expected, f"{description['precision']} bits", where)
        raise DicomSeriesError("a frame that GDCM decodes", found, where)
    header, data = answer
    return np.frombuffer(bytearray(data), header["dtype"]).reshape(header["shape"])
