"""Every goal of merging, with the figure reached, from the committed lines; ends with 1 where one is missed.

    python -m benchmarks.goals

Differences are paired: the same target, labels and seed. Intervals are 95 %, from a bootstrap that draws (target, seed)
anew, with all budgets of it together. Targets are not drawn from all there could be: intervals are for these.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results"
BUDGETS = (30, 60, 120)
"""That goals are for, where nothing else is said."""
DRAWS = 4000
FIXED = ("ft", "lpft", "self_taught", "self_taught_long", "mixture", "average", "taught")
"""Ways that need no decision."""
Cell = tuple[str, int, int]
"""Target, labels, seed."""


@dataclass(frozen=True)
class Reached:
    """A figure.

    Args:
        value: mean of the differences, in points.
        low: end of the interval.
        high: the other.
        cells: that it rests on.
        targets: mean of each.
    """

    value: float
    low: float
    high: float
    cells: int
    targets: dict[str, float]

    def __str__(self) -> str:
        if np.isnan(self.low):
            return f"{self.value:+.2f} ({', '.join(self.targets)}), {self.cells} cells"
        return f"{self.value:+.2f} ({self.low:+.2f} to {self.high:+.2f}), {self.cells} cells"


@dataclass(frozen=True)
class Goal:
    """What is to be reached.

    Args:
        text: in words.
        least: the smallest figure.
        above: the interval's low end must be above; None for no such demand.
        reached: the figure; None where nothing was measured.
    """

    text: str
    least: float
    reached: Reached | None
    above: float | None = None

    @property
    def met(self) -> bool:
        """Whether it is; what was not measured is missed."""
        found = self.reached
        return found is not None and found.value >= self.least and (self.above is None or found.low > self.above)


class Lines:
    """Macro F1 in points, by way and cell.

    Args:
        path: of `runs.jsonl`; it may be absent.
    """

    def __init__(self, path: Path) -> None:
        self.f1: dict[str, dict[Cell, float]] = defaultdict(dict)
        self.probe: dict[str, dict[Cell, float]] = defaultdict(dict)
        for line in map(json.loads, path.read_text().splitlines() if path.exists() else ()):
            cell = (line["target"], line["labels"], line["seed"])
            self.f1[line["way"]][cell] = 100 * line["f1"]
            if "probe" in line.get("notes", {}):
                self.probe[line["way"]][cell] = line["notes"]["probe"]

    def between(self, way: str, rival: str, labels: Iterable[int] = BUDGETS) -> Reached | None:
        """Difference of two ways, over the cells that both have."""
        wanted, own, other = set(labels), self.f1.get(way, {}), self.f1.get(rival, {})
        return summary({cell: own[cell] - other[cell] for cell in own if cell in other and cell[1] in wanted})

    def over_sources(self, way: str, of: Callable[[list[float]], float]) -> Reached | None:
        """Difference of a way without labels to the sources as they are, which do not depend on a seed."""
        found = {}
        for cell, value in self.f1.get(way, {}).items():
            known = [own[cell[0], 0, 0] for name, own in self.f1.items() if _source(name) and (cell[0], 0, 0) in own]
            if cell[1] == 0 and known:
                found[cell] = value - of(known)
        return summary(found)

    def left_out(self, way: str) -> Reached | None:
        """Difference to the fixed way that is best on the other targets."""
        own = {cell: value for cell, value in self.f1.get(way, {}).items() if cell[1] in BUDGETS}
        ways = [name for name in FIXED if set(own) <= set(self.f1.get(name, {}))]
        found = {}
        for cell in own if ways else ():
            others = [other for other in own if other[0] != cell[0]]
            best = max(ways, key=lambda name: float(np.mean([self.f1[name][other] for other in others])))
            found[cell] = own[cell] - self.f1[best][cell]
        return summary(found)

    def agreement(self) -> Reached | None:
        """Weighted Kendall tau of the probes' order of sources with what fine-tuning each gave."""
        from scipy.stats import weightedtau

        names = sorted(self.probe)
        cells = set.intersection(*(set(self.probe[name]) for name in names)) if names else set()
        found = {}
        for cell in cells:
            foretold = [-self.probe[name][cell] for name in names]
            found[cell] = float(weightedtau(foretold, [self.f1[name][cell] for name in names]).statistic)
        return summary(found)


