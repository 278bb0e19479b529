"""Groups of channels that must move together, for any network: found by watching it compute.

A permutation of the outputs of a layer leaves a network's function as it is, if everything that reads them is
permuted along: the next layer's input axis, norms, residual partners, the right part of a concatenation. The groups
are found by labelling channels and following the labels through a forward pass, operation by operation, so that
neither a specification nor a symbolic trace of the network is needed, and they are then checked by permuting.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from monai_medmerge.networks.alignment.calls import Call, argument_names, convolution_shape
from monai_medmerge.networks.alignment.invariance import (
    asks_for_mode,
    changed_by,
    outputs_of_both_modes,
    random_copy,
    restored,
)
from monai_medmerge.networks.alignment.labels import ChannelLabels
from monai_medmerge.networks.alignment.rules import find_rule


@dataclass(frozen=True, eq=False)
class Member:
    """One tensor's part in a group.

    Args:
        tensor: its name in the state dict.
        axis: the axis along which its channels lie.
        length: of that axis.
        index: int64 (channel, block), the positions that belong to each channel of the group, in an order that
            corresponds between channels.
        reads: whether the tensor reads these channels rather than producing or scaling them.
    """

    tensor: str
    axis: int
    length: int
    index: Int[Tensor, "channel block"]
    reads: bool = False


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Channels that can be put into any order, if all members are.

    Args:
        name: the first tensor that has them.
        size: number of channels (or blocks of channels that move as one).
        members: everything that moves with them.
    """

    name: str
    size: int
    members: tuple[Member, ...]


@dataclass(frozen=True)
class Fixed:
    """An axis of which some positions stay where they are, and why."""

    tensor: str
    axis: int
    positions: int
    reason: str


@dataclass(frozen=True, eq=False)
class ChannelGroups:
    """What of a network can move, and what stays; `str()` is a table.

    Args:
        network: its class name.
        groups: in the order in which the network computes them.
        fixed: what stays, with the reason.
    """

    network: str
    groups: tuple[ChannelGroup, ...]
    fixed: tuple[Fixed, ...]

    def permute(self, tensors: Mapping[str, Tensor], permutations: Sequence[Int[Tensor, " _"]]) -> dict[str, Tensor]:
        """Put all channels into a new order; the network computes what it computed.

        Args:
            tensors: a state dict, or a part of one. A tensor of another shape (a head for other classes) moves along
                those axes that have the network's length.
            permutations: one per group: channel i of the result is channel ``permutation[i]`` of what is given.

        Returns:
            New tensors under the same names, in the same order; those without a member are the given ones.
        """
        moves: dict[tuple[str, int], Tensor] = {}
        for group, permutation in zip(self.groups, permutations, strict=True):
            for member in group.members:
                if _length(tensors.get(member.tensor), member.axis) == member.length:
                    order = moves.setdefault((member.tensor, member.axis), torch.arange(member.length))
                    order[member.index] = member.index[permutation]
        permuted = dict(tensors)
        for (name, axis), order in moves.items():
            permuted[name] = permuted[name].index_select(axis, order.to(permuted[name].device))
        return permuted

    def __str__(self) -> str:
        lines = [f"{self.network}: {len(self.groups)} groups, {sum(g.size for g in self.groups):,} channels can move"]
        for group in self.groups:
            blocks = max(member.index.shape[1] for member in group.members)
            parts = f" (in blocks of up to {blocks})" if blocks > 1 else ""
            lines.append(f"  {group.name}: {group.size}{parts}, {len(group.members)} tensors")
        lines.append(f"{len(self.fixed)} axes stay, in part or as a whole")
        lines += [f"  {fixed.tensor}, axis {fixed.axis}: {fixed.positions} {fixed.reason}" for fixed in self.fixed]
        return "\n".join(lines)


def _length(tensor: Tensor | None, axis: int) -> int | None:
    return tensor.shape[axis] if tensor is not None and tensor.ndim > axis else None


