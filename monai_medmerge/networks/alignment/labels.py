"""Labels that follow channels through a network: which number of an activation comes from which row of which weight.

Every activation carries an integer tensor that broadcasts to its shape. Equal labels move together; FIXED cannot
move. An axis along which labels do not vary has length 1, so that labels cost little beside the activation itself.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import torch
from jaxtyping import Int
from torch import Tensor

FIXED = 0
# A reduction over more different sets of channels than this pins them.
MAX_SETS = 1 << 10

# Where a tensor of the state dict is labelled: its name and the axis.
Place = tuple[str, int]


class ChannelLabels:
    """What one or more forward passes say about the channels of a network.

    Args:
        tensors: the floating-point tensors of the network's state dict by name, the very objects it computes with.
            Several names of one tensor count as the first.

    Attributes:
        places: labels of every axis of every weight that was reached, in the order in which they were.
        readers: those places at which a weight reads channels that another weight produced.
        raw: names of tensors that were used as activations, not as the weight of a layer.
        links: pairs of equally long label vectors that must move together.
        pins: labels that must stay, each with the reason.
        sets: sets of labels that may only be exchanged among themselves.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._names: dict[int, str] = {}
        self._tensors: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            if id(tensor) not in self._names and tensor.ndim and tensor.numel():
                self._names[id(tensor)] = name
                self._tensors[name] = tensor
        self.count = 1
        self.places: dict[Place, Tensor] = {}
        self.raw: set[str] = set()
        self.readers: set[Place] = set()
        self.links: list[tuple[Tensor, Tensor]] = []
        self.pins: list[tuple[Tensor, str]] = []
        self.sets: dict[bytes, Tensor] = {}
        # Most operations pass their input's labels on: by the id of those that an activation has had, the labels.
        self._attached: dict[int, Tensor] = {}
        # A layer that runs again labels its result with the same tensor: by the id of its channels, that and those.
        self._spread: dict[tuple[int, int, int], tuple[Tensor, Tensor]] = {}

    def at(self, name: str, axis: int, reads: bool = False) -> Int[Tensor, " position"]:
        """Labels of a weight's axis; new ones when they are first asked for."""
        place = (name, axis)
        if place not in self.places:
            length = self._tensors[name].shape[axis]
            self.places[place] = torch.arange(self.count, self.count + length)
            self.count += length
        if reads:
            self.readers.add(place)
        return self.places[place]

    def follow(self, tensor: Tensor, labels: Int[Tensor, " position"]) -> None:
        """A vector of scales, shifts or statistics moves with these labels."""
        weight = self.weight(tensor)
        is_whole = tensor.shape == labels.shape and not hasattr(tensor, "_channel_labels")
        if weight is not None and is_whole:
            self.tie(weight[0], 0, labels)
        else:
            self.link(self.of(tensor), labels)

    def tie(
        self,
        name: str,
        axis: int,
        labels: Int[Tensor, " position"],
        reason: str = "is combined with what stays",
        reads: bool = False,
    ) -> None:
        """A weight's axis moves with these labels: it takes them over, if it has none and all of them may move."""
        if (name, axis) in self.places or bool((labels == FIXED).any()):
            self.link(self.at(name, axis, reads), labels, reason)
            return
        self.places[name, axis] = labels
        if reads:
            self.readers.add((name, axis))

    def unreached(self) -> list[Place]:
        """Axes of the tensors that no operation has used."""
        names = {name for name, _ in self.places}
        return [(n, axis) for n, t in self._tensors.items() if n not in names for axis in range(min(t.ndim, 2))]

    def weight(self, tensor: Tensor) -> tuple[str, bool] | None:
        """The name of a weight matrix or convolution kernel, and whether the tensor is its transpose."""
        name = self._names.get(id(tensor))
        return (name, False) if name is not None else getattr(tensor, "_channel_weight", None)

    def mark_transpose(self, out: Tensor, of: Tensor) -> bool:
        """Remember that a tensor is a weight matrix transposed; False if it is something else."""
        weight = self.weight(of)
        if weight is None or of.ndim != 2:
            return False
        out._channel_weight = (weight[0], not weight[1])  # type: ignore[attr-defined]
        return True

    def of(self, tensor: Tensor) -> Int[Tensor, "*shape"]:
        """Labels of an activation, or of a parameter that is used as one; they broadcast to its shape.

        A raw parameter (token, position table, scale) has its channels along the last axis that has any length.
        """
        labels = getattr(tensor, "_channel_labels", None)
        if labels is not None:
            return labels
        weight = self.weight(tensor)
        if weight is None:
            return no_labels(tensor.ndim)
        name, transposed = weight
        shape = self._tensors[name].shape
        axis = max((i for i, length in enumerate(shape) if length > 1), default=len(shape) - 1)
        self.raw.add(name)
        labels = self.at(name, axis).reshape([-1 if i == axis else 1 for i in range(len(shape))])
        return labels.t() if transposed else labels

    def same_along(self, tensor: Tensor) -> list[bool]:
        """For every axis, whether the tensor is known to be one slice repeated."""
        repeated = getattr(tensor, "_channel_repeats", [False] * tensor.ndim)
        return [n == 1 or s == 0 or r for n, s, r in zip(tensor.shape, tensor.stride(), repeated, strict=True)]

    def attach(self, tensor: Tensor, labels: Tensor) -> None:
        """Give an activation its labels; whatever moves later must keep this set of them together."""
        if id(labels) not in self._attached:
            labels = compress(labels)
            self.touch(labels)
            self._attached[id(labels)] = labels
        tensor._channel_labels = labels  # type: ignore[attr-defined]

    def along(self, channels: Int[Tensor, " channel"], axis: int, ndim: int) -> Tensor:
        """Labels that vary along one axis only."""
        key = (id(channels), axis, ndim)
        if key not in self._spread:
            self._spread[key] = channels.reshape([1] * axis + [-1] + [1] * (ndim - axis - 1)), channels
        return self._spread[key][0]

    def link(self, a: Tensor, b: Tensor, reason: str = "is combined with what stays") -> None:
        """These move together, element by element; what is linked with FIXED stays, for the reason given."""
        if a is b:
            return
        a, b = torch.broadcast_tensors(a, b)
        a, b = a.reshape(-1), b.reshape(-1)
        if torch.equal(a, b):
            return
        fixed = (a == FIXED) | (b == FIXED)
        if fixed.any():
            self.pin(torch.maximum(a, b)[fixed], reason)
            a, b = a[~fixed], b[~fixed]
        if len(a):
            self.links.append((a, b))

    def join(self, labels: Int[Tensor, "row column"]) -> Int[Tensor, " row"]:
        """All labels of a row move together; one of them stands for the row."""
        if labels.shape[1] > 1:
            self.link(labels[:, 1:], labels[:, :1])
        return labels[:, 0]

    def pin(self, labels: Tensor, reason: str) -> None:
        """These stay where they are."""
        labels = labels[labels != FIXED]
        if labels.numel():
            self.pins.append((labels.unique(), reason))

    def touch(self, labels: Tensor) -> None:
        """These may be exchanged among themselves, not with others."""
        distinct = labels.reshape(-1) if labels.numel() == 1 else labels.unique()
        distinct = distinct[distinct != FIXED]
        if distinct.numel():
            self.sets.setdefault(distinct.numpy().tobytes(), distinct)

    def touch_rows(self, labels: Int[Tensor, "row column"]) -> None:
        """`touch` for every row, as where something is computed from each row as a whole."""
        rows = labels if len(labels) == 1 else labels.unique(dim=0)
        if len(rows) > MAX_SETS:
            self.pin(rows, "is summed in too many different ways")
            return
        for row in rows:
            self.touch(row)


