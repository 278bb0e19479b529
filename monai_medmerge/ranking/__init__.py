"""Which sources are worth merging, said before anything is learned."""

from monai_medmerge.ranking.order import Ranking, rank

__all__ = ["Ranking", "rank"]
