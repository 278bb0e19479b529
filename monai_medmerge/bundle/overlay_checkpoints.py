"""A user's own checkpoint handlers: those that would undo a merge, and those that would overwrite older files."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Events
from ignite.handlers import Checkpoint, DiskSaver
from monai.handlers import CheckpointLoader, CheckpointSaver
from torch import nn

from monai_medmerge.bundle.overlay_network import plain_network

logger = logging.getLogger(__name__)
CHECKPOINT_SUFFIXES = {".pt", ".pth", ".ts", ".safetensors", ".onnx"}


def set_aside_loaders(trainer: Any, network: nn.Module, objects: Mapping[str, Any]) -> list[str]:
    """Detach every `CheckpointLoader` of a trainer that would load into a network when it starts.

    Args:
        trainer: an ignite engine.
        network: plain.
        objects: what a configuration has made, by id.

    Returns:
        The ids, with the file names, of what was detached; a loader of other objects stays.
    """
    found = []
    for name, loader in _instances(objects, CheckpointLoader):
        loaded = [plain_network(value) for value in loader.load_dict.values() if isinstance(value, nn.Module)]
        if any(value is network for value in loaded) and trainer.has_event_handler(loader, Events.STARTED):
            trainer.remove_event_handler(loader, Events.STARTED)
            found.append(f"{name} ({Path(loader.load_path).name})")
    return found


def redirect_savers(objects: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Send what would be saved into a folder that holds checkpoints already to another folder.

    Args:
        objects: what a configuration has made, by id.
        folder: where such savers write instead, each into a folder of the name of its own.

    Returns:
        Id of each saver to the folder it writes to now.
    """
    found = {}
    for name, saver in _instances(objects, CheckpointSaver | Checkpoint):
        checkpoints = [saver, *vars(saver).values()]
        for disk in {c.save_handler for c in checkpoints if isinstance(c, Checkpoint)}:
            if not isinstance(disk, DiskSaver) or not _holds_checkpoints(disk.dirname):
                continue
            disk.dirname = folder / disk.dirname.absolute().name
            if idist.get_rank() == 0:
                disk.dirname.mkdir(parents=True, exist_ok=True)
            if isinstance(saver, CheckpointSaver):
                saver.save_dir = str(disk.dirname)
            found[name] = str(disk.dirname)
    return found


def _holds_checkpoints(folder: Path) -> bool:
    return folder.is_dir() and any(path.suffix in CHECKPOINT_SUFFIXES for path in folder.iterdir())


def _instances(objects: Mapping[str, Any], kind: Any) -> Iterator[tuple[str, Any]]:
    """Objects of a class, each once, under the longest id, which is that of the object itself."""
    seen: set[int] = set()
    for name in sorted(objects, key=lambda name: -name.count("::")):
        value = objects[name]
        for item in value if isinstance(value, list | tuple) else (value,):
            # A tensor or a network among them could not be asked for membership of a set.
            if not isinstance(item, torch.Tensor) and isinstance(item, kind) and id(item) not in seen:
                seen.add(id(item))
                yield name, item
