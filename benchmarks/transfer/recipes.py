"""Which way of learning coefficients is best, chosen on validation images alone, and confirmed on targets left out.

    python -m benchmarks.transfer.recipes --output benchmarks/results/transfer
    python -m benchmarks.transfer.recipes --report benchmarks/results/transfer

Every recipe takes the optimisation steps that all methods of `benchmarks.transfer` take, with one rate of fine-tuning;
labelled images are drawn with seeds that take no part in the comparison. Test images are not read. The report chooses a
recipe on all targets but one and says what it is worth on that one, for each target in turn.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from benchmarks.transfer.__main__ import ALL, Lines
from benchmarks.transfer.methods import Learning, Run, f1, train_merged
from benchmarks.transfer.targets import load

FREE = {"constraint": "free"}
ANCHOR = {**FREE, "start": "anchor"}
ALONE = "anchor alone, no coefficients"
"""For comparison; there is nothing merged in it, so it is no choice."""
RECIPES = {
    "free, 8 epochs": Learning(),
    "free, 3 epochs": Learning(epochs=3),
    "free, 12 epochs": Learning(epochs=12),
    "free, rate 0.005": Learning(rate=5e-3),
    "softmax, 8 epochs": Learning({"constraint": "softmax"}),
    "from anchor, 8 epochs": Learning(ANCHOR),
    "with weights, 8 epochs": Learning({**FREE, "residual": True}),
    "with weights, all 15 epochs": Learning({**FREE, "residual": True}, epochs=15),
    "free, 3 epochs, then pulled to the merged weights": Learning(epochs=3, pull=1e-2),
    ALONE: Learning(epochs=0, alone=True),
    "from anchor, 3 epochs": Learning(ANCHOR, epochs=3),
    "from anchor, 12 epochs": Learning(ANCHOR, epochs=12),
    "from anchor, with weights, all 15 epochs": Learning({**ANCHOR, "residual": True}, epochs=15),
    "from anchor, with weights and head, all 20 epochs": Learning(
        {**ANCHOR, "residual": True}, epochs=20, probe_epochs=0
    ),
    "from anchor, head with coefficients": Learning(ANCHOR, probe_epochs=0),
    "from anchor, aligned by activations": Learning(ANCHOR, alignment="activations"),
    "from anchor, then pulled to the merged weights": Learning(ANCHOR, pull=1e-2),
    "from anchor, rates of earlier stages lower": Learning(ANCHOR, layer_decay=0.7),
    "from anchor, last 4 epochs averaged": Learning(ANCHOR, averaged=4),
    "from best start, 8 epochs": Learning(chosen="probe"),
    "from best start, with weights, all 15 epochs": Learning({**FREE, "residual": True}, epochs=15, chosen="probe"),
    "from best ranked start, 8 epochs": Learning(chosen="rank"),
    "from best ranked start, 3 epochs": Learning(epochs=3, chosen="rank"),
    "from best ranked start, with weights, all 15 epochs": Learning(
        {**FREE, "residual": True}, epochs=15, chosen="rank"
    ),
    "from best ranked start, all 15 epochs": Learning(epochs=15, chosen="rank"),
    "from best ranked start, all 15 epochs, rate 0.05": Learning(epochs=15, rate=5e-2, chosen="rank"),
    "from best ranked start, all 15 epochs, rates 0.05 and 0.005": Learning(
        epochs=15, rate=5e-2, head_rate=5e-3, chosen="rank"
    ),
    "from best ranked start, all 15 epochs, rate 0.1": Learning(epochs=15, rate=1e-1, chosen="rank"),
}
USUAL = "free, 8 epochs"
RATE = 1e-3


def explore(folder: Path, targets: list[str], minutes: float) -> None:
    """Run what is not there yet."""
    end = time.monotonic() + 60 * minutes
    lines = Lines(folder / "recipes.jsonl", "target", "labels", "seed", "recipe")
    for seed, labels, name, recipe in itertools.product((100, 101), (30, 120), targets, RECIPES):
        case = {"target": name, "labels": labels, "seed": seed, "recipe": recipe}
        if lines.get(**case) or time.monotonic() > end:
            continue
        target = ALL[name]
        run = Run(target, target.labelled(labels, seed), seed, RATE)
        torch.manual_seed(seed)
        before, after = train_merged(target.network(), run.sources(), run, RECIPES[recipe])
        scores = [round(f1(network, load(target).validation), 5) for network in (before, after)]
        lines.add({**case, "before": scores[0], "after": scores[1]})
        print(lines.found[name, labels, seed, recipe], flush=True)


def report(folder: Path) -> None:
    """Macro F1 on validation images in points, against the usual recipe; and the choice with each target left out."""
    found: dict[str, dict[str, dict[tuple[int, int], float]]] = defaultdict(lambda: defaultdict(dict))
    for line in Lines(folder / "recipes.jsonl", "target", "labels", "seed", "recipe").found.values():
        found[line["target"]][line["recipe"]][line["labels"], line["seed"]] = line["after"]
    gains = {
        recipe: {
            target: 100 * np.mean([scores[recipe][key] - scores[USUAL][key] for key in scores[recipe]])
            for target, scores in found.items()
            if set(scores[recipe]) == set(scores[USUAL])
        }
        for recipe in RECIPES
    }
    gains = {recipe: by_target for recipe, by_target in gains.items() if set(by_target) == set(found)}
    print("| recipe | " + " | ".join(found) + " | mean |\n|" + "---|" * (len(found) + 2))
    for recipe, by_target in gains.items():
        values = [*by_target.values(), np.mean(list(by_target.values()))]
        print(f"| {recipe} | " + " | ".join(f"{value:+.1f}" for value in values) + " |")
    confirmed, choices = [], [recipe for recipe in gains if recipe != ALONE]
    for left_out in found:
        others = [target for target in found if target != left_out]
        chosen = max(choices, key=lambda r: float(np.mean([gains[r][t] for t in others])))
        confirmed.append(gains[chosen][left_out])
        print(f"without {left_out}: {chosen}; there {confirmed[-1]:+.1f}")
    print(f"mean of the choice on the targets left out: {np.mean(confirmed):+.1f} points")


def main() -> None:
    """Explore, or report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/transfer"))
    parser.add_argument("--targets", nargs="+", choices=ALL, metavar="TARGET", default=list(ALL))
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run after this time")
    parser.add_argument("--report", type=Path, help="folder of results to print")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.report:
        report(arguments.report)
    else:
        explore(arguments.output, arguments.targets, arguments.minutes)


if __name__ == "__main__":
    main()
