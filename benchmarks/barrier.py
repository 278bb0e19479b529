"""How much of the barrier between two independently trained networks alignment and recalibration take away.

    python -m benchmarks.barrier --output benchmarks/results/barrier.jsonl
    python -m benchmarks.barrier --summary benchmarks/results/barrier.jsonl

Pneumonia on chest X-rays (PneumoniaMNIST as reassembled under MEDMERGE_DATA). Per architecture, width and seed two
networks are trained from different initialisations and data orders; then loss and accuracy are measured on the line
between them, on the official test split and on training images: raw, aligned by weights, aligned by activations, each
with and without batch-norm recalibration on training images. One JSON line per case; finished cases are not run again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.networks.nets import ResNet
from torch import Tensor, nn

from monai_medmerge import Source
from monai_medmerge.evaluation.barriers import barrier

EPOCHS = 4
BATCH = 128


def resnet(width: int) -> nn.Module:
    """A ResNet of four basic blocks with batch-norm."""
    return ResNet("basic", [1, 1, 1, 1], [width * m for m in (1, 2, 4, 8)], 2, 1, 3, 2, True, num_classes=2)


def plain(width: int) -> nn.Module:
    """Five convolutions and two linear layers, no norm at all."""
    layers: list[nn.Module] = []
    channels = [1, width, width, 2 * width, 2 * width, 4 * width]
    for n, (inputs, outputs) in enumerate(itertools.pairwise(channels)):
        layers += [nn.Conv2d(inputs, outputs, 3, stride=1 + n % 2, padding=1), nn.ReLU()]
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(channels[-1] * 49, 4 * width), nn.ReLU(), nn.Linear(4 * width, 2)
    )


NETWORKS: dict[str, Callable[[int], nn.Module]] = {"ResNet, batch-norm": resnet, "plain, no norm": plain}


def load() -> dict[str, tuple[Tensor, Tensor]]:
    """Training and test images (case, 1, 28, 28), standardised, and labels."""
    path = Path(os.environ["MEDMERGE_DATA"]) / "medmnist" / "pneumoniamnist_reassembled.npz"
    with np.load(path) as file:
        return {
            split: (
                (torch.from_numpy(file[f"{split}_images"]).float()[:, None] / 255 - 0.57) / 0.17,
                torch.from_numpy(file[f"{split}_labels"]).long().flatten(),
            )
            for split in ("train", "test")
        }


def batches(images: Tensor, labels: Tensor) -> list[dict[str, Tensor]]:
    """In their order, for measuring."""
    return [{"image": i, "label": k} for i, k in zip(images.split(2 * BATCH), labels.split(2 * BATCH), strict=True)]


def train(build: Callable[[int], nn.Module], width: int, seed: int, images: Tensor, labels: Tensor) -> nn.Module:
    """One network from one seed: Adam, one cycle of the learning rate, random shifts."""
    torch.manual_seed(seed)
    network = build(width)
    for module in network.modules():
        # MONAI's default suits residual networks; without norm or shortcut, He's keeps the signal alive.
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    steps = EPOCHS * (len(images) // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    network.train()
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(images)).split(BATCH):
            if len(chosen) < BATCH:
                continue
            shift = torch.randint(-2, 3, (2,)).tolist()
            moved = images[chosen].roll(shift, (2, 3))
            optimizer.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(network(moved), labels[chosen]).backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def run(name: str, width: int, seed: int, data: dict[str, tuple[Tensor, Tensor]]) -> dict[str, Any]:
    """Train a pair and measure its lines."""
    began = time.perf_counter()
    a, b = (
        Source.from_network(train(NETWORKS[name], width, 2 * seed + n, *data["train"]), label)
        for n, label in enumerate("ab")
    )
    trained = time.perf_counter() - began
    images, labels = (part[:1024] for part in data["train"])
    calibration = [batch["image"] for batch in batches(images, labels)]
    lines: dict[str, dict[str, Any]] = {}
    for split, measured in {"test": batches(*data["test"]), "train": batches(images, labels)}.items():
        for by, given in {"weights": None, "activations": calibration}.items():
            for line in barrier(NETWORKS[name](width), a, b, measured, images[:4], given, calibration, points=3):
                key = line.name.replace("aligned", f"aligned by {by}")
                lines[f"{split}: {key}"] = {
                    "loss": [round(value, 5) for value in line.loss],
                    "accuracy": [round(value, 5) for value in line.accuracy],
                    "barrier": round(line.barrier, 5),
                    "accuracy_barrier": round(line.accuracy_barrier, 5),
                }
    seconds = {"train_seconds": round(trained, 1), "barrier_seconds": round(time.perf_counter() - began - trained, 1)}
    return {"network": name, "width": width, "seed": seed, **seconds, "lines": lines}


def summarise(rows: list[dict[str, Any]]) -> str:
    """Mean barrier over seeds per network and width, and the share of the raw one that each step takes away."""
    found = []
    for split in ("test", "train"):
        for name, width in dict.fromkeys((row["network"], row["width"]) for row in rows):
            same = [row["lines"] for row in rows if (row["network"], row["width"]) == (name, width)]
            ends = statistics.mean(
                (lines[f"{split}: raw"]["accuracy"][0] + lines[f"{split}: raw"]["accuracy"][-1]) / 2 for lines in same
            )
            found.append(
                f"\n{split}, {name}, width {width}, {len(same)} seeds, accuracy of the ends {100 * ends:.1f} %"
            )
            raw = statistics.mean(lines[f"{split}: raw"]["barrier"] for lines in same)
            for key in [key for key in same[0] if key.startswith(split)]:
                values = [lines[key]["barrier"] for lines in same]
                lost = statistics.mean(lines[key]["accuracy_barrier"] for lines in same)
                spread = statistics.stdev(values) if len(values) > 1 else 0.0
                fall = f"falls by {100 * (1 - statistics.mean(values) / raw):4.0f} %" if raw > 0 else "(no raw barrier)"
                label = key.partition(": ")[2]
                found.append(
                    f"  {label:40} {statistics.mean(values):7.3f} +- {spread:.3f}  {fall}  accuracy -{100 * lost:5.1f}"
                )
    return "\n".join(found)


def main() -> None:
    """Run what is missing, then print the summary of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--summary", type=Path)
    parser.add_argument("--widths", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    path = arguments.summary or arguments.output
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path and path.exists() else []
    if not arguments.summary:
        data = load()
        done = {(row["network"], row["width"], row["seed"]) for row in rows}
        for width in arguments.widths:
            for name in NETWORKS:
                for seed in range(arguments.seeds):
                    if (name, width, seed) not in done:
                        rows.append(run(name, width, seed, data))
                        print(json.dumps(rows[-1]), flush=True)
                        if path:
                            path.parent.mkdir(parents=True, exist_ok=True)
                            with path.open("a") as file:
                                file.write(json.dumps(rows[-1]) + "\n")
    print(summarise(rows))


if __name__ == "__main__":
    main()
