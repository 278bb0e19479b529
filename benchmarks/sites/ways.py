"""Ways from the sources of several sites to what a new site uses: rivals, merges, the default, and controls.

Each gives networks with weights: one plain network, or several whose probabilities are added.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import nn

from benchmarks.sites.cell import STEPS, Cell
from benchmarks.sites.rates import RATES
from benchmarks.sites.scanners import SITES
from monai_medmerge import Source

Mixture = list[tuple[float, nn.Module]]
Way = Callable[[Cell], "nn.Module | Mixture"]

STUDENT_STEPS = 2 * STEPS
RECIPE_STEPS = 4 * STEPS + STUDENT_STEPS
"""That `taught` spends on four sources: a fine-tuning of each, and one student."""
PHASES = {"ft": 1, "lpft": 2, "average": 3, "own": 4, "each": 10}


def picked(cell: Cell) -> nn.Module:
    """The source that the labels pick, as it is."""
    return cell.networks[cell.picked]


def ft(cell: Cell) -> nn.Module:
    """Fine-tune the picked source."""
    return cell.fine_tuned


def ft_long(cell: Cell) -> nn.Module:
    """The same with the steps that the default spends in all."""
    return cell.tuned(picked(cell), PHASES["ft"], steps=RECIPE_STEPS)


def lpft(cell: Cell) -> nn.Module:
    """Fit the head, then fine-tune."""
    return cell.tuned(cell.probed(picked(cell)), PHASES["lpft"], RATES["lpft"])


def lpft_long(cell: Cell) -> nn.Module:
    """The same with the steps that the default spends in all."""
    return cell.tuned(cell.probed(picked(cell)), PHASES["lpft"], RATES["lpft"], steps=RECIPE_STEPS)


def ft_average(cell: Cell) -> nn.Module:
    """Fine-tune the recalibrated average."""
    return cell.tuned(cell.average(), PHASES["average"])


def ft_own(cell: Cell) -> nn.Module:
    """Fine-tune the source whose own predictions make the labels likeliest: a better pick than a probe's."""
    weights = cell.weights(cell.networks)
    return cell.tuned(cell.networks[weights.index(max(weights))], PHASES["own"])


def self_taught(cell: Cell) -> nn.Module:
    """The fine-tuned source goes on with its own soft labels of the unlabelled images beside the labels."""
    tuned = cell.fine_tuned
    return cell.student(tuned, cell.said(tuned, cell.unlabelled))


def self_taught_afresh(cell: Cell) -> nn.Module:
    """The picked source, taught by the mean of itself and itself fine-tuned."""
    both = [(0.5, picked(cell)), (0.5, cell.fine_tuned)]
    return cell.student(picked(cell), cell.soft(both))


def self_taught_long(cell: Cell) -> nn.Module:
    """As `self_taught`, with as many steps of the student as `taught` has."""
    tuned = cell.fine_tuned
    return cell.student(tuned, cell.said(tuned, cell.unlabelled), steps=STUDENT_STEPS)


def taught(cell: Cell) -> nn.Module:
    """The fine-tuned picked source, taught by all: the mixture that the labels weigh, and the mean of the tuned."""
    return cell.student(cell.fine_tuned, cell.soft(_all_teachers(cell)), steps=STUDENT_STEPS)


def taught_from_average(cell: Cell) -> nn.Module:
    """The average, taught by the mean of the sources: all that can be done without a label."""
    return cell.student(cell.average(), cell.soft(ensemble(cell)), steps=STUDENT_STEPS)


def _all_teachers(cell: Cell) -> Mixture:
    """Half the mixture of the sources as they are, half the mean of the fine-tuned."""
    return [(weight / 2, network) for weight, network in (*mixture(cell), *tuned_ensemble(cell))]


def auto(cell: Cell) -> nn.Module:
    """What `method: auto` decides, by the same decision and the same phases as the package's (`AutoMerge`)."""
    decision = cell.decision
    cell.notes["auto"] = {"start": decision.start, "weights": [round(weight, 3) for weight in decision.weights]}
    if not cell.labels:
        return taught_from_average(cell)
    teachers = [(weight / 2, network) for weight, network in zip(decision.weights, cell.networks, strict=True)]
    half = 0.5 if any(decision.weights) else 1.0
    teachers += [(weight * half, network) for weight, network in tuned_ensemble(cell)]
    start = cell.tuned(cell.average(), PHASES["average"]) if decision.start is None else cell.all_tuned[decision.start]
    return cell.student(start, cell.soft(teachers), steps=STUDENT_STEPS)


