"""The ranking stage of a configuration: which sources are worth merging, said before anything is learned."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from monai_medmerge.errors import SettingError
from monai_medmerge.networks import recalibrate
from monai_medmerge.ranking.order import Ranking, rank
from monai_medmerge.sources import Source

logger = logging.getLogger(__name__)
RANKINGS = ("off", "inform", "choose")


def rank_sources(
    network: nn.Module,
    sources: Sequence[Source],
    how: str,
    batches: Iterable[Any],
    seed: int = 0,
    exclude: str | Sequence[str] = (),
) -> Ranking | None:
    """Rank sources as they will be merged, with batch-norm recalibrated on the target, and log the table.

    Args:
        network: to be merged into.
        sources: one or more.
        how: `off`; `inform`, which changes nothing; or `choose`, for `choose_sources`.
        batches: labelled target images without augmentation: dictionaries with `image` and `label`.
        seed: of folds and fresh weights.
        exclude: name patterns of tensors that stay the network's own.

    Returns:
        The ranking; None if it is off.

    Raises:
        SettingError: `how` is something else.
        IncompatibleSourcesError: a source does not fit.
        DatasetError: there are not two classes.
    """
    if how not in RANKINGS:
        raise SettingError(f"one of {', '.join(RANKINGS)}", repr(how), "rank")
    if how == "off":
        return None
    ranking = rank(
        network, sources, batches, seed=seed, prepare=lambda copied: recalibrate(copied, batches), exclude=exclude
    )
    logger.info("Ranking on %d labelled images:\n%s", ranking.images, ranking)
    return ranking


def choose_sources(sources: Sequence[Source], ranking: Ranking | None, how: str) -> list[Source]:
    """The sources to merge: all in their order, or with `choose` those that the ranking proposes, the best first.

    Args:
        sources: what was ranked.
        ranking: from `rank_sources`.
        how: as there.
    """
    if ranking is None or how != "choose":
        return list(sources)
    chosen = ranking.select(sources)
    logger.info("Merging %s", ", ".join(source.name for source in chosen))
    return chosen
