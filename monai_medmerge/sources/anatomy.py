"""The body of a network and its head: what a source has to fill, and what it may lack.

Names and shapes are all there is to go by. A tensor that a source lacks belongs to the head if it lies in a module of
which the source has nothing, and this module is called a head, or stands behind everything that the source has and is
not one more of a numbered row (`layer4` behind `layer3`). Another width is the head's if the number of classes
explains it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from monai_medmerge.sources.names.composing import ADAPTERS
from monai_medmerge.sources.tensor_match import DTYPE, EXCLUDED, MATCH, MISSING, SHAPE, Fit, TensorMatch, shape_text

LEAST_SHARE = 0.05
"""Of a network's numbers: what has less is no source of it. A Swin UNETR's encoder is 13 %, the least that is usual."""
MOST_SHOWN = 3
_RUNNING = ("running_mean", "running_var")
# Levels of names that say head wherever they stand, and those that do so only as a network's own children.
_HEADS = re.compile(r"heads?$|head_|_head|supervision|classifier|^aux|seg_layers|seg_outputs|cls_|logits|class_layers")
_OUTPUTS = {"fc", "out", "output", "final", "final_conv", "conv_final", "output_block", "last_linear", "_fc"}
_NUMBERED = re.compile(r"^(.*?)(\d+)$")


@dataclass(frozen=True)
class Verdict:
    """Why a source does not fit, empty if it does, and which tensors of the head it does not fill."""

    conflict: str = ""
    head: tuple[str, ...] = ()


@dataclass(frozen=True)
class Anatomy:
    """What of a network is learned, and where its kernels lie."""

    learned: frozenset[str]
    transposed: frozenset[str]

    @classmethod
    def of(cls, network: nn.Module) -> Anatomy:
        """Of a network.

        Args:
            network: any module.
        """
        learned = {name for name, p in network.named_parameters(remove_duplicate=False) if p.is_floating_point()}
        transposed = {
            f"{name}.weight" if name else "weight"
            for name, module in network.named_modules(remove_duplicate=False)
            if isinstance(module, _ConvTransposeNd)
        }
        return cls(frozenset(learned), frozenset(transposed))

    def needs(self, name: str) -> bool:
        """Whether a tensor has to come from a source: what is learned, and statistics of norms."""
        return name in self.learned or name.rpartition(".")[2] in _RUNNING


def judge(cells: Sequence[tuple[TensorMatch, Fit]], tensors: Mapping[str, Tensor], anatomy: Anatomy) -> Verdict:
    """Whether a source fills a network's body.

    Args:
        cells: every tensor of the network, in its order, and what the source has for it.
        tensors: the source's, by the network's names.
        anatomy: of the network.
    """
    cells = [(row, fit) for row, fit in cells if fit.status != EXCLUDED]
    matched = [i for i, (row, fit) in enumerate(cells) if fit.status == MATCH and row.is_kernel]
    if cells and not matched and any(row.is_kernel for row, _ in cells):
        return Verdict(_nothing(cells, tensors))
    if adapter := next((name for name in tensors if ADAPTERS & set(name.split("."))), ""):
        return Verdict(f"{_absent_text(cells, tensors, adapter)}{adapter}, ... are changes not yet made to its weights")
    head: list[str] = []
    body = _Body(cells, matched)
    for i, (row, fit) in enumerate(cells):
        if fit.status == MATCH or not anatomy.needs(row.tensor):
            continue
        if not body.may_lack(i, row, fit, tensors.get(row.tensor), row.tensor in anatomy.transposed):
            return Verdict(_hole(cells, i, tensors, anatomy))
        head.append(row.tensor)
    needed = [(row, fit) for row, fit in cells if anatomy.needs(row.tensor)]
    agrees = sum(row.elements for row, fit in needed if fit.status == MATCH)
    whole = sum(row.elements for row, _ in needed)
    if agrees < LEAST_SHARE * whole:
        return Verdict(f"only {100 * agrees / whole:.1f} % of the network; {head[0]}, ... are absent")
    return Verdict("", tuple(head))


class _Body:
    """Which modules a source has something of."""

    def __init__(self, cells: Sequence[tuple[TensorMatch, Fit]], matched: Sequence[int]) -> None:
        self.cells = cells
        self.last = max(matched, default=-1)
        self.filled = {begin for i in matched for begin in _beginnings(cells[i][0].tensor)}
        self.kernels = [i for i, (row, _) in enumerate(cells) if row.is_kernel]
        self.classes = self._classes()

    def _classes(self) -> set[tuple[int, int]]:
        """Numbers of outputs of the source's last layer and of the network's, where they differ."""
        if not self.kernels:
            return set()
        row, fit = self.cells[self.kernels[-1]]
        if fit.status != SHAPE:
            return set()
        found = tuple(int(length) for length in fit.detail.split(" x "))
        if len(found) != len(row.shape):
            return set()
        return {pair for pair in zip(found[:2], row.shape[:2], strict=True) if pair[0] != pair[1]}

    def may_lack(self, i: int, row: TensorMatch, fit: Fit, found: Tensor | None, transposed: bool) -> bool:
        """Whether a tensor that does not match is the head's."""
        if fit.status == DTYPE:
            return False
        if fit.status == SHAPE and found is not None:
            return self._other_classes(row, found, transposed) or self._is_head(i, row)
        return fit.status == MISSING and self._is_head(i, row)

    def _other_classes(self, row: TensorMatch, found: Tensor, transposed: bool) -> bool:
        shape = tuple(found.shape)
        if len(shape) != len(row.shape):
            return False
        different = [(i, a, b) for i, (a, b) in enumerate(zip(shape, row.shape, strict=True)) if a != b]
        if all((a, b) in self.classes for _, a, b in different):
            return True
        axis = 1 if transposed else 0
        return row.is_kernel and [i for i, _, _ in different] == [axis]

    def _is_head(self, i: int, row: TensorMatch) -> bool:
        module = self._lacking_module(row.tensor)
        levels = module.split(".")
        if any(_HEADS.search(level) for level in levels) or levels[0] in _OUTPUTS:
            return True
        if i <= self.last:
            return False
        inside = [k for k in self.kernels if f"{self.cells[k][0].tensor}.".startswith(f"{module}.")]
        if len(inside) <= 1 and self.kernels and (not inside or inside[0] == self.kernels[-1]):
            return row.is_kernel or bool(inside) or not self._has(row.tensor.rpartition(".")[0])
        return not self._one_more(module)

    def _has(self, module: str) -> bool:
        return f"{module}." in self.filled

    def _lacking_module(self, name: str) -> str:
        """The largest module around a tensor of whose kernels the source has none."""
        return next((begin[:-1] for begin in _beginnings(name) if begin not in self.filled), name)

    def _one_more(self, module: str) -> bool:
        """Whether a module stands in a numbered row of which the source has others."""
        before, _, last = module.rpartition(".")
        hit = _NUMBERED.match(last)
        if hit is None:
            return False
        stem = f"{before}.{hit[1]}" if before else hit[1]
        return any(re.fullmatch(re.escape(stem) + r"\d+\.", begin) for begin in self.filled)


