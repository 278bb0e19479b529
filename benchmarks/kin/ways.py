"""Ways from kin to a network for a task none of them knows: rivals, merges, teaching, and controls.

Heads are fitted on the labels before anything else, but in `ft`. All teachers are fine-tuned networks: without heads of
their own, sources as they are say nothing of the target.
"""

from __future__ import annotations

from torch import nn

from benchmarks.kin.cell import KinCell
from benchmarks.sites.ways import Mixture

PHASES = {"ft": 2, "average": 3, "ancestor": 4, "random": 20}
"""Numbers of trainings, for their order and augmentation; the sources' own are 1 and from 10 on."""


def ft(cell: KinCell) -> nn.Module:
    """Fine-tune the picked source, from a head at random."""
    return cell.tuned(cell.bare(cell.picked), PHASES["ft"], cell.rates["ft"])


def lpft(cell: KinCell) -> nn.Module:
    """Fit the head, then fine-tune."""
    return cell.fine_tuned


def ft_ancestor(cell: KinCell) -> nn.Module:
    """The same from the ancestor: what the sources know of medical images is left out."""
    return cell.tuned(cell.from_ancestor, PHASES["ancestor"])


def ft_average(cell: KinCell) -> nn.Module:
    """The same from the recalibrated average."""
    return cell.tuned(cell.average(), PHASES["average"])


def self_taught(cell: KinCell) -> nn.Module:
    """`lpft` goes on with its own soft labels of the unlabelled images beside the labels: one teacher for all."""
    return cell.taught(cell.fine_tuned, cell.said(cell.fine_tuned, cell.unlabelled))


def taught(cell: KinCell) -> nn.Module:
    """`lpft` goes on with the soft labels of every fine-tuned source, weighted by the labels."""
    return cell.taught(cell.fine_tuned, cell.soft(tuned_ensemble(cell)))


def taught_by_random(cell: KinCell) -> nn.Module:
    """The same, where every source but the picked one is a random network of the same weight statistics."""
    networks = cell.random_networks
    tuned = [
        cell.fine_tuned if n == cell.picked else cell.tuned(network, PHASES["random"] + n)
        for n, network in enumerate(networks)
    ]
    return cell.taught(cell.fine_tuned, cell.soft(list(zip(cell.believe(networks), tuned, strict=True))))


def tuned_ensemble(cell: KinCell) -> Mixture:
    """Every source fine-tuned, side by side, weighted by the labels: at the cost of all of them."""
    return list(zip(cell.believed, cell.all_tuned, strict=True))


WAYS = {
    way.__name__: way
    for way in (lpft, taught, self_taught, ft, ft_average, ft_ancestor, taught_by_random, tuned_ensemble)
}
