"""Which channel of one network answers to which of another: by their weights, or by what they compute."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from monai_medmerge.errors import DatasetError
from monai_medmerge.inspection import image_of
from monai_medmerge.networks.alignment.permutation import ChannelGroup, ChannelGroups, Member

# Coordinate descent rarely needs more than ten sweeps; each can only improve.
MAX_SWEEPS = 100


@dataclass(frozen=True, eq=False)
class Assignment:
    """A channel order for every group, and how alike the networks are without and with it.

    Args:
        orders: per group, the channel of the source that takes each place.
        before: similarity in the given order, 1 for equal networks: the cosine between their weights, or the mean
            correlation of their channels.
        after: similarity in the new order.
    """

    orders: tuple[Int[Tensor, " _"], ...]
    before: float
    after: float


def best_order(similarity: Float[Tensor, "anchor source"]) -> Int[Tensor, " anchor"]:
    """The one-to-one assignment with the largest sum of similarities.

    Example:
        >>> best_order(torch.tensor([[0.1, 0.9], [0.8, 0.7]])).tolist()
        [1, 0]
    """
    return torch.from_numpy(linear_sum_assignment(similarity.double().numpy(), maximize=True)[1])


def assign_by_weights(
    groups: ChannelGroups,
    anchor: Mapping[str, Tensor],
    source: Mapping[str, Tensor],
    start: Sequence[Tensor] | None = None,
    only: Iterable[int] | None = None,
    seed: int = 0,
    tolerance: float = 0.01,
) -> Assignment:
    """Coordinate descent on the sum of products of weights (Git Re-Basin, arXiv:2209.04836, algorithm 1).

    One group after another takes the order that fits best, given those of all others, until none changes. The first
    sweep goes through the network from its input and looks only at weights whose other axes are in order already:
    what has not been ordered yet is noise.

    Args:
        groups: of the network.
        anchor: parameters of the network that stays; buffers are better left out.
        source: parameters of the one that is permuted. What either lacks is not looked at.
        start: orders to start from; as they are, if not given.
        only: indices of the groups that may change; all, if not given.
        seed: of the order of groups in all sweeps but the first.
        tolerance: a group that gains less than its share of this part of what has been gained does not make its
            neighbours be looked at again; the last per cent takes most of the time. 0 goes on to the very end.

    Returns:
        The orders, and the cosine between all kernels that can move.
    """
    descent = _Descent(groups, anchor, source)
    before = descent.similarity()
    if start is not None:
        descent.apply_all(start)
    active = list(range(len(groups.groups)) if only is None else only)
    settled = set(range(len(groups.groups))) - set(active)
    start_product = descent.product()
    for g in active:
        descent.improve(g, settled)
        settled.add(g)
    gained = descent.product() - start_product
    generator = torch.Generator().manual_seed(seed)
    waiting = set(active)
    for _ in range(MAX_SWEEPS):
        if not waiting:
            break
        for g in [active[i] for i in torch.randperm(len(active), generator=generator).tolist()]:
            if g in waiting:
                waiting.discard(g)
                gain = descent.improve(g)
                gained += gain
                if gain > max(tolerance * gained, 0) / len(active):
                    waiting |= descent.neighbours[g] & set(active)
    return Assignment(tuple(descent.orders), before, descent.similarity())


class _Descent:
    """The source in its present order, one group at a time."""

    def __init__(self, groups: ChannelGroups, anchor: Mapping[str, Tensor], source: Mapping[str, Tensor]) -> None:
        self.groups = groups.groups
        moved = {member.tensor for group in self.groups for member in group.members}
        names = [n for n in source if n in moved and n in anchor and anchor[n].shape == source[n].shape]
        self.anchor = {name: anchor[name].float() for name in names}
        self.source = {name: source[name].float() for name in names}
        self.orders = [torch.arange(group.size) for group in self.groups]
        # Groups by tensor: those that share one depend on each other.
        self.sharing: dict[str, set[int]] = {}
        for g, group in enumerate(self.groups):
            for member in group.members:
                self.sharing.setdefault(member.tensor, set()).add(g)
        self.neighbours = [
            set().union(*(self.sharing[member.tensor] for member in group.members)) - {g}
            for g, group in enumerate(self.groups)
        ]

    def similarity(self) -> float:
        """Cosine between all kernels that can move; scales and shifts, alike from the start, are left out."""
        kernels = [name for name, tensor in self.anchor.items() if tensor.ndim > 1]
        norms = [sum(float(t[n].double().square().sum()) for n in kernels) ** 0.5 for t in (self.anchor, self.source)]
        return self.product(kernels) / max(norms[0] * norms[1], 1e-30)

    def product(self, names: Iterable[str] | None = None) -> float:
        """Sum of products of both networks' weights."""
        names = self.anchor if names is None else names
        return sum(float(torch.dot(self.anchor[n].flatten(), self.source[n].flatten()).double()) for n in names)

    def apply_all(self, orders: Sequence[Tensor]) -> None:
        """Put every group into an order."""
        for g, order in enumerate(orders):
            self._apply(g, order)

    def _apply(self, g: int, order: Tensor) -> None:
        self.orders[g] = self.orders[g][order]
        for member in self.groups[g].members:
            if member.tensor in self.source:
                tensor = self.source[member.tensor]
                moves = torch.arange(tensor.shape[member.axis])
                moves[member.index] = member.index[order]
                self.source[member.tensor] = tensor.index_select(member.axis, moves)

    def improve(self, g: int, settled: set[int] | None = None) -> float:
        """Find the best order of one group, and take it if it is better.

        Args:
            g: index of the group.
            settled: groups in order; weights that other groups order as well are left aside. All count if None.

        Returns:
            What the sum of products has gained; 0 where the order stays.
        """
        group = self.groups[g]
        members = [member for member in group.members if member.tensor in self.source]
        informed = members if settled is None else [m for m in members if self._is_informed(m, g, settled)]
        if not informed:
            return 0.0
        order = best_order(self._similarities(group, informed))
        if torch.equal(order, torch.arange(group.size)):
            return 0.0
        names, old = {member.tensor for member in members}, self.orders[g]
        kept, before = {name: self.source[name] for name in names}, self.product(names)
        self._apply(g, order)
        gain = self.product(names) - before
        # Where a tensor has the group along two axes the sum is quadratic, and the assignment may not improve it.
        # In the first sweep what is not settled cannot tell.
        if settled is None and gain <= 1e-6 * abs(before):
            self.source.update(kept)
            self.orders[g] = old
            return 0.0
        return gain

    def _is_informed(self, member: Member, g: int, settled: set[int]) -> bool:
        """Whether all that orders a tensor besides this member is in order."""
        own = sum(other.tensor == member.tensor for other in self.groups[g].members)
        return own == 1 and self.sharing[member.tensor] - {g} <= settled

    def _similarities(self, group: ChannelGroup, members: Sequence[Member]) -> Tensor:
        total = torch.zeros(group.size, group.size)
        for member in members:
            a, b = (_rows(tensors[member.tensor], member) for tensors in (self.anchor, self.source))
            total.addmm_(a, b.t())
        return total