@functools.cache
def no_labels(ndim: int) -> Tensor:
    """Labels of something that does not move."""
    return torch.full([1] * ndim, FIXED)


def first_along(labels: Tensor, axes: range) -> Tensor:
    """The first slice along some axes, which keep the length 1."""
    for axis in axes:
        labels = labels.narrow(axis, 0, 1)
    return labels


def compress(labels: Tensor) -> Tensor:
    """Give every axis along which labels do not vary the length 1.

    Example:
        >>> compress(torch.tensor([[7, 7], [8, 8]])).tolist()
        [[7], [8]]
    """
    for axis in range(labels.ndim):
        if labels.shape[axis] > 1:
            first = labels.narrow(axis, 0, 1)
            if labels.stride(axis) == 0 or bool((labels == first).all()):
                labels = first
    return labels


def reshape(labels: Tensor, old: tuple[int, ...], new: tuple[int, ...]) -> Tensor:
    """Labels of a reshaped activation; axes that stay constant are never written out.

    Args:
        labels: broadcast to `old`.
        old: shape of the activation before.
        new: and after.

    Example:
        >>> reshape(torch.tensor([[[1], [2]]]), (8, 2, 9), (8, 2, 3, 3)).shape
        torch.Size([1, 2, 1, 1])
    """
    spread: list[int] = []
    shape: list[int] = []
    for from_axes, to_axes in _aligned(old, new):
        varies = any(labels.shape[axis] > 1 for axis in from_axes)
        spread += [old[axis] if varies else 1 for axis in from_axes]
        shape += [new[axis] if varies else 1 for axis in to_axes]
    return labels.expand(spread).reshape(shape)


def _aligned(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[range, range]]:
    """The smallest runs of axes of both shapes with equal products."""
    runs: list[tuple[range, range]] = []
    i = j = 0
    while i < len(old) and j < len(new):
        first_i, first_j, a, b = i, j, old[i], new[j]
        i, j = i + 1, j + 1
        while a != b:
            if a < b:
                a, i = a * old[i], i + 1
            else:
                b, j = b * new[j], j + 1
        runs.append((range(first_i, i), range(first_j, j)))
    # What is left on either side has length 1.
    runs.append((range(i, len(old)), range(j, len(new))))
    return runs