def _source(way: str) -> bool:
    return way.startswith("source_")


def summary(differences: dict[Cell, float]) -> Reached | None:
    """Mean and interval; None without any difference.

    Args:
        differences: of each cell.
    """
    if not differences:
        return None
    groups: dict[tuple[str, int], list[float]] = defaultdict(list)
    targets: dict[str, list[float]] = defaultdict(list)
    for (target, _, seed), value in differences.items():
        groups[target, seed].append(value)
        targets[target].append(value)
    sums = np.array([sum(values) for values in groups.values()])
    counts = np.array([len(values) for values in groups.values()])
    drawn = np.random.default_rng(0).integers(len(groups), size=(DRAWS, len(groups)))
    low, high = np.quantile(sums[drawn].sum(1) / counts[drawn].sum(1), [0.025, 0.975])
    means = {target: float(np.mean(values)) for target, values in sorted(targets.items())}
    return Reached(float(sums.sum() / counts.sum()), float(low), float(high), len(differences), means)


def worst_target(found: Reached | None) -> Reached | None:
    """The target with the smallest mean, as a figure without an interval of its own."""
    if found is None:
        return None
    name, value = min(found.targets.items(), key=lambda item: item[1])
    return Reached(value, float("nan"), float("nan"), found.cells, {name: value})


def goals(results: Path) -> list[Goal]:
    """All of them.

    Args:
        results: folder with a folder of lines for each family.
    """
    sites, kin = Lines(results / "sites" / "runs.jsonl"), Lines(results / "kin" / "runs.jsonl")
    way = "auto"
    return [
        Goal("sites: auto over fine-tuning the picked source", 4, sites.between(way, "ft"), 2),
        Goal("sites: auto over LP-FT of it", 3, sites.between(way, "lpft")),
        Goal("sites: auto over fine-tuning, on the worst target", -0.5, worst_target(sites.between(way, "ft"))),
        Goal("kin: teaching over fine-tuning the picked source", 5, kin.between("taught", "ft"), 2),
        Goal("kin: teaching over LP-FT of it", 3, kin.between("taught", "lpft")),
        Goal("kin: teaching over fine-tuning, on the worst target", -0.5, worst_target(kin.between("taught", "ft"))),
        Goal("sites: auto over the picked source taught by itself", 1.5, sites.between(way, "self_taught"), 0),
        Goal("sites: the same with as many student steps", 1.5, sites.between(way, "self_taught_long"), 0),
        Goal("kin: teaching over the picked source taught by itself", 2, kin.between("taught", "self_taught"), 0),
        Goal("sites: auto without unlabelled images over fine-tuning", 1.5, sites.between("auto_labels_only", "ft"), 0),
        Goal("sites: several teachers over one", 1, sites.between("taught", "taught_by_one"), 0),
        Goal("sites: further sources over random ones", 1, sites.between("taught", "taught_by_random"), 0),
        Goal("kin: further sources over random ones", 1, kin.between("taught", "taught_by_random"), 0),
        Goal("sites: the choice of auto over the best fixed way of other targets", -0.3, sites.left_out(way)),
        Goal("no label: auto over the mean source", 3, sites.over_sources(way, lambda f1: float(np.mean(f1)))),
        Goal("no label: auto over the best source, known to nobody", 0, sites.over_sources(way, max)),
        Goal("10 and 30 labels: auto over fine-tuning", 4, sites.between(way, "ft", (10, 30))),
        Goal("sites: order of sources by probes, weighted tau with fine-tuning", 0.5, sites.agreement()),
        Goal("segmentation: auto over fine-tuning, in points of Dice", 2, None),
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    found = goals(parser.parse_args().results)
    print("| goal | at least | reached (95 % interval) | |\n|---|---|---|---|")
    for goal in found:
        above = "" if goal.above is None else f", interval above {goal.above:g}"
        print(f"| {goal.text} | {goal.least:+g}{above} | {goal.reached or 'not measured'} | {_word(goal)} |")
    missed = sum(not goal.met for goal in found)
    print(f"\n{len(found) - missed} of {len(found)} goals are met.")
    sys.exit(1 if missed else 0)


def _word(goal: Goal) -> str:
    return "met" if goal.met else "**missed**"


if __name__ == "__main__":
    main()
