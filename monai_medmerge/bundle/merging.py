"""The merging stage of a configuration: MedMerge, or any other registered method by its name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from monai_medmerge.engines import LinearProbeTrainer
from monai_medmerge.errors import SettingError
from monai_medmerge.inspection import device_of
from monai_medmerge.methods import cross_moments, fisher_diagonal, get_method, gram_matrices, merge_with
from monai_medmerge.networks import merge, recalibrate
from monai_medmerge.ranking.order import rank
from monai_medmerge.sources import Source
from monai_medmerge.sources.filling import load_into

MEDMERGE = "medmerge"
PROBE_EPOCHS = 10
"""Of the head that a source is given, without which its Fisher information on the target is not defined."""


def merge_sources(
    method: str,
    network: nn.Module,
    sources: Sequence[Source],
    batches: Iterable[Any],
    loss_function: Callable[[Tensor, Tensor], Tensor],
    exclude: str | Sequence[str],
    anchor: int = 0,
    options: Mapping[str, Any] | None = None,
    **learned: Any,
) -> nn.Module:
    """Merge by the method of a name; what a method needs to know of the data is measured on the batches.

    Fisher information is measured with a head that is fitted to each source first, Gram matrices and cross moments on
    what reaches each layer of a source, and a greedy soup is scored by the macro F1 of a cross-validated linear probe;
    all with batch-norm recalibrated on the batches.

    Args:
        method: `medmerge`, whose coefficients have yet to be learned, or another one of `METHODS`.
        network: to be merged into. Stays untouched.
        sources: one or more.
        batches: labelled target images without augmentation: dictionaries with `image` and `label`.
        loss_function: of (prediction, label), for Fisher information.
        exclude: name patterns of what is not merged: the head.
        anchor: index of the anchor among the sources.
        options: of another method than MedMerge, see docs/methods.md; `base` too, which may be a file.
        learned: of MedMerge: `granularity`, `constraint`, `start` and others of `monai_medmerge.merge`. Other methods
            have no use for them.

    Returns:
        From `merge`, or of another method a plain network.

    Raises:
        SettingError: there is no such method, or it does not know an option.
        IncompatibleSourcesError: a source does not fit.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> sources = [Source.from_network(network, name) for name in ("a", "b")]
        >>> batches = [{"image": torch.randn(8, 4), "label": torch.arange(8) % 2}]
        >>> merged = merge_sources("regmean", network, sources, batches, nn.CrossEntropyLoss(), ["2.*"])
        >>> torch.allclose(merged[0].weight, network[0].weight)
        True
    """
    given = dict(options or {})
    known = get_method(method)
    if method == MEDMERGE:
        if given:
            raise SettingError("no method_options: MedMerge's have keys of their own", ", ".join(given), "medmerge")
        return merge(network, sources, anchor=anchor, exclude=exclude, **learned)
    if isinstance(given.get("base"), str) and given["base"] not in ("anchor", "mean"):
        given["base"] = Source.from_file(given["base"])
    loaded = partial(_loaded, network, batches)
    if known.data == "fishers" and "fishers" not in given:
        given["fishers"] = [_fisher(loaded(source), batches, loss_function, exclude) for source in sources]
    if known.data == "grams" and "grams" not in given:
        given["grams"] = [gram_matrices(loaded(source), batches) for source in sources]
    if known.data == "moments" and "moments" not in given:
        given["moments"] = cross_moments([loaded(source) for source in sources], batches)
    if known.callback == "score" and "score" not in given:
        given["score"] = partial(_probe_score, batches=batches)
    return merge_with(method, network, sources, exclude=exclude, anchor=anchor, **given)


def _loaded(network: nn.Module, batches: Iterable[Any], source: Source) -> nn.Module:
    return recalibrate(load_into(network, source), batches)


def _fisher(
    network: nn.Module, batches: Iterable[Any], loss_function: Callable[[Tensor, Tensor], Tensor], head: Sequence[str]
) -> dict[str, Tensor]:
    device = device_of(network)
    LinearProbeTrainer(network, batches, PROBE_EPOCHS, loss_function, head=head, device=device).run()
    return fisher_diagonal(network, batches, loss_function)


def _probe_score(soup: nn.Module, batches: Iterable[Any]) -> float:
    recalibrate(soup, batches)
    source = Source.from_network(soup, "soup")
    with torch.random.fork_rng(devices=[]):
        return rank(soup, [source], batches).scores[0].linear_probe
