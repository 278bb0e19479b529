"""Which sources are worth merging, said before anything is learned."""

from monai_medmerge.ranking.mixture import mixture_weights
from monai_medmerge.ranking.order import Ranking, rank

__all__ = ["Ranking", "mixture_weights", "rank"]
