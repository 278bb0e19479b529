"""Bring the channels of sources into the order of one of them, the anchor, without changing what they compute."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from monai_medmerge.errors import MedMergeError, SettingError
from monai_medmerge.inspection import copy_network
from monai_medmerge.networks.alignment.assignment import Assignment, assign_by_activations, assign_by_weights
from monai_medmerge.networks.alignment.invariance import changed_by
from monai_medmerge.networks.alignment.permutation import ChannelGroups, channel_groups
from monai_medmerge.sources.checkpoint.source import Source
from monai_medmerge.sources.matching import check_compatible, resolve


def align(
    network: nn.Module,
    sources: Sequence[Source],
    example_input: Tensor,
    batches: Iterable[Any] | None = None,
    anchor: int = 0,
) -> list[Source]:
    """Permute the channels of every source so that they answer to those of the anchor.

    Networks that were trained from different initialisations have their kernels in different orders. Which channels
    must move together is found by `channel_groups`; which order fits best is found by comparing weights (Git Re-Basin,
    arXiv:2209.04836), or the activations on data if there is any, as a linear assignment per group. Batch-norm's
    buffers move along. Sources of one initialisation, or fine-tuned from one another, need none of this.

    Args:
        network: gives architecture and the values of what a source lacks. Stays untouched.
        sources: one or more that fit it. Stay untouched.
        example_input: a batch that the network takes; a small one is quick.
        batches: images to match activations on (tensors, tuples or dictionaries, as `recalibrate` takes them); gone
            through once. Matching is by weights without them.
        anchor: index of the source that keeps its order.

    Returns:
        The sources in the given order, under their names; the anchor is the very object that was given. Each of the
        others computes what it did, checked on the example, has the network's tensor names, and says under
        ``provenance["alignment"]`` what was moved and how much more alike the two became.

    Raises:
        IncompatibleSourcesError: a source does not fit.
        SettingError: there is no such anchor.
        DatasetError: `batches` is empty.
        MedMergeError: a permuted source does not compute what it did (an overflow, or a network that is not a fixed
            function of its input).

    Example:
        >>> def build():
        ...     return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 3))
        >>> import torch
        >>> sources = [Source.from_network(build(), name) for name in ("a", "b")]
        >>> aligned = align(build(), sources, torch.zeros(1, 1, 8, 8))
        >>> [source.name for source in aligned], aligned[0] is sources[0]
        (['a', 'b'], True)
        >>> aligned[1].provenance["alignment"]["groups"]
        1
    """
    check_compatible(network, sources)
    if not 0 <= anchor < len(sources):
        raise SettingError(f"an index from 0 to {len(sources) - 1}", repr(anchor), "anchor")
    groups = channel_groups(network, example_input)
    resolved = [resolve(network, source) for source in sources]
    others = [n for n in range(len(sources)) if n != anchor]
    found = _assign(network, groups, resolved[anchor], [resolved[n] for n in others], batches)
    aligned = list(sources)
    for n, (assignment, record) in zip(others, found, strict=True):
        _check_same(network, groups, resolved[n], assignment.orders, example_input)
        tensors = groups.permute(resolved[n].tensors, assignment.orders)
        record = {"anchor": sources[anchor].name, **record}
        aligned[n] = Source(sources[n].name, tensors, {**resolved[n].provenance, "alignment": record})
    return aligned


def _assign(
    network: nn.Module, groups: ChannelGroups, anchor: Source, others: Sequence[Source], batches: Iterable[Any] | None
) -> list[tuple[Assignment, dict[str, Any]]]:
    """For every other source its order, and a record of plain types."""
    weights = dict(network.named_parameters())

    def parameters(source: Source) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in source.tensors.items() if name in weights}

    if batches is None:
        by_weights = [assign_by_weights(groups, parameters(anchor), parameters(source)) for source in others]
        return [(found, _record("weights", groups, found)) for found in by_weights]
    networks = [_loaded(network, source).eval() for source in (anchor, *others)]
    found_by_activations = assign_by_activations(groups, networks[0], networks[1:], batches)
    by_activations = []
    for source, (found, unseen) in zip(others, found_by_activations, strict=True):
        record = _record("activations", groups, found)
        if unseen:
            rest = assign_by_weights(groups, parameters(anchor), parameters(source), found.orders, unseen)
            found = Assignment(rest.orders, found.before, found.after)
            record = _record("activations", groups, found)
            record["by_weights"] = [groups.groups[g].name for g in unseen]
        by_activations.append((found, record))
    return by_activations


def _record(by: str, groups: ChannelGroups, found: Assignment) -> dict[str, Any]:
    moved = sum(int((order != torch.arange(len(order))).sum()) for order in found.orders)
    return {
        "by": by,
        "groups": len(groups.groups),
        "channels": sum(group.size for group in groups.groups),
        "moved": moved,
        "similarity_before": round(found.before, 6),
        "similarity_after": round(found.after, 6),
    }


def _loaded(network: nn.Module, source: Source) -> nn.Module:
    """A copy of the network with what the source has for it."""
    copied = copy_network(network)
    copied.load_state_dict(filled_state(copied, source))
    return copied


def filled_state(network: nn.Module, source: Source) -> dict[str, Tensor]:
    """A network's state dict with the source's tensors where they fit.

    Args:
        network: gives what the source lacks.
        source: under the network's names.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> filled_state(layer, Source("a", {"bias": torch.tensor([7.0])}))["bias"]
        tensor([7.])
    """
    own = network.state_dict()
    fitting = {n: t for n, t in source.tensors.items() if n in own and own[n].shape == t.shape}
    return {**{name: tensor.clone() for name, tensor in own.items()}, **fitting}


def _check_same(
    network: nn.Module, groups: ChannelGroups, source: Source, orders: Sequence[Tensor], example_input: Tensor
) -> None:
    """Compare a source with its permuted self, in evaluation."""
    tensors = filled_state(network, source)
    difference = changed_by(network, tensors, groups.permute(tensors, orders), example_input, modes=(False,))
    if difference:
        raise MedMergeError(
            "a permuted source that computes what it did", f"a relative difference of {difference:.1e}", source.name
        )
