"""Which rate suits fine-tuning: macro F1 on held-out training images of the trials' regions, with seeds from 10 on.

    python -m benchmarks.sites.tune --output benchmarks/results/sites

All ways of fine-tuning have the same grid, and one rate each for all targets and budgets. Test images are not read.
"""

from __future__ import annotations

import argparse
import itertools
import logging
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from benchmarks.sites.cell import Cell
from benchmarks.sites.data import FILES, TARGETS, TRIALS
from benchmarks.transfer.__main__ import Lines
from monai_medmerge.evaluation import macro_f1

GRID = (1e-4, 3e-4, 1e-3)
WAYS = ("ft", "lpft")


def tried(cell: Cell, way: str, rate: float) -> float:
    """Macro F1 on held-out images."""
    start = cell.networks[cell.picked]
    network = cell.tuned(cell.probed(start) if way == "lpft" else start, 1, rate)
    held_out = TARGETS[cell.target.name].pool(held_out=True)
    said = cell.said(network, held_out.images)
    return macro_f1(said.argmax(1).numpy(), held_out.labels.numpy(), said.shape[1])


def main() -> None:
    """Try what is not there yet, and print the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/sites"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger().setLevel(logging.WARNING)
    lines = Lines(arguments.output / "rates.jsonl", "target", "labels", "seed", "way", "rate")
    for seed, labels, region, task in itertools.product((10,), (30, 120), TRIALS, FILES):
        cell = Cell(TARGETS[f"{task}_{region}"], labels, seed)
        for way, rate in itertools.product(WAYS, GRID):
            case = {"target": cell.target.name, "labels": labels, "seed": seed, "way": way, "rate": rate}
            if lines.get(**case) is None:
                lines.add({**case, "held_out": round(tried(cell, way, rate), 5)})
    found: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in lines.found.values():
        found[line["way"]][line["rate"]].append(line["held_out"])
    for way, by_rate in found.items():
        print(way, {rate: round(float(np.mean(scores)), 4) for rate, scores in by_rate.items()})


if __name__ == "__main__":
    main()