def _rows(tensor: Tensor, member: Member) -> Float[Tensor, "channel number"]:
    """What of a tensor belongs to each channel."""
    return tensor.movedim(member.axis, 0)[member.index].reshape(len(member.index), -1)


def assign_by_activations(
    groups: ChannelGroups, anchor: nn.Module, sources: Sequence[nn.Module], batches: Iterable[Any]
) -> list[tuple[Assignment, list[int]]]:
    """Match channels that are active together, measured where the next layers read them.

    For every group the correlation between each channel of the anchor and each of the source is accumulated over all
    batches, positions and reading layers; no activation is kept beyond its batch.

    Args:
        groups: of the network.
        anchor: the network that stays, in evaluation mode.
        sources: networks of the same architecture.
        batches: tensors, or what `recalibrate` takes; gone through once.

    Returns:
        Per source an assignment with mean correlations, and the indices of groups that no convolution or linear layer
        reads as a whole: those are in their given order.

    Raises:
        DatasetError: there is no batch.
    """
    readers = _readers(groups, anchor)
    observed = [_observe(network, readers) for network in (anchor, *sources)]
    moments = [{reader: _Comoments() for reader in readers} for _ in sources]
    count = 0
    try:
        with torch.no_grad():
            for count, batch in enumerate(batches, 1):  # noqa: B007
                image = image_of(batch)
                for network, (seen, _) in zip((anchor, *sources), observed, strict=True):
                    seen.clear()
                    network(image)
                for (seen, _), pooled in zip(observed[1:], moments, strict=True):
                    for reader, values in seen.items():
                        pooled[reader].update(observed[0][0][reader], values)
    finally:
        for seen, handles in observed:
            seen.clear()
            for handle in handles:
                handle.remove()
    if not count:
        raise DatasetError("at least one batch", "none", "alignment by activations")
    return [_assignment(groups, readers, pooled) for pooled in moments]


