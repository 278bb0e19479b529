"""Write results whole: to a temporary name first, then moved into place."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from monai_medmerge.errors import DatasetError


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside the wanted one, which it becomes only once the block has ended without an error.

    Args:
        path: where the file shall be; an older file there is replaced. Its folder is made.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     with whole_file(Path(folder, "a.txt")) as part:
        ...         _ = part.write_text("whole")
        ...     Path(folder, "a.txt").read_text()
        'whole'
    """
    final = Path(path).absolute()
    final.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays, for writers that choose a format by it.
    part = final.with_name(f".{final.stem}.part{final.suffix}")
    try:
        yield part
        part.replace(final)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder that takes the given name only once the block has ended without an error.

    A process killed half-way leaves `NAME.part`, which the next one starts again from nothing.

    Args:
        folder: where the content shall be; it must be absent or empty.

    Raises:
        DatasetError: the folder exists and holds something.
    """
    final = Path(folder).absolute()
    if final.exists() and not (final.is_dir() and not any(final.iterdir())):
        raise DatasetError("a folder that is absent or empty", "one with content", final.name)
    partial = final.with_name(final.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if final.exists():
            final.rmdir()
        partial.replace(final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write a JSON object, whole.

    Args:
        path: the file.
        content: plain types.
    """
    with whole_file(path) as part:
        part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def save_weights(path: str | os.PathLike[str], network: nn.Module) -> None:
    """Write a network's state dict as `torch.save` does, whole, for any loader of weights only.

    Args:
        path: the file.
        network: any plain network.
    """
    with whole_file(path) as part:
        torch.save({name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}, part)
