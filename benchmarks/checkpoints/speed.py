"""What reading a large checkpoint costs beside torch.load(mmap=True)."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from monai_medmerge import Source

ROUNDS = 5


def write_large(folder: Path, megabytes: int) -> Path:
    """A state dict of random numbers, in tensors of 16 MB."""
    count = max(megabytes // 16, 1)
    torch.save({f"layer{n}.weight": torch.rand(2048, 2048) for n in range(count)}, folder / "large.pt")
    return folder / "large.pt"


def compare(path: Path) -> str:
    """Seconds of three ways to read a file, in turns, the file in the system's cache."""
    ways: dict[str, Callable[[], object]] = {
        "torch.load(mmap=True)": lambda: _mapped(path),
        "torch.load(mmap=True) and a sum of every tensor": lambda: [value.sum() for value in _mapped(path).values()],
        "torch.load": lambda: torch.load(path, map_location="cpu", weights_only=True),
        "Source.from_file": lambda: Source.from_file(path),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    ours = medians["Source.from_file"]
    lines = [f"{path.stat().st_size / 1e6:,.0f} MB, median of {ROUNDS}:", "", "| way | seconds | Source.from_file is |"]
    lines.append("|---|---|---|")
    lines += [f"| {name} | {value:.3f} | {ours / value:.2f} times that |" for name, value in medians.items()]
    return "\n".join(lines)


def _mapped(path: Path) -> dict[str, Tensor]:
    content: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return content