def same_as_auto(cell: Cell) -> str | None:
    """The way that `auto` is in this cell, trained the same to the bit; None if it is one of its own.

    Args:
        cell: of the case.
    """
    if not cell.labels:
        return "taught_from_average"
    decision = cell.decision
    same = decision.start == cell.picked and np.allclose(decision.weights, cell.weights(cell.networks))
    return "taught" if same else None


def taught_by_one(cell: Cell) -> nn.Module:
    """Control: as `taught`, by the picked source alone, as it is and fine-tuned."""
    both = [(0.5, picked(cell)), (0.5, cell.fine_tuned)]
    return cell.student(cell.fine_tuned, cell.soft(both), steps=STUDENT_STEPS)


def taught_by_random(cell: Cell) -> nn.Module:
    """Control: as `taught`, with a random network in place of every source but the picked one."""
    networks = cell.random_networks
    tuned = [cell.fine_tuned if n == cell.picked else cell.tuned(network, 10 + n) for n, network in enumerate(networks)]
    weights = cell.weights(networks)
    teachers = [(weight / 2, network) for weight, network in zip(weights, networks, strict=True)]
    teachers += [(0.5 / len(tuned), network) for network in tuned]
    return cell.student(cell.fine_tuned, cell.soft(teachers), steps=STUDENT_STEPS)


def taught_elsewhere(cell: Cell) -> nn.Module:
    """Control: as `taught`, on unlabelled images of another task."""
    teachers = _all_teachers(cell)
    return cell.student(cell.fine_tuned, cell.soft(teachers, cell.others), cell.others, steps=STUDENT_STEPS)


def source_as_it_is(number: int) -> Way:
    """A source, recalibrated and not trained; which one is best nobody can know without labels.

    Args:
        number: of the source.
    """

    def way(cell: Cell) -> nn.Module:
        return cell.networks[number]

    way.__name__ = f"source_{number}"
    return way


def source_tuned(number: int) -> Way:
    """A source, fine-tuned: what a ranking of sources should foretell.

    Args:
        number: of the source.
    """

    def way(cell: Cell) -> nn.Module:
        cell.notes[way.__name__] = {"probe": round(cell.losses[number], 4)}
        return cell.all_tuned[number]

    way.__name__ = f"tuned_{number}"
    return way


def average(cell: Cell) -> nn.Module:
    """The recalibrated average, not trained."""
    return cell.average()


def mixture(cell: Cell) -> Mixture:
    """The recalibrated sources side by side, weighted by the labels: at the cost of all of them."""
    return list(zip(cell.weights(cell.networks), cell.networks, strict=True))


def ensemble(cell: Cell) -> Mixture:
    """The recalibrated sources side by side."""
    return [(1 / len(cell.networks), network) for network in cell.networks]


def ratatouille(cell: Cell) -> nn.Module:
    """Fine-tune every source, then average and recalibrate (arXiv:2212.10445)."""
    return cell.average(sources=_tuned_sources(cell))


def tuned_ensemble(cell: Cell) -> Mixture:
    """Fine-tune every source; all side by side."""
    return [(1 / len(cell.networks), network) for network in cell.all_tuned]


def _tuned_sources(cell: Cell) -> list[Source]:
    return [Source.from_network(network, f"tuned {n}") for n, network in enumerate(cell.all_tuned)]


WAYS: dict[str, Way] = {
    way.__name__: way
    for way in (
        picked, ft, lpft, ft_long, lpft_long, ft_average, ft_own, self_taught, self_taught_afresh, self_taught_long,
        taught, taught_from_average, taught_by_one, taught_by_random, taught_elsewhere,
        auto, *(source_as_it_is(number) for number in range(SITES - 1)),
        *(source_tuned(number) for number in range(SITES - 1)),
        average, mixture, ensemble, ratatouille, tuned_ensemble,
    )
}  # fmt: skip
FOR_NO_LABELS = ("auto", "average", "ensemble", "taught_from_average", *(f"source_{n}" for n in range(SITES - 1)))