@dataclass(frozen=True)
class _Reader:
    """A layer that reads a group's channels: by group, module and axis of the module's input."""

    group: int
    module: str
    axis: int


def _readers(groups: ChannelGroups, network: nn.Module) -> dict[_Reader, Tensor]:
    """Layers that read groups, with the positions (channel, block) in their input."""
    found: dict[_Reader, Tensor] = {}
    for g, group in enumerate(groups.groups):
        for member in group.members:
            path, _, attribute = member.tensor.rpartition(".")
            module = network.get_submodule(path)
            if not member.reads or attribute != "weight" or not isinstance(module, _ConvNd | nn.Linear):
                continue
            # Along its other axis a weight is read only by something else that borrows it, such as a tied decoder.
            if member.axis == (0 if isinstance(module, _ConvTransposeNd) else 1):
                found[_Reader(g, path, -1 if isinstance(module, nn.Linear) else 1)] = member.index
    return found


def _observe(
    network: nn.Module, readers: Mapping[_Reader, Tensor]
) -> tuple[dict[_Reader, Tensor], list[torch.utils.hooks.RemovableHandle]]:
    """Hooks that leave (channel, sample) of the latest batch for every reader."""
    seen: dict[_Reader, Tensor] = {}

    def watch(reader: _Reader, index: Tensor) -> torch.utils.hooks.RemovableHandle:
        def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            values = inputs[0].movedim(reader.axis, 0)[index].flatten(1).float()
            # A layer that runs twice sees both.
            seen[reader] = torch.cat([seen[reader], values], 1) if reader in seen else values

        return network.get_submodule(reader.module).register_forward_pre_hook(look)

    return seen, [watch(reader, index) for reader, index in readers.items()]


class _Comoments:
    """Running sums for the correlation of every channel of one network with every channel of another."""

    def __init__(self) -> None:
        self.count = 0

    def update(self, a: Float[Tensor, "channel sample"], b: Float[Tensor, "channel sample"]) -> None:
        if not self.count:
            # Sums of differences from the first batch's mean lose no digits to a large mean.
            self.shift = a.mean(1, keepdim=True), b.mean(1, keepdim=True)
            n = len(a)
            self.sums = torch.zeros(2, n, dtype=torch.float64)
            self.squares = torch.zeros(2, n, dtype=torch.float64)
            self.products = torch.zeros(n, n, dtype=torch.float64)
        a, b = a - self.shift[0], b - self.shift[1]
        self.count += a.shape[1]
        for i, values in enumerate((a, b)):
            self.sums[i] += values.sum(1)
            self.squares[i] += values.square().sum(1)
        self.products += a @ b.t()

    def correlation(self) -> Float[Tensor, "anchor source"]:
        """Pearson's; zero for a channel that never changes."""
        mean = self.sums / self.count
        deviation = (self.squares / self.count - mean.square()).clamp(min=0).sqrt()
        covariance = self.products / self.count - mean[0][:, None] * mean[1]
        scale = deviation[0][:, None] * deviation[1]
        return torch.where(scale > 0, covariance / scale.clamp(min=1e-30), 0.0)


def _assignment(
    groups: ChannelGroups, readers: Iterable[_Reader], moments: Mapping[_Reader, _Comoments]
) -> tuple[Assignment, list[int]]:
    orders, before, after, unseen = [], 0.0, 0.0, []
    channels = 0
    for g, group in enumerate(groups.groups):
        found = [moments[reader].correlation() for reader in readers if reader.group == g and moments[reader].count]
        order = torch.arange(group.size)
        if found:
            correlation = torch.stack(found).mean(0)
            order = best_order(correlation)
            before += float(correlation.diagonal().sum())
            after += float(correlation[torch.arange(group.size), order].sum())
            channels += group.size
        else:
            unseen.append(g)
        orders.append(order)
    return Assignment(tuple(orders), before / max(channels, 1), after / max(channels, 1)), unseen