def channel_groups(network: nn.Module, example_input: Tensor, check: bool = True) -> ChannelGroups:
    """Find the groups of channels that must move together.

    The network computes the example in evaluation, and in training mode too if its code asks for the mode, and every
    operation passes the labels of its input's channels on; convolutions only pass zeros of the right shape on. What an
    operation does not let move stays, with the reason in the report. Then every group is permuted in a copy with random
    weights and compared in both modes; a group that changes the output after all stays too.

    Args:
        network: as it was afterwards; meanwhile its modes and buffers are others.
        example_input: a batch that it takes; small is quick.
        check: whether to permute a copy at last. Without it the labels are trusted, in a fraction of the time.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3))
        >>> print(channel_groups(network, torch.zeros(2, 1, 8, 8)))
        Sequential: 1 groups, 4 channels can move
          0.weight: 4, 7 tensors
        2 axes stay, in part or as a whole
          3.weight, axis 0: 2 is an output of the network
          3.bias, axis 0: 2 is an output of the network
    """
    labels = trace(network, example_input)
    found = _groups(type(network).__name__, labels, _aliases(network))
    generator = torch.Generator().manual_seed(1)
    probe = example_input.double() + torch.randn(example_input.shape, dtype=torch.float64, generator=generator)
    bad = _changing(found, random_copy(network), probe) if check else []
    kept = tuple(group for group in found.groups if group not in bad)
    rows = [
        Fixed(m.tensor, m.axis, m.index.numel(), "changed the output when permuted") for g in bad for m in g.members
    ]
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    rows += [Fixed(n, axis, shapes[n][axis], "was not used for the example") for n, axis in labels.unreached()]
    return replace(found, groups=kept, fixed=(*found.fixed, *rows))


def _changing(found: ChannelGroups, network: nn.Module, image: Tensor) -> list[ChannelGroup]:
    """The groups that change what a network computes when they are permuted, by halving."""
    tensors = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    orders = {group: _one_cycle(group.size, generator) for group in found.groups}

    def changing(groups: tuple[ChannelGroup, ...]) -> list[ChannelGroup]:
        permuted = replace(found, groups=groups).permute(tensors, [orders[group] for group in groups])
        if changed_by(network, tensors, permuted, image) == 0:
            return []
        if len(groups) == 1:
            return list(groups)
        half = len(groups) // 2
        return changing(groups[:half]) + changing(groups[half:])

    return changing(found.groups) if found.groups else []


def _one_cycle(size: int, generator: torch.Generator) -> Tensor:
    """A random permutation that leaves nothing in its place."""
    ring, order = torch.randperm(size, generator=generator), torch.empty(size, dtype=torch.int64)
    order[ring] = ring.roll(1)
    return order


def trace(network: nn.Module, example_input: Tensor) -> ChannelLabels:
    """Follow the channels of a network through a pass in evaluation and, where it may differ, one in training."""
    modes = (False, True) if asks_for_mode(network) else (False,)
    with restored(network):
        tensors = network.state_dict(keep_vars=True)
        labels = ChannelLabels({name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()})
        with _Trace(labels):
            outputs = outputs_of_both_modes(network, example_input, modes)
    for tensor in outputs:
        labels.pin(labels.of(tensor), "is an output of the network")
    for name in labels.raw:
        axes = [axis for other, axis in labels.places if other == name]
        for axis in axes if len(axes) > 1 else []:
            labels.pin(labels.at(name, axis), "is both the weight of a layer and used otherwise")
    return labels


class _Trace(TorchDispatchMode):
    """Runs every operation, then its rule."""

    def __init__(self, labels: ChannelLabels) -> None:
        super().__init__()
        self.labels = labels

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        bound = dict(zip(argument_names(func), args, strict=False))
        if kwargs:
            bound.update(kwargs)
        # Labels depend on shapes, not on numbers, and convolutions take nearly all the time of a pass.
        shape = convolution_shape(bound) if func is torch.ops.aten.convolution.default else None
        out = func(*args, **(kwargs or {})) if shape is None else args[0].new_zeros(shape)
        call = Call(func, bound, out)
        if call.inputs and call.outputs:
            find_rule(func)(self.labels, call)
        return out


