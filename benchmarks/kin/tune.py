"""Which rates suit the kin family, and from where a student starts: macro F1 on validation images, seed 10, 60 labels.

    python -m benchmarks.kin.tune --output benchmarks/results/kin

One choice each for all targets and budgets. Test images are not read.
"""

from __future__ import annotations

import argparse
import logging
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.kin.cell import STUDENT_STEPS, KinCell
from benchmarks.kin.data import TARGETS
from benchmarks.kin.ways import PHASES, tuned_ensemble
from benchmarks.transfer.__main__ import Lines
from monai_medmerge.evaluation import macro_f1

LABELS, SEED = 60, 10
TRIED = ("brain_mri",)
GRID = (3e-4, 1e-3)


def ft(cell: KinCell, rate: float) -> nn.Module:
    """From a head at random."""
    return cell.tuned(cell.bare(cell.picked), PHASES["ft"], rate)


def lpft(cell: KinCell, rate: float) -> nn.Module:
    """From a fitted head."""
    return cell.tuned(cell.networks[cell.picked], 1, rate)


def student(cell: KinCell, rate: float) -> nn.Module:
    """From the fine-tuned picked source."""
    return cell.student(cell.fine_tuned, cell.soft(tuned_ensemble(cell)), rate=rate, steps=STUDENT_STEPS)


def student_of_average(cell: KinCell, rate: float) -> nn.Module:
    """From the average."""
    return cell.student(cell.average(), cell.soft(tuned_ensemble(cell)), rate=rate, steps=STUDENT_STEPS)


WAYS: tuple[Callable[[KinCell, float], nn.Module], ...] = (lpft, ft, student, student_of_average)


def main() -> None:
    """Try what is not there yet, and print the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/kin"))
    parser.add_argument("--ways", nargs="+", choices=[way.__name__ for way in WAYS], metavar="WAY")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger().setLevel(logging.WARNING)
    lines = Lines(arguments.output / "rates.jsonl", "target", "labels", "seed", "way", "rate")
    cells = [KinCell(TARGETS[name], LABELS, SEED) for name in TRIED]
    for way in WAYS:
        if arguments.ways and way.__name__ not in arguments.ways:
            continue
        for rate in GRID:
            for cell in cells:
                case = {
                    "target": cell.target.name, "labels": LABELS, "seed": SEED, "way": way.__name__, "rate": rate,
                }  # fmt: skip
                if lines.get(**case) is None:
                    validation = TARGETS[cell.target.name].part("validation")
                    said = cell.said(way(cell, rate), validation.images).argmax(1)
                    score = macro_f1(said.numpy(), validation.labels.numpy(), cell.target.classes)
                    print(lines.add({**case, "held_out": round(score, 5)}), flush=True)
    found: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in lines.found.values():
        found[line["way"]][line["rate"]].append(line["held_out"])
    for name, by_rate in found.items():
        print(name, {rate: round(float(np.mean(scores)), 4) for rate, scores in by_rate.items()})


if __name__ == "__main__":
    main()