def _beginnings(name: str) -> list[str]:
    levels = name.split(".")
    return ["".join(f"{level}." for level in levels[: n + 1]) for n in range(len(levels) - 1)]


def _hole(cells: Sequence[tuple[TensorMatch, Fit]], i: int, tensors: Mapping[str, Tensor], anatomy: Anatomy) -> str:
    """What is wrong first, in words: both shapes, or what is absent and what is there instead."""
    row, fit = cells[i]
    if fit.status == SHAPE:
        return f"{row.tensor} is {fit.detail}, the network's {shape_text(row.shape)}"
    if fit.status == DTYPE:
        return f"{row.tensor} holds {fit.detail}, the network's real numbers"
    absent = [r.tensor for r, f in cells if f.status == MISSING and anatomy.needs(r.tensor)]
    at = absent.index(row.tensor)
    shown = ", ".join(absent[at : at + MOST_SHOWN]) + (", ..." if absent[at + MOST_SHOWN :] else "")
    names = {r.tensor for r, _ in cells}
    spare = [name for name in tensors if name not in names]
    near = _nearest(row.tensor, spare)
    instead = f"; there instead: {', '.join(near)}" if near else ""
    return f"{len(absent)} tensors of the network are absent: {shown}{instead}"


def _nearest(name: str, spare: Sequence[str]) -> list[str]:
    """Names that share most levels with one, or the first ones."""
    for begin in reversed(_beginnings(name)):
        if near := [other for other in spare if other.startswith(begin)]:
            return near[:MOST_SHOWN]
    return list(spare[:MOST_SHOWN])


def _nothing(cells: Sequence[tuple[TensorMatch, Fit]], tensors: Mapping[str, Tensor]) -> str:
    named = sum(fit.status != MISSING for _, fit in cells)
    example = next(iter(tensors))
    wrong = next(((row, fit) for row, fit in cells if fit.status == SHAPE and row.is_kernel), None)
    shapes = f"; {wrong[0].tensor} is {wrong[1].detail}, the network's {shape_text(wrong[0].shape)}" if wrong else ""
    count = f"({named} of {len(cells)} names known; it has {example!r}, ...)"
    return f"no weight of the network's name and shape {count}{shapes}"


def _absent_text(cells: Sequence[tuple[TensorMatch, Fit]], tensors: Mapping[str, Tensor], adapter: str) -> str:
    absent = [row.tensor for row, fit in cells if fit.status == MISSING]
    return f"{', '.join(absent[:MOST_SHOWN])} absent; " if absent else ""
