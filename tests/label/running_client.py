"""`examples/label_client.py` as a user runs it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import label_client


def run_client(
    url: str, model: str, files: tuple[dict[str, Path], dict[str, Path]], folder: Path, *options: str
) -> str:
    """Label all images but the first, train, and have the first answered into `output`.

    Args:
        url: of the server.
        model: to train.
        files: images and labels by name.
        folder: for images, labels and answers.
        options: more of the command line.

    Returns:
        What it printed.
    """
    images, labels = files
    for kind, copied in (("images", list(images.values())), ("labels", list(labels.values())[1:])):
        (folder / kind).mkdir()
        for file in copied:
            shutil.copy(file, folder / kind)
    command = [sys.executable, label_client.__file__, "--url", url, "--model", model, *options]
    for kind in ("images", "labels", "output"):
        command += [f"--{kind}", str(folder / kind)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
