"""Where coefficients start: at the average of all sources, or at one of them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from monai_medmerge.networks import fold, merge, recalibrate
from monai_medmerge.ranking.order import rank
from monai_medmerge.sources import Source

logger = logging.getLogger(__name__)
AVERAGE = "the uniform average"


def best_start(
    network: nn.Module,
    sources: Sequence[Source],
    batches: Iterable[Any],
    exclude: str | Sequence[str] = (),
    seed: int = 0,
) -> tuple[str, int]:
    """The start with the best features for the target, by the ranking of `monai_medmerge.ranking.order.rank`.

    Sources of one ancestor are often worth more as an average than each is alone; an average of strangers is worth
    less than any of them, unless they are aligned. Ranking the average among the sources tells which it is, before
    anything is learned.

    Args:
        network: to be merged into. Stays untouched.
        sources: one or more.
        batches: labelled target images without augmentation: dictionaries with `image` and `label`.
        exclude: name patterns of what is not merged: the head.
        seed: of the ranking.

    Returns:
        `start` and `anchor` of `monai_medmerge.merge`: ``("uniform", 0)``, or `anchor` and the index of a source.

    Raises:
        IncompatibleSourcesError: a source does not fit.
        DatasetError: there are not two classes.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> opposite = {"0.weight": -network[0].weight, "0.bias": -network[0].bias}
        >>> sources = [Source.from_network(network, "one"), Source("its opposite", opposite)]
        >>> images = torch.randn(32, 4)
        >>> batches = [{"image": images, "label": (images.sum(1) > 0).long()}]
        >>> best_start(network, sources, batches, exclude=["2.*"])[0]
        'anchor'
    """
    if len(sources) == 1:
        return "anchor", 0
    with torch.random.fork_rng(devices=[]):
        average = fold(merge(network, sources, exclude=exclude, start="uniform"))
        candidates = [Source.from_network(average, AVERAGE), *sources]
        ranking = rank(
            network,
            candidates,
            batches,
            seed=seed,
            prepare=lambda copied: recalibrate(copied, batches),
            exclude=exclude,
        )
    logger.info("Coefficients start at %s:\n%s", ranking.anchor, ranking)
    names = [source.name for source in sources]
    return ("uniform", 0) if ranking.anchor == AVERAGE else ("anchor", names.index(ranking.anchor))


def choose_start(start: str, anchor: int, *given: Any, **further: Any) -> tuple[str, int]:
    """The start and anchor of a configuration, where the start may be `best`.

    Args:
        start: `best`, or one of `monai_medmerge.merge`'s.
        anchor: index of a source; not looked at if the start is `best`.
        given: of `best_start`, and so are all that follow.
        further: likewise.

    Example:
        >>> choose_start("uniform", 0, nn.Linear(1, 1), [], [])
        ('uniform', 0)
    """
    return best_start(*given, **further) if start == "best" else (start, anchor)
