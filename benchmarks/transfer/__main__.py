"""What merging brings to a new task with few labels: one JSON line per run, resumable and safe to kill.

    python -m benchmarks.transfer --output benchmarks/results/transfer
    python -m benchmarks.transfer --quick
    python -m benchmarks.transfer --targets breastmnist --budgets 120 --seeds 0 --methods medmerge --minutes 8

The data is found through MEDMERGE_DATA; a source trained on a target's images takes no part there. All methods of one
target, budget and seed see the same labelled images, in batches drawn and augmented in the same way, and take the same
number of optimisation steps. The rate of fine-tuning is chosen for every target and method from one grid, on
validation images, with labels of another seed (`rates.jsonl`); what takes part in the choice never sees test images.
Those are read once, at the end of a run (`runs.jsonl`, with the class predicted for every test image, by which
`python -m benchmarks.report` resamples). Cases whose line is there are not run again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.transfer.batches import plain
from benchmarks.transfer.methods import METHODS, Run, f1, train
from benchmarks.transfer.targets import RELATED, TARGETS, Target, load
from monai_medmerge.bundle import write_json
from monai_medmerge.evaluation import macro_f1, predict

ALL = {**TARGETS, **RELATED}
RATES = (3e-4, 1e-3, 3e-3)
BUDGETS = (30, 60, 120, 240, 0)
CHOICE = {"labels": 120, "seed": 100}
"""Labels and seed with which rates are chosen; no seed of the comparison."""
QUICK = {
    "targets": ["breastmnist"],
    "budgets": [30],
    "seeds": [0, 1],
    "methods": ["ft:natural", "lpft:natural", "uniform_average", "medmerge", "medmerge:random"],
    "rates": [1e-3],
}


class Lines:
    """A file of JSON lines, and what its lines are about.

    Args:
        path: made when the first line is added.
        keys: which tell cases apart.
    """

    def __init__(self, path: Path, *keys: str) -> None:
        self.path, self.keys = path, keys
        text = path.read_text() if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            # A run was killed while it wrote.
            path.write_text(whole)
        self.found = {self._case(line): line for line in map(json.loads, whole.splitlines())}

    def _case(self, line: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(line[key] for key in self.keys)

    def get(self, **case: Any) -> dict[str, Any] | None:
        """The line of a case."""
        return self.found.get(tuple(case[key] for key in self.keys))

    def add(self, line: dict[str, Any]) -> dict[str, Any]:
        """Write a line."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self.found[self._case(line)] = line
        return line


def chosen_rate(lines: Lines, target: Target, method: str, rates: Sequence[float]) -> float:
    """The rate of the grid with the best macro F1 on validation images; each rate is tried once."""
    if len(rates) == 1:
        return rates[0]
    scores = {}
    for rate in rates:
        case = {"target": target.name, "method": method, "rate": rate}
        line = lines.get(**case)
        if line is None:
            run = Run(target, target.labelled(**CHOICE), CHOICE["seed"], rate)
            line = lines.add({**case, "validation": round(f1(train(method, run)[1], load(target).validation), 5)})
        scores[rate] = line["validation"]
    return max(scores, key=lambda rate: scores[rate])


def result(target: Target, labels: int, seed: int, method: str, rate: float) -> dict[str, Any]:
    """The line of one case."""
    start = time.monotonic()
    run = Run(target, target.labelled(labels, seed), seed, rate)
    before, after = train(method, run)
    seconds = time.monotonic() - start
    parts = load(target)
    probabilities, truth = predict(before, plain(*parts.test, 256))
    earlier = probabilities.argmax(1)
    later = predict(after, plain(*parts.test, 256))[0].argmax(1)
    return {
        "target": target.name, "labels": labels, "seed": seed, "method": method, "rate": rate,
        "validation": round(f1(after, parts.validation), 5),
        "not_fine_tuned": round(macro_f1(earlier.numpy(), truth.numpy(), target.classes), 5),
        "fine_tuned": round(macro_f1(later.numpy(), truth.numpy(), target.classes), 5),
        "trained_before": max((n for phase, n in run.trained.items() if phase != "FineTuner"), default=0),
        "trained": max(run.trained.values()), "seconds": round(seconds, 1),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "before": "".join(map(str, earlier.tolist())), "after": "".join(map(str, later.tolist())),
    }  # fmt: skip


def _write_truth(path: Path, target: Target) -> None:
    """The labels of the test images, and whose they are, for the report."""
    known = json.loads(path.read_text()) if path.exists() else {}
    if target.name not in known:
        parts = load(target)
        labels = "".join(map(str, parts.test.labels.tolist()))
        known[target.name] = {"labels": labels, "patients": parts.test_patients.tolist()}
        write_json(path, known)


def applies(method: str, target: Target) -> bool:
    """Whether a method's own source may be used for a target, and the sources are enough for the method."""
    kind, _, source = method.partition(":")
    if kind == "model_stock" and not target.ancestor and len(target.source_names) < 3:
        # The anchor is the base, and a single difference has no angle.
        return False
    return kind not in ("ft", "lpft") or source in target.source_names


def main() -> None:
    """Run what is asked for and not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/transfer"))
    parser.add_argument("--targets", nargs="+", choices=ALL, metavar="TARGET", default=list(TARGETS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, metavar="METHOD", default=list(METHODS))
    parser.add_argument("--budgets", type=int, nargs="+", default=list(BUDGETS), help="labels; 0 is all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--rates", type=float, nargs="+", default=list(RATES), help="grid of fine-tuning")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run after this time")
    parser.add_argument("--quick", action="store_true", help="one target, 30 labels, two seeds, five methods, one rate")
    arguments = parser.parse_args()
    if arguments.quick:
        # Nothing of it may be taken for the whole.
        vars(arguments).update(QUICK, output=Path(tempfile.mkdtemp(prefix="transfer_quick_")))
    # A small network is as fast on one thread, and the result does not depend on how many there are.
    torch.set_num_threads(1)
    end = time.monotonic() + 60 * arguments.minutes
    rates = Lines(arguments.output / "rates.jsonl", "target", "method", "rate")
    runs = Lines(arguments.output / "runs.jsonl", "target", "labels", "seed", "method")
    # Seeds turn slowest, so that a benchmark cut short has every method at the same seeds.
    for seed, name, labels, method in itertools.product(
        arguments.seeds, arguments.targets, arguments.budgets, arguments.methods
    ):
        target = ALL[name]
        case = {"target": name, "labels": labels, "seed": seed, "method": method}
        if not applies(method, target) or runs.get(**case):
            continue
        if time.monotonic() > end:
            print("time is up; the same command goes on from here")
            return
        _write_truth(arguments.output / "truth.json", target)
        line = runs.add(result(target, labels, seed, method, chosen_rate(rates, target, method, arguments.rates)))
        print(json.dumps({key: value for key, value in line.items() if key not in ("before", "after")}), flush=True)
    print(f"all runs are in {runs.path}")


if __name__ == "__main__":
    main()
