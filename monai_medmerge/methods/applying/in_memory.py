"""Merge sources into a network with any registered method."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from monai_medmerge.errors import SettingError
from monai_medmerge.inspection import copy_network
from monai_medmerge.methods.applying.recipe import BASES, GIVEN, Recipe
from monai_medmerge.methods.registry import Method, get_method
from monai_medmerge.methods.tensors import TensorHeader
from monai_medmerge.sources import Source, check_compatible, resolve
from monai_medmerge.sources.matching import MATCH
from monai_medmerge.sources.names.identity import state_of


def merge_with(
    name: str,
    network: nn.Module,
    sources: Sequence[Source],
    *,
    base: Source | str | None = None,
    anchor: int = 0,
    statistics: str = "anchor",
    exclude: str | Sequence[str] = (),
    **options: Any,
) -> nn.Module:
    """A new plain network with the sources merged by the method of a name.

    Where a source lacks a tensor, the others share it; where too few are left for the method, the base lacks it, or no
    statistics were measured for it, it is the plain mean of those that have it. What all sources lack stays the
    network's own. Integers are copied from the anchor, never averaged. Batch-norm's running statistics fit merged
    weights only after `monai_medmerge.recalibrate`.

    Args:
        name: of a registered method; see `METHODS`.
        network: gives class, names and the values of what no source has. Stays untouched.
        sources: one or more, with names of their own. Stay untouched.
        base: for methods of differences: `anchor` (the default: the other sources' differences from the anchor
            count), `mean` of the sources, or the source that all others were fine-tuned from, which is what the papers
            of these methods mean.
        anchor: index of the source that integers and, if so wished, running statistics are copied from.
        statistics: running statistics of norms: `anchor`'s or the `average`.
        exclude: name patterns (`fc.*`) of tensors that stay the network's own.
        options: the method's own.

    Returns:
        A network of the same class, with the same names and dtypes.

    Raises:
        IncompatibleSourcesError: a source does not fit; the match table is shown.
        SettingError: the method or an option is unknown, missing or out of range, or the number of sources does not
            suit the method.

    Example:
        >>> sources = [Source.from_network(nn.Linear(2, 2), name) for name in ("a", "b")]
        >>> merged = merge_with("weighted_average", nn.Linear(2, 2), sources, weights=[1, 0])
        >>> bool((merged.weight == sources[0].tensors["weight"]).all())
        True
    """
    known = get_method(name)
    if known.whole:
        shared = {"anchor": (anchor, 0), "statistics": (statistics, "anchor"), "exclude": (exclude, ())}
        if base is not None:
            raise SettingError("no base", "one", f"method {name}")
        return _merge_whole(known, network, sources, shared, options)
    kind = _kind(base, f"method {name}, base")
    report = check_compatible(network, sources, exclude)
    recipe = Recipe(known, report.sources, kind, anchor, statistics, exclude, options)
    resolved = [resolve(network, source) for source in sources]
    present = {row.tensor: [n for n, fit in enumerate(row.fits) if fit.status == MATCH] for row in report.rows}
    start = _matched(network, base, exclude) if isinstance(base, Source) else {}
    new = copy_network(network)
    merged = 0
    with torch.no_grad():
        # A tensor that the network holds under several names is merged once, under the first.
        for key, value in state_of(new).items():
            if not present.get(key):
                continue
            readers = {n: partial(resolved[n].tensors.__getitem__, key) for n in present[key]}
            given = partial(start.__getitem__, key) if key in start else None
            value.copy_(recipe.tensor(key, readers, TensorHeader(value.dtype, tuple(value.shape)), given))
            merged += 1
    if not merged:
        raise SettingError("patterns that leave something to merge", f"exclude={list(exclude)}", "merge_with")
    return new


def _merge_whole(
    known: Method,
    network: nn.Module,
    sources: Sequence[Source],
    shared: dict[str, tuple[Any, Any]],
    options: dict[str, Any],
) -> nn.Module:
    """Call a method of whole networks, with those of the shared arguments that it knows."""
    known.check_options(options, len(sources))
    known.check_count(len(sources), base_among_them=False)
    for key, (value, default) in shared.items():
        if known.uses(key):
            options[key] = value
        elif value != default:
            raise SettingError(f"no {key}", repr(value), f"method {known.name}")
    merged = known.function(network, sources, **options)
    if type(merged) is not type(network):
        raise SettingError(f"a {type(network).__name__}", type(merged).__name__, f"method {known.name}")
    return merged


def _kind(base: object, where: str) -> str | None:
    """What a recipe calls this base."""
    if base is None:
        return None
    if isinstance(base, Source):
        return GIVEN
    if isinstance(base, str) and base in BASES:
        return base
    found = repr(base) if isinstance(base, str) else f"a {type(base).__name__}"
    raise SettingError(f"{', '.join(BASES)} or a Source", found, where)


def _matched(network: nn.Module, base: Source, exclude: str | Sequence[str]) -> dict[str, Tensor]:
    """The tensors of a base that the network has, by the network's names."""
    report = check_compatible(network, [base], exclude)
    tensors = resolve(network, base).tensors
    return {row.tensor: tensors[row.tensor] for row in report.rows if row.fits[0].status == MATCH}