def _groups(network: str, labels: ChannelLabels, aliases: Mapping[str, Sequence[str]]) -> ChannelGroups:
    """Classes of channels that can change places: those that occur alike in all places and sets."""
    places = list(labels.places)
    lengths = [len(labels.places[place]) for place in places]
    # One entry per position of every place: which place, which position, which component owns it, and its kind.
    place = np.repeat(np.arange(len(places)), lengths)
    position = np.concatenate([np.arange(length) for length in lengths])
    component = _components(labels)
    owner = component[torch.cat([labels.places[p] for p in places]).numpy()]
    reasons = ["has no other of its kind", *dict.fromkeys(reason for _, reason in labels.pins)]
    reason = _reasons(labels, component, reasons)
    kind = _kinds(labels, component, reason, place, owner)
    order = np.lexsort((position, place, owner, kind))
    groups: list[ChannelGroup] = []
    fixed: list[Fixed] = []
    for entries in np.split(order, np.flatnonzero(np.diff(kind[order])) + 1):
        size, why = 1 + int(np.count_nonzero(np.diff(owner[entries]))), reason[owner[entries[0]]]
        if size == 1 or why:
            rows = zip(*np.unique(place[entries], return_counts=True), strict=True)
            # A scale of length 1 has nothing to move.
            fixed += [
                Fixed(places[p][0], places[p][1], int(count), reasons[why]) for p, count in rows if lengths[p] > 1
            ]
            continue
        # Every row is one channel; its columns are in order of places.
        columns = place[entries[: len(entries) // size]]
        index = torch.from_numpy(position[entries].reshape(size, -1))
        starts = [0, *(np.flatnonzero(np.diff(columns)) + 1).tolist(), len(columns)]
        spans = [(int(columns[start]), slice(start, end)) for start, end in itertools.pairwise(starts)]
        members = tuple(
            Member(name, places[p][1], lengths[p], index[:, span].contiguous(), places[p] in labels.readers)
            for p, span in spans
            for name in aliases[places[p][0]]
        )
        groups.append(ChannelGroup(places[columns[0]][0], size, members))
    return ChannelGroups(network, tuple(groups), tuple(fixed))


def _components(labels: ChannelLabels) -> np.ndarray:
    """For every label, the number of the component of labels that move together."""
    a = np.concatenate([np.empty(0, int), *(a.numpy() for a, _ in labels.links)])
    b = np.concatenate([np.empty(0, int), *(b.numpy() for _, b in labels.links)])
    links = coo_array((np.ones(len(a), bool), (a, b)), shape=(labels.count, labels.count))
    return connected_components(links, directed=False)[1]


def _reasons(labels: ChannelLabels, component: np.ndarray, reasons: Sequence[str]) -> np.ndarray:
    """For every component, the index of the first reason why it stays, or 0."""
    pinned = np.zeros(len(component), int)
    number = {reason: n for n, reason in enumerate(reasons)}
    for pins, reason in reversed(labels.pins):
        pinned[component[pins.numpy()]] = number[reason]
    return pinned


def _kinds(
    labels: ChannelLabels, component: np.ndarray, reason: np.ndarray, place: np.ndarray, owner: np.ndarray
) -> np.ndarray:
    """For every entry, the kind of its component: components of one kind occur equally often in all places and sets.

    Kinds are told apart by sums of random 64-bit words, and numbered in the order in which they first occur.
    """
    words = np.random.default_rng(0)
    signature = np.zeros(len(component), np.uint64)
    for members in labels.sets.values():
        np.add.at(signature, component[members.numpy()], words.integers(2**63, dtype=np.uint64))
    np.add.at(signature, owner, words.integers(2**63, size=int(place.max()) + 1, dtype=np.uint64)[place])
    # What stays is of one kind per reason.
    signature = np.where(reason > 0, reason.astype(np.uint64), signature)
    _, first, kind = np.unique(signature[owner], return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[kind]


def _aliases(network: nn.Module) -> dict[str, list[str]]:
    """All names of every tensor of the state dict, by its first."""
    names: dict[int, list[str]] = {}
    for name, tensor in network.state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), []).append(name)
    return {same[0]: same for same in names.values()}
