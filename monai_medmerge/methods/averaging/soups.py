"""The mean of those sources that raise a score, found one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from monai_medmerge.errors import SettingError
from monai_medmerge.methods.applying.in_memory import merge_with
from monai_medmerge.methods.registry import method
from monai_medmerge.sources import Source


@method("greedy_soup", reference="[arXiv:2203.05482](https://arxiv.org/abs/2203.05482)", whole=True, callback="score")
def greedy_soup(
    network: nn.Module,
    sources: Sequence[Source],
    *,
    score: Callable[[nn.Module], float],
    statistics: str = "anchor",
    exclude: str | Sequence[str] = (),
) -> nn.Module:
    """Mean of the sources that do not lower a score, added from the best source down.

    Each source is scored alone; then, best first, each joins the mean if the mean with it scores at least as well.
    The score is measured once for every source and once for every attempt, 2 N - 1 times in all.

    Args:
        network: as of `merge_with`.
        sources: as of `merge_with`.
        score: from a network to a number on held-out data, higher being better. It may recalibrate the network it is
            given, and has to where sources come from different initialisations; what it changes stays.
        statistics: as of `merge_with`; the anchor is the best source.
        exclude: as of `merge_with`.

    Returns:
        The best network, as `score` left it.

    Raises:
        SettingError: a score is not a number.

    Example:
        >>> import torch
        >>> sources = [Source("low", {"weight": torch.zeros(1, 1)}), Source("high", {"weight": torch.ones(1, 1)})]
        >>> soup = greedy_soup(nn.Linear(1, 1, bias=False), sources, score=lambda n: n.weight.item())
        >>> soup.weight.item()
        1.0
    """

    def tried(chosen: Sequence[Source]) -> tuple[float, nn.Module]:
        merged = merge_with("uniform_average", network, chosen, statistics=statistics, exclude=exclude)
        value = float(score(merged))
        if value != value:
            raise SettingError("a number", "NaN", f"score of {', '.join(source.name for source in chosen)}")
        return value, merged

    alone = [tried([source]) for source in sources]
    # Stable: of equal scores the earlier source comes first.
    order = sorted(range(len(sources)), key=lambda n: -alone[n][0])
    best, soup = alone[order[0]]
    alone.clear()
    chosen = [sources[order[0]]]
    for n in order[1:]:
        value, merged = tried([*chosen, sources[n]])
        if value >= best:
            best, soup, chosen = value, merged, [*chosen, sources[n]]
    return soup
