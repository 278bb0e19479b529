"""The lines of `benchmarks.transfer` as Markdown tables and plots.

    python -m benchmarks.report --runs benchmarks/results/transfer --output docs/images
    python -m benchmarks.report --methods medmerge:weights medmerge:activations --against medmerge

Macro F1 on the test images, mean over seeds and budgets, with 95 % intervals from a bootstrap that draws seeds and
patients of the test images anew (images, where patients are not known), the same for all methods of a target, so that
differences are paired. Targets are not drawn: intervals are for these. Only cells (target, budget, seed)
that all shown methods have take part. FT and LP-FT are those of the source that validation images pick, for each
target and budget.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from monai_medmerge.evaluation.bootstrap import f1_of_counts

SAMPLES = 2000
PICKED = {"ft": "FT, best source", "lpft": "LP-FT, best source"}
Cell = tuple[str, int]
"""Target and budget."""


@dataclass
class Results:
    """Macro F1 of every method, cell and seed, with its bootstrap draws.

    Args:
        scores: cell, method and seed to (1 + draws,) macro F1, the measured one first.
        facts: the same keys to the line of the run.
    """

    scores: dict[Cell, dict[str, dict[int, np.ndarray]]] = field(default_factory=lambda: defaultdict(dict))
    facts: dict[tuple[Cell, str, int], dict[str, Any]] = field(default_factory=dict)

    def only(self, targets: list[str] | None, budgets: list[int] | None) -> Results:
        """Some of the cells; None means all."""
        wanted = {
            cell: methods
            for cell, methods in self.scores.items()
            if (targets is None or cell[0] in targets) and (budgets is None or cell[1] in budgets)
        }
        return Results(wanted, self.facts)

    def cells(self, methods: list[str]) -> dict[Cell, list[int]]:
        """Cells that all methods have, with the seeds that all have."""
        common = {
            cell: sorted(set.intersection(*(set(found.get(method, ())) for method in methods)))
            for cell, found in self.scores.items()
        }
        return {cell: seeds for cell, seeds in sorted(common.items()) if seeds}

    def mean(self, method: str, cells: dict[Cell, list[int]]) -> np.ndarray:
        """(1 + draws,) the mean over cells; seeds are drawn with the same random numbers for every method."""
        rows = []
        for cell, seeds in cells.items():
            table = np.stack([self.scores[cell][method][seed] for seed in seeds])
            drawn = np.random.default_rng(_number(cell[0])).integers(len(seeds), size=(SAMPLES, len(seeds)))
            resampled = np.take_along_axis(table[:, 1:], drawn.T, axis=0).mean(0)
            rows.append(np.concatenate([[table[:, 0].mean()], resampled]))
        return np.mean(rows, axis=0)


def _number(text: str) -> int:
    return int.from_bytes(text.encode()[:6], "little")


def read(folder: Path, stage: str) -> Results:
    """Score every line, and draw its test cases anew.

    Args:
        folder: with `runs.jsonl` and `truth.json`.
        stage: `after` or `before` fine-tuning.
    """
    truth = json.loads((folder / "truth.json").read_text())
    results = Results()
    for line in map(json.loads, (folder / "runs.jsonl").read_text().splitlines()):
        labels = np.array(list(map(int, truth[line["target"]]["labels"])))
        classes = int(labels.max()) + 1
        # What others are compared with is always fine-tuned.
        predicted = line["after" if line["method"].partition(":")[0] in PICKED else stage]
        entries = labels * classes + np.array(list(map(int, predicted)))
        counts = _draws(line["target"], tuple(truth[line["target"]]["patients"])) @ np.eye(classes**2)[entries]
        cell = (line["target"], line["labels"])
        results.scores[cell].setdefault(line["method"], {})[line["seed"]] = f1_of_counts(
            counts.reshape(-1, classes, classes)
        ).mean(-1)
        results.facts[cell, line["method"], line["seed"]] = line
    _pick(results)
    return results


@cache
def _draws(target: str, patients: tuple[int, ...]) -> np.ndarray:
    """(1 + draws, cases) how often each test case is drawn, all of a patient together; first, each once."""
    count = max(patients) + 1
    drawn = np.random.default_rng(_number(target)).multinomial(count, np.full(count, 1 / count), size=SAMPLES)
    return np.concatenate([np.ones((1, len(patients))), drawn[:, list(patients)]])


def _pick(results: Results) -> None:
    """Add FT and LP-FT of the source with the best mean over seeds on validation images."""
    for cell, methods in results.scores.items():
        for kind, name in PICKED.items():
            sources = [method for method in methods if method.startswith(f"{kind}:")]
            if not sources:
                continue
            means = [np.mean([results.facts[cell, m, seed]["validation"] for seed in methods[m]]) for m in sources]
            best = sources[int(np.argmax(means))]
            methods[name] = methods[best]
            results.facts |= {(cell, name, seed): results.facts[cell, best, seed] for seed in methods[best]}


def interval(values: np.ndarray, signed: bool = False) -> str:
    """A mean in points with its interval, of (1 + draws,)."""
    low, high = np.percentile(100 * values[1:], [2.5, 97.5])
    form = "+.1f" if signed else ".1f"
    return f"{100 * values[0]:{form}} ({low:{form}} to {high:{form}})"


def table(results: Results, methods: list[str], against: list[str], stage: str) -> str:
    """One row a method: mean, differences, wins and losses, seconds of the whole, parameters trained."""
    cells = results.cells(methods)
    means = {method: results.mean(method, cells) for method in methods}
    lines = [
        f"{len(cells)} cells of target and budget, {sum(map(len, cells.values()))} runs a method.",
        "",
        f"| method | macro F1 | {' | '.join(f'against {m}' for m in against)} "
        f"| wins : losses against {against[-1]} | seconds | trained |",
        "|---" * (len(against) + 5) + "|",
    ]
    for method in sorted(methods, key=lambda m: -means[m][0]):
        pairs = [
            np.sign(results.scores[cell][method][seed][0] - results.scores[cell][against[-1]][seed][0])
            for cell, seeds in cells.items()
            for seed in seeds
        ]
        trained = "trained_before" if stage == "before" and method not in PICKED.values() else "trained"
        facts = [results.facts[cell, method, seed] for cell, seeds in cells.items() for seed in seeds]
        lines.append(
            f"| {method} | {interval(means[method])} "
            f"| {' | '.join(interval(means[method] - means[other], True) for other in against)} "
            f"| {pairs.count(1.0)} : {pairs.count(-1.0)} "
            f"| {_mean(facts, 'seconds'):.0f} | {_mean(facts, trained):,.0f} |"
        )
    return "\n".join(lines)


def _mean(facts: list[dict[str, Any]], key: str) -> float:
    return float(np.mean([fact[key] for fact in facts]))


def by_target(results: Results, methods: list[str]) -> str:
    """One row a method, one column a target."""
    cells = results.cells(methods)
    targets = sorted({target for target, _ in cells})
    lines = [f"| method | {' | '.join(targets)} |", "|---" * (len(targets) + 1) + "|"]
    for method in methods:
        values = [results.mean(method, {c: s for c, s in cells.items() if c[0] == target}) for target in targets]
        lines.append(f"| {method} | {' | '.join(interval(value) for value in values)} |")
    return "\n".join(lines)


def plot(results: Results, methods: list[str], against: str, path: Path) -> None:
    """Differences to one method, with intervals, one panel a target."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    cells = results.cells(methods)
    targets = sorted({target for target, _ in cells})
    shown = [method for method in methods if method != against]
    names = [*targets, "all targets"]
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    size = (3 * columns + 2.5, rows * (0.22 * len(shown) + 0.6) + 0.4)
    figure, grid = pyplot.subplots(
        rows, columns, figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    for panel in grid.flat[len(names) :]:
        panel.set_visible(False)
    for panel, name in zip(grid.flat, names, strict=False):
        chosen = {cell: seeds for cell, seeds in cells.items() if name in (cell[0], "all targets")}
        base = results.mean(against, chosen)
        for row, method in enumerate(reversed(shown)):
            difference = 100 * (results.mean(method, chosen) - base)
            low, high = np.percentile(difference[1:], [2.5, 97.5])
            panel.plot([low, high], [row, row], color="#33658a", lw=2)
            panel.plot(difference[0], row, "o", color="#33658a")
        panel.axvline(0, color="gray", lw=0.8)
        panel.set_title(name, fontsize=10)
        panel.set_yticks(range(len(shown)), list(reversed(shown)), fontsize=9)
    figure.supxlabel(f"points of macro F1 over {against}", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print the tables and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("benchmarks/results/transfer"))
    parser.add_argument("--output", type=Path, help="folder for transfer.png; none is drawn if not given")
    parser.add_argument("--methods", nargs="+", help="all that have the most cells if not given")
    parser.add_argument("--targets", nargs="+", help="all if not given")
    parser.add_argument("--budgets", type=int, nargs="+", help="numbers of labels, 0 for all labelled images")
    parser.add_argument("--name", default="transfer", help="of the plot's file")
    parser.add_argument("--against", nargs="+", default=list(PICKED.values()), help="what methods are compared with")
    arguments = parser.parse_args()
    for stage, title in (("after", "After fine-tuning"), ("before", "Before it")):
        results = read(arguments.runs, stage).only(arguments.targets, arguments.budgets)
        methods = arguments.methods or _with_most_cells(results)
        against = arguments.against
        methods = [*against, *(method for method in methods if method not in against)]
        print(f"### {title}\n\n{table(results, methods, against, stage)}\n\n{by_target(results, methods)}\n")
        if stage == "after" and arguments.output:
            plot(results, methods, against[-1], arguments.output / f"{arguments.name}.png")


def _with_most_cells(results: Results) -> list[str]:
    counts: dict[str, int] = defaultdict(int)
    for methods in results.scores.values():
        for method, seeds in methods.items():
            counts[method] += len(seeds) if ":" not in method or method.partition(":")[0] not in PICKED else 0
    most = max(counts.values())
    return [method for method, count in counts.items() if count == most]


if __name__ == "__main__":
    main()
