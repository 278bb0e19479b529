"""Merge several sources into one network with learnable coefficients."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils import parametrize

from monai_medmerge.errors import SettingError
from monai_medmerge.inspection import copy_network
from monai_medmerge.networks.blend import Coefficients, Columns, KernelBlend, MergeRecord
from monai_medmerge.networks.constraints import CONSTRAINTS
from monai_medmerge.networks.folding import thaw
from monai_medmerge.networks.forward_pass import blend_at_once
from monai_medmerge.networks.kernels import KernelLayout, KernelTensor, head_index, kernel_tensors
from monai_medmerge.networks.start import Start, among, check_start
from monai_medmerge.sources.checkpoint.source import Source
from monai_medmerge.sources.matching import MATCH, MatchReport, check_compatible, resolve
from monai_medmerge.sources.patterns import Patterns, selects

GRANULARITIES = ("network", "layer", "kernel", "slice")
logger = logging.getLogger(__name__)


def merge(
    network: nn.Module,
    sources: Sequence[Source],
    granularity: str = "kernel",
    constraint: str = "softmax",
    start: Start = "uniform",
    anchor: int = 0,
    residual: bool = False,
    exclude: Patterns = (),
    *,
    include: Patterns = ("*",),
    tie: bool = True,
    share_heads: bool = False,
) -> nn.Module:
    """A copy of a network whose weights are blended from the sources by learnable coefficients.

    ``W[k] = sum over n of c[n, k] * S[n, k]`` for every kernel k of every tensor that at least one source has; where
    a source lacks a tensor, the others share it. Only the coefficients and the tensors that no source has (the head)
    are trainable. MedMerge (arXiv:2403.11646); its equations are not published, so this is our reading of it.

    Args:
        network: gives class, shapes and the values of what no source has. Stays untouched.
        sources: one or more, with names of their own. Stay untouched, and must not be changed while the result lives.
        granularity: one coefficient per source for the whole `network`, per `layer`, per `kernel` or per `slice` of a
            kernel (output x input).
        constraint: `softmax` (between 0 and 1, summing to one), `affine` (summing to one; the anchor takes what the
            others leave) or `free`.
        start: `uniform`, `anchor` (all weight on one source), a tensor (source,) for all kernels, or a mapping from
            tensor names to (source, kernel) as `coefficients` returns it; what a mapping lacks starts uniform.
        anchor: index of the source that `start` and `affine` refer to.
        residual: add a trainable difference to every blended tensor, so that coefficients and weights learn together.
        exclude: name pattern or patterns (`encoder.*`) of tensors that stay the network's own, trainable.
        include: name pattern or patterns of tensors that may merge.
        tie: biases share their layer's coefficients, and a norm's shift those of its scale; else each learns its own.
        share_heads: query, key and value rows of one attention head share a coefficient (with `kernel`).

    Returns:
        A network of the same class. Norms' running statistics begin as the same blend as their scale; see
        `recalibrate`.

    Raises:
        IncompatibleSourcesError: a source does not fit; the match table is shown.
        SettingError: an option is unknown, a given start has another shape or breaks the constraint, or the network
            has parametrizations already.

    Example:
        >>> from monai_medmerge import coefficients, fold
        >>> sources = [Source.from_network(nn.Linear(4, 3), name) for name in ("a", "b")]
        >>> merged = merge(nn.Linear(4, 3), sources)
        >>> coefficients(merged)["weight"].shape
        torch.Size([2, 3])
        >>> torch.equal(fold(merged).weight, merged.weight)
        True
    """
    _check_plain(network)
    report = check_compatible(network, sources, exclude)
    _check_options(granularity, constraint, anchor, len(sources))
    check_start(start, constraint, len(sources), {row.tensor for row in report.rows})
    resolved = [resolve(network, source) for source in sources]
    record = MergeRecord(tuple(s.name for s in sources), tuple(s.sha256 for s in sources), granularity, constraint)
    plan = _Plan(resolved, report, granularity, constraint, start, anchor, residual, tie, share_heads, record)
    for pattern in [exclude] if isinstance(exclude, str) else exclude:
        if not any(selects(pattern, row.tensor) for row in report.rows):
            logger.warning("No tensor of %s is called %s, which was to be excluded", report.network, pattern)
    merged = copy_network(network)
    chosen = [t for t in kernel_tensors(merged) if _selected(t.name, include, exclude) and plan.present(t.name)]
    if not chosen:
        raise SettingError("patterns that leave something to merge", f"include={include}, exclude={exclude}", "merge")
    parents = {id(child): parent for parent in merged.modules() for child in parent.children()}
    thaw(merged)
    with torch.no_grad():
        _blend_statistics(merged, plan, include, exclude)
    blended = plan.blends([(tensor, parents.get(id(tensor.module))) for tensor in chosen])
    for tensor, blend in zip(chosen, blended, strict=True):
        tensor.tensor.requires_grad_(residual)
        # A parameter that several modules share becomes one residual that they share, as torch changes it in place.
        parametrize.register_parametrization(tensor.module, tensor.attribute, blend, unsafe=True)
    blend_at_once(merged, blended)
    return merged


@dataclass
class _Plan:
    """Decides how each tensor is blended; `merge` applies it."""

    sources: list[Source]
    report: MatchReport
    granularity: str
    constraint: str
    start: Start
    anchor: int
    residual: bool
    tie: bool
    share_heads: bool
    record: MergeRecord

    def __post_init__(self) -> None:
        self._present = {
            row.tensor: tuple(n for n, fit in enumerate(row.fits) if fit.status == MATCH) for row in self.report.rows
        }

    def present(self, name: str) -> tuple[int, ...]:
        """Sources that have a tensor."""
        return self._present.get(name, ())

    def tensors(self, name: str, like: Tensor) -> list[Tensor]:
        """What they have."""
        return [self.sources[n].tensors[name].to(dtype=like.dtype, device=like.device) for n in self.present(name)]

    def beginning(self, name: str, kernels: int) -> Tensor:
        """Coefficients (present source, kernel) to start with."""
        present = self.present(name)
        if isinstance(self.start, Mapping) and name in self.start:
            given = self.start[name].detach().float()
            if given.shape[:2] != (len(self.sources), kernels):
                expected = f"({len(self.sources)}, {kernels}, ...)"
                raise SettingError(f"a start of shape {expected}", f"{tuple(given.shape)}", name)
            return among(given, present)
        if isinstance(self.start, Tensor):
            return among(self.start.detach().float(), present)[:, None].expand(-1, kernels).clone()
        if self.start == "anchor":
            one_hot = torch.zeros(len(present), kernels)
            one_hot[self.anchor_among(present)] = 1
            return one_hot
        return torch.full((len(present), kernels), 1 / len(present))

    def anchor_among(self, present: tuple[int, ...]) -> int:
        """The anchor's row, or the first source's where the anchor lacks the tensor."""
        return present.index(self.anchor) if self.anchor in present else 0

    def blends(self, tensors: Sequence[tuple[KernelTensor, nn.Module | None]]) -> list[KernelBlend]:
        """The parametrisations of all tensors, given with the parents of their modules."""
        groups = [self._groups(tensor, parent) for tensor, parent in tensors]
        starts: dict[tuple[int, ...], list[Tensor]] = {}
        ends: dict[tuple[int, ...], int] = {}
        columns: dict[tuple[str, tuple[int, ...]], Columns] = {}
        for (tensor, parent), index in zip(tensors, groups, strict=True):
            present, key = self.present(tensor.name), self._key(tensor, parent, index)
            if key not in columns:
                start = self._reduce(self.beginning(tensor.name, tensor.layout.kernels), tensor.layout, index)
                starts.setdefault(present, []).append(start.flatten(1))
                columns[key] = Columns(ends.get(present, 0), tuple(start.shape[1:]))
                ends[present] = columns[key].end
        device = tensors[0][0].tensor.device
        tables = {
            present: Coefficients(torch.cat(found, 1).to(device), self.constraint, self.anchor_among(present))
            for present, found in starts.items()
        }
        owned: set[tuple[int, ...]] = set()
        blends = []
        for (tensor, parent), index in zip(tensors, groups, strict=True):
            present = self.present(tensor.name)
            blend = KernelBlend(
                name=tensor.name,
                sources=self.tensors(tensor.name, tensor.tensor),
                present=present,
                coefficients=tables[present],
                owner=present not in owned,
                columns=columns[self._key(tensor, parent, index)],
                layout=tensor.layout,
                groups=index,
                residual=self.residual,
                record=self.record,
                siblings=tensor.siblings,
            )
            owned.add(present)
            blends.append(blend)
        return blends

    def _groups(self, tensor: KernelTensor, parent: nn.Module | None) -> Tensor | None:
        """(kernel,) index of the attention head of each row, where rows of one head share a coefficient."""
        shared = self.share_heads and self.granularity == "kernel"
        return head_index(tensor.module, parent) if shared else None

    def _key(
        self, tensor: KernelTensor, parent: nn.Module | None, groups: Tensor | None
    ) -> tuple[str, tuple[int, ...]]:
        """Tensors of one key share their coefficients."""
        leader = tensor.leader if self.tie else tensor.name
        if groups is not None:
            # One name leads the projections of an attention block, so that their rows of one head learn together.
            leader = f"heads of {id(parent)}" if self.tie else f"{tensor.attribute}s of the heads of {id(parent)}"
        return "network" if self.granularity == "network" else leader, self.present(tensor.name)

    def _reduce(self, start: Tensor, layout: KernelLayout, groups: Tensor | None) -> Tensor:
        """One column per coefficient that is learned, from one per kernel."""
        if groups is not None:
            # Exact for the equal starts of one group, and their mean otherwise.
            return torch.stack([start[:, groups == g].mean(1) for g in range(int(groups.max()) + 1)], 1)
        if self.granularity in ("network", "layer"):
            return start.mean(1, keepdim=True) if start.ndim == 2 else start.mean((1, 2))[:, None]
        if self.granularity == "slice" and layout.inputs > 1:
            return start[:, :, None].expand(-1, -1, layout.inputs) if start.ndim == 2 else start
        return start if start.ndim == 2 else start.mean(2)


def _check_options(granularity: str, constraint: str, anchor: int, count: int) -> None:
    if granularity not in GRANULARITIES:
        raise SettingError(f"one of {', '.join(GRANULARITIES)}", repr(granularity), "granularity")
    if constraint not in CONSTRAINTS:
        raise SettingError(f"one of {', '.join(CONSTRAINTS)}", repr(constraint), "constraint")
    if not 0 <= anchor < max(count, 1):
        raise SettingError(f"an index from 0 to {count - 1}", repr(anchor), "anchor")


def _check_plain(network: nn.Module) -> None:
    # A parametrisation lives in a class that copies share: another one beside it would reach the user's network.
    for name, module in network.named_modules():
        if parametrize.is_parametrized(module):
            raise SettingError(
                "a network without parametrizations: fold a merged one, and take others away with "
                "torch.nn.utils.parametrize.remove_parametrizations",
                f"some of {', '.join(module.parametrizations)}",
                name or "network",
            )


def _selected(name: str, include: Patterns, exclude: Patterns) -> bool:
    return selects(include, name) and not selects(exclude, name)


def _blend_statistics(merged: nn.Module, plan: _Plan, include: Patterns, exclude: Patterns) -> None:
    """Start buffers: running statistics as their norm's scale is blended, all others as the anchor has them."""
    for prefix, module in merged.named_modules():
        for attribute, buffer in module.named_buffers(recurse=False):
            name = f"{prefix}.{attribute}" if prefix else attribute
            present = plan.present(name)
            if not present or not _selected(name, include, exclude):
                continue
            found = plan.tensors(name, buffer)
            if isinstance(module, _NormBase) and attribute in ("running_mean", "running_var"):
                weight = f"{prefix}.weight" if prefix else "weight"
                same = plan.present(weight) == present
                values = plan.beginning(weight if same else name, buffer.numel()).to(buffer)
                if attribute == "running_var" and bool((values < 0).any()):
                    # What is left of a source that is taken away still varies.
                    values = values.abs() / values.abs().sum(0)
                buffer.copy_(sum((c * s for c, s in zip(values, found, strict=True)), torch.zeros_like(buffer)))
            else:
                buffer.copy_(found[plan.anchor_among(present)])
