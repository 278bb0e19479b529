"""What merging brings where sources grew from one strong ancestor, and the task is new to all of them.

    pip install -c constraints/cpu.txt -e '.[imagenet,report]'
    python -m benchmarks.kin.sources --output benchmarks/results/kin
    python -m benchmarks.kin --output benchmarks/results/kin
    python -m benchmarks.kin --targets breastmnist --budgets 30 --seeds 0 --ways lpft taught --minutes 5

One JSON line per run, resumable and safe to kill. Sources were never trained on a target's images. The few labelled
images decide everything, up to 500 training images are used without labels; the test part is read once, at the end of
a run. Every fine-tuning takes 80 steps of 16 images, every student 160.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

from benchmarks.kin.cell import KinCell
from benchmarks.kin.data import TARGETS
from benchmarks.kin.ways import WAYS
from benchmarks.sites.__main__ import compare


def main() -> None:
    """Run what is asked for and not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/kin"))
    parser.add_argument("--targets", nargs="+", choices=list(TARGETS), metavar="TARGET", default=list(TARGETS))
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), metavar="WAY", default=list(WAYS))
    parser.add_argument("--budgets", type=int, nargs="+", default=[30, 60, 120], help="labels")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run after this time")
    arguments = parser.parse_args()
    cases = itertools.product(arguments.seeds, arguments.budgets, arguments.targets)
    cells = (KinCell(TARGETS[name], labels, seed) for seed, labels, name in cases)
    compare(cells, {name: WAYS[name] for name in arguments.ways}, arguments.output, arguments.minutes)


if __name__ == "__main__":
    main()
