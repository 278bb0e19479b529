"""What merging brings where several sites know the same task: one JSON line per run, resumable and safe to kill.

    python -m benchmarks.sites --output benchmarks/results/sites
    python -m benchmarks.sites --quick
    python -m benchmarks.sites --targets kermany_0 --budgets 30 --seeds 0 --ways ft auto --minutes 5

Kermany chest X-rays and brain MRI are dealt out to four source sites and a new one; of chest X-rays no patient is at
two sites, of brain MRI patients are not known. Scanner differences are simulated (`scanners.py`): nobody measured
them. Sources grew from the shipped `natural` on 400 images of their own. The new site has a few labelled images, which
decide everything, and 1,000 unlabelled ones. The test part is read once, at the end of a run.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from benchmarks.sites.cell import Cell, Task
from benchmarks.sites.data import REGIONS, TARGETS
from benchmarks.sites.ways import FOR_NO_LABELS, WAYS, Mixture, auto, same_as_auto
from benchmarks.transfer.__main__ import Lines
from monai_medmerge.bundle import write_json
from monai_medmerge.evaluation import macro_f1

AnyCell = TypeVar("AnyCell", bound=Cell)
BUDGETS = (30, 60, 120, 10, 0)
COMPARED = [name for name, target in TARGETS.items() if target.region in REGIONS]
QUICK = {"targets": ["brain_mri_0"], "budgets": [30], "seeds": [0], "ways": ["ft", "self_taught", "average"]}


def result(cell: AnyCell, name: str, way: Callable[[AnyCell], nn.Module | Mixture]) -> dict[str, Any]:
    """The line of one case."""
    start, before = time.monotonic(), dict(cell.steps)
    found = way(cell)
    seconds = time.monotonic() - start
    test, _ = cell.target.test()
    weighted = found if isinstance(found, list) else [(1.0, found)]
    said = cell.soft(weighted, test.images)
    classes = said.argmax(1)
    score = macro_f1(classes.numpy(), test.labels.numpy(), said.shape[1])
    true = said[torch.arange(len(said)), test.labels].clamp(min=1e-6)
    spent = {name: steps - before.get(name, 0) for name, steps in cell.steps.items()}
    return {
        "target": cell.target.name, "labels": cell.labels, "seed": cell.seed, "way": name,
        "f1": round(score, 5), "log_loss": round(float(-true.log().mean()), 4), "networks": len(weighted),
        "picked": cell.picked if cell.labels else None, "notes": cell.notes.get(name, {}),
        "steps": {name: steps for name, steps in spent.items() if steps}, "seconds": round(seconds, 1),
        "cpu": torch.backends.cpu.get_cpu_capability(), "said": "".join(map(str, classes.tolist())),
    }  # fmt: skip


def compare(
    cells: Iterable[AnyCell],
    ways: Mapping[str, Callable[[AnyCell], nn.Module | Mixture]],
    output: Path,
    minutes: float,
) -> None:
    """Run every way of every cell that is not there yet.

    Args:
        cells: in this order.
        ways: by name, in this order; without labels, those of `FOR_NO_LABELS` only.
        output: folder of the lines and of the truth about the test images.
        minutes: no run begins after this time.
    """
    # A small network is as fast on one thread, and the result does not depend on how many there are.
    torch.set_num_threads(1)
    logging.getLogger().setLevel(logging.WARNING)
    end = time.monotonic() + 60 * minutes
    lines = Lines(output / "runs.jsonl", "target", "labels", "seed", "way")
    for cell in cells:
        for name, way in ways.items():
            case = {"target": cell.target.name, "labels": cell.labels, "seed": cell.seed, "way": name}
            if lines.get(**case) or (not cell.labels and name not in FOR_NO_LABELS):
                continue
            if time.monotonic() > end:
                print("time is up; the same command goes on from here")
                return
            _write_truth(output / "truth.json", cell.target)
            line = lines.add(known(lines, cell, way) or result(cell, name, way))
            print(json.dumps({key: value for key, value in line.items() if key != "said"}), flush=True)
    print(f"all runs are in {lines.path}")


def known(lines: Lines, cell: Cell, way: Callable[[Any], Any]) -> dict[str, Any] | None:
    """The line of `auto` where it decides for a way that has run: the same numbers, and the same cost."""
    same = same_as_auto(cell) if way is auto else None
    line = lines.get(target=cell.target.name, labels=cell.labels, seed=cell.seed, way=same) if same else None
    if line is None:
        return None
    decision = cell.decision
    found = {"as": same, "start": decision.start, "weights": [round(weight, 3) for weight in decision.weights]}
    return {**line, "way": "auto", "notes": found}


def _write_truth(path: Path, target: Task) -> None:
    """The labels of the test images, and whose they are, for the report."""
    known = json.loads(path.read_text()) if path.exists() else {}
    if target.name not in known:
        test, patients = target.test()
        path.parent.mkdir(parents=True, exist_ok=True)
        known[target.name] = {"labels": "".join(map(str, test.labels.tolist())), "patients": patients.tolist()}
        write_json(path, known)


def main() -> None:
    """Run what is asked for and not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/sites"))
    parser.add_argument("--targets", nargs="+", choices=list(TARGETS), metavar="TARGET", default=COMPARED)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), metavar="WAY", default=list(WAYS))
    parser.add_argument("--budgets", type=int, nargs="+", default=list(BUDGETS), help="labels")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run after this time")
    parser.add_argument("--quick", action="store_true", help="one target, 30 labels, one seed, three ways")
    arguments = parser.parse_args()
    if arguments.quick:
        # Nothing of it may be taken for the whole.
        vars(arguments).update(QUICK, output=Path(tempfile.mkdtemp(prefix="sites_quick_")))
    # Seeds turn slowest, so that a benchmark cut short has every way at the same seeds.
    cases = itertools.product(arguments.seeds, arguments.budgets, arguments.targets)
    cells = (Cell(TARGETS[name], labels, seed) for seed, labels, name in cases)
    compare(cells, {name: WAYS[name] for name in arguments.ways}, arguments.output, arguments.minutes)


if __name__ == "__main__":
    main()
