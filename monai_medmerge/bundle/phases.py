"""What every phase of `merge.json` is followed with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from monai.handlers import TensorBoardStatsHandler
from monai.utils import optional_import
from torch import nn

from monai_medmerge.bundle.results.history import TrainingHistory
from monai_medmerge.engines import Record
from monai_medmerge.files import refusals_told
from monai_medmerge.handlers import CoefficientLogger, EpochLine, EpochSeedHandler, ResumeHandler, TerminalProgressBar

PIECE = 4096
"""Bytes of each file that tell data sets apart."""
tensorboard, _ = optional_import("torch.utils.tensorboard", descriptor="pip install 'monai_medmerge[tensorboard]': {}")


def phase_handlers(
    name: str,
    output_dir: str | Path,
    seed: int,
    dataset: Any = None,
    merged: nn.Module | None = None,
    history: TrainingHistory | None = None,
) -> list[Any]:
    """Seeds per epoch, progress bar, one line of the log an epoch, TensorBoard, and checkpoints to resume from.

    In a distributed run only the first rank shows and logs.

    Args:
        name: of the phase: tag in TensorBoard and prefix of its checkpoints.
        output_dir: events go to its `events`, checkpoints to its `checkpoints`.
        seed: of the run.
        dataset: whose random transforms are seeded for every epoch.
        merged: the merged network while its coefficients are learned, to log what is taken from whom.
        history: to be told what happens, for the report.

    A checkpoint of another seed or other data in the same folder ends the run with a `ResumeError`.
    """
    events = Path(output_dir, "events")
    with refusals_told(events, events):
        writer = tensorboard.SummaryWriter(str(events)) if idist.get_rank() == 0 else None
    seen = history.follow(name, merged, writer) if history is not None else {}
    run = Record({"seed": seed, "data_sha256": data_sha256(getattr(dataset, "data", ()))})
    resume = ResumeHandler(Path(output_dir, "checkpoints"), name, beside={"run": run, **seen})
    # Checkpoints are saved last, when all that is saved with them has seen the epoch.
    kept = [EpochSeedHandler(seed, dataset), resume, *seen.values()]
    if writer is None:
        return kept
    handlers = [
        TerminalProgressBar(desc=name, persist=False),
        EpochLine(name, merged),
        TensorBoardStatsHandler(writer, tag_name=f"{name}/loss", output_transform=_loss),
    ]
    return [*kept, *handlers, *([CoefficientLogger(merged, writer)] if merged is not None else [])]


def data_sha256(items: Iterable[Mapping[str, Any]]) -> str:
    """SHA-256 over what a datalist names: for each item its labels, and of its files the name, the size and a piece.

    Folders do not count, so that a data set may be moved. The piece is from the middle, where images have more than
    background; reading whole files would take as long as loading them.

    Args:
        items: dictionaries of paths and plain values.

    Example:
        >>> data_sha256([{"image": "a/1.png", "label": 0}]) == data_sha256([{"image": "b/1.png", "label": 0}])
        True
        >>> data_sha256([{"image": "a/1.png", "label": 0}]) == data_sha256([{"image": "a/1.png", "label": 1}])
        False
    """
    digest = hashlib.sha256()
    for item in items:
        facts = {key: _named(value) for key, value in item.items()}
        digest.update(json.dumps(facts, sort_keys=True).encode())
    return digest.hexdigest()


def _named(value: Any) -> Any:
    if not isinstance(value, str | Path):
        return str(value)
    path = Path(value)
    files = [path] if path.is_file() else sorted(path.iterdir()) if path.is_dir() else []
    return [path.name, [_described(file) for file in files if file.is_file()]]


def _described(file: Path) -> tuple[str, int, str]:
    size = file.stat().st_size
    with file.open("rb") as content:
        content.seek(size // 2)
        return file.name, size, hashlib.sha256(content.read(PIECE)).hexdigest()


def _loss(output: Mapping[str, torch.Tensor]) -> float:
    return float(output["loss"].item())
