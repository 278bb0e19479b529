"""Do these sources fit this network? Known in a second, before anything is learned."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from monai_medmerge.errors import IncompatibleSourcesError, SettingError
from monai_medmerge.sources.checkpoint import Source
from monai_medmerge.sources.keymaps import KEY_MAPS, choose_key_map, rename

MATCH, MISSING, SHAPE, DTYPE = "match", "missing", "shape", "dtype"


@dataclass(frozen=True)
class Fit:
    """What one source has for one tensor of the network: a status, and in words what differs or was adapted."""

    status: str
    detail: str = ""

    def __str__(self) -> str:
        return self.detail or self.status


@dataclass(frozen=True)
class TensorMatch:
    """One tensor of the network and what each source has for it."""

    tensor: str
    shape: tuple[int, ...]
    fits: tuple[Fit, ...]
    elements: int

    @property
    def is_kernel(self) -> bool:
        """Whether the tensor has kernels of more than one number: weights of convolutions and linear layers."""
        return len(self.shape) > 1


@dataclass(frozen=True)
class MatchReport:
    """How sources fit a network; `str()` is a table.

    Args:
        network: class name of the network.
        sources: the sources' names.
        rows: one per tensor of the network's state dict.
        reasons: per source, why it does not fit; empty where it does.
        notes: per source, what was done or left aside: key map, adaptation, tensors that the network lacks.
    """

    network: str
    sources: tuple[str, ...]
    rows: tuple[TensorMatch, ...]
    reasons: tuple[str, ...]
    notes: tuple[tuple[str, ...], ...]

    @property
    def compatible(self) -> bool:
        """Whether every source fits."""
        return not any(self.reasons)

    @property
    def coverage(self) -> tuple[float, ...]:
        """Share of the network's numbers that each source has, from 0 to 1."""
        total = max(sum(row.elements for row in self.rows), 1)
        columns = range(len(self.sources))
        return tuple(sum(r.elements for r in self.rows if r.fits[n].status == MATCH) / total for n in columns)

    @property
    def unmatched(self) -> tuple[str, ...]:
        """Tensors that no source has: they stay the network's own (the head, as a rule)."""
        return tuple(row.tensor for row in self.rows if all(fit.status != MATCH for fit in row.fits))

    def table(self, problems_only: bool = False, limit: int | None = None) -> str:
        """The report as text.

        Args:
            problems_only: only the tensors that some source lacks or has otherwise.
            limit: rows at the most.
        """
        rows = [row for row in self.rows if not problems_only or any(fit.status != MATCH for fit in row.fits)]
        cells = [("tensor", "shape", *self.sources)]
        cells += [(row.tensor, _shape(row.shape), *map(str, row.fits)) for row in rows[:limit]]
        widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
        ]
        lines.insert(1, "  ".join("-" * width for width in widths))
        if limit is not None and len(rows) > limit:
            lines.append(f"... and {len(rows) - limit} more")
        return "\n".join([*lines, *self._summary()])

    def as_dict(self) -> dict[str, Any]:
        """The report in plain types, for JSON."""
        sources = zip(self.sources, self.coverage, self.reasons, self.notes, strict=True)
        return {
            "network": self.network,
            "compatible": self.compatible,
            "sources": [
                {"name": name, "coverage": round(share, 6), "reason": reason, "notes": list(notes)}
                for name, share, reason, notes in sources
            ],
            "tensors": [
                {
                    "tensor": row.tensor,
                    "shape": list(row.shape),
                    "sources": {
                        n: {"status": f.status, "detail": f.detail} for n, f in zip(self.sources, row.fits, strict=True)
                    },
                }
                for row in self.rows
            ],
        }

    def _summary(self) -> list[str]:
        lines = [""]
        for name, share, reason, notes in zip(self.sources, self.coverage, self.reasons, self.notes, strict=True):
            lines.append(
                f"{name}: {100 * share:.1f} % of {self.network}" + (f"; does not fit: {reason}" if reason else "; fits")
            )
            lines += [f"  {note}" for note in notes]
        return lines

    def __str__(self) -> str:
        return self.table()


def match(network: nn.Module, sources: Sequence[Source]) -> MatchReport:
    """Compare every tensor of a network with what each source has under its name.

    A source fits if it has at least one weight of the network, and if what differs in shape is less than what agrees
    and looks like a head: output layers of another width, or the layers behind the last weight that agrees. What a
    source lacks is no conflict: the other sources share it, and what all lack stays the network's own.

    Args:
        network: the network to be merged into; only names, shapes and dtypes are looked at.
        sources: one or more.

    Returns:
        A report; a mismatch is never an exception here.

    Raises:
        SettingError: what is given are no sources, but paths or networks, say.

    Example:
        >>> from torch import nn
        >>> report = match(nn.Linear(2, 3), [Source.from_network(nn.Linear(2, 3), "a")])
        >>> print(report)
        tensor  shape  a
        ------  -----  -----
        weight  3 x 2  match
        bias    3      match
        <BLANKLINE>
        a: 100.0 % of Linear; fits
    """
    _require_sources(sources)
    resolved = [resolve(network, source) for source in sources]
    wanted = network.state_dict()
    rows = tuple(
        TensorMatch(
            name, tuple(tensor.shape), tuple(_fit(tensor, s.tensors.get(name)) for s in resolved), tensor.numel()
        )
        for name, tensor in wanted.items()
    )
    transposed = {
        f"{name}.weight" if name else "weight"
        for name, module in network.named_modules(remove_duplicate=False)
        if isinstance(module, _ConvTransposeNd)
    }
    names = [source.name for source in resolved]
    reasons = tuple(
        "another source has its name" if names.count(source.name) > 1 else _conflict(rows, n, source, transposed)
        for n, source in enumerate(resolved)
    )
    notes = tuple(_notes(source, wanted) for source in resolved)
    return MatchReport(type(network).__name__, tuple(source.name for source in sources), rows, reasons, notes)


def resolve(network: nn.Module, source: Source) -> Source:
    """The source under the network's names: a known key map is applied where it makes more names agree.

    Args:
        network: the network to be merged into.
        source: a source whose names may be those of another library.
    """
    if "key_map" in source.provenance:
        return source
    key_map = choose_key_map(source.tensors.keys(), network.state_dict().keys())
    if key_map is None:
        return source
    tensors = rename(source.tensors, KEY_MAPS[key_map], where=source.name)
    return Source(source.name, tensors, {**source.provenance, "key_map": key_map})


def check_compatible(network: nn.Module, sources: Sequence[Source]) -> MatchReport:
    """`match`, with an error instead of a verdict.

    Args:
        network: the network to be merged into.
        sources: one or more.

    Raises:
        IncompatibleSourcesError: there is no source, names recur, or a source does not fit; the match table is shown.
        SettingError: what is given are no sources, but paths or networks, say.
    """
    _require_sources(sources)
    names = [source.name for source in sources]
    if not names or len(set(names)) < len(names):
        raise IncompatibleSourcesError(
            "one or more sources with names of their own", ", ".join(names) or "none", "sources"
        )
    report = match(network, sources)
    if not report.compatible:
        bad = next(n for n, reason in enumerate(report.reasons) if reason)
        table = report.table(problems_only=True, limit=20)
        raise IncompatibleSourcesError(
            f"a source that fits {report.network}", f"{report.reasons[bad]}\n{table}", f"source {names[bad]!r}"
        )
    return report


def _require_sources(sources: object) -> None:
    """A path, a network or one source alone are easily given in place of a list of sources."""
    wrong = [s for s in sources if not isinstance(s, Source)] if isinstance(sources, Collection) else [sources]
    if wrong:
        expected = "a list of Source, such as Source.from_file and load_sources give"
        raise SettingError(expected, f"a {type(wrong[0]).__name__}", "sources")


def _fit(wanted: Tensor, found: Tensor | None) -> Fit:
    if found is None:
        return Fit(MISSING)
    if tuple(found.shape) != tuple(wanted.shape):
        return Fit(SHAPE, _shape(tuple(found.shape)))
    if found.is_floating_point() != wanted.is_floating_point():
        return Fit(DTYPE, _name(found))
    return Fit(MATCH, "" if found.dtype == wanted.dtype else f"match, {_name(found)} to {_name(wanted)}")


def _conflict(rows: Sequence[TensorMatch], n: int, source: Source, transposed: set[str]) -> str:
    """Why source n does not fit, in words; empty if it does."""
    matched = [i for i, row in enumerate(rows) if row.fits[n].status == MATCH]
    if not any(rows[i].is_kernel for i in matched):
        named = sum(row.fits[n].status != MISSING for row in rows)
        example = next(iter(source.tensors))
        return (
            f"no weight of the network's name and shape ({named} of {len(rows)} names known; it has {example!r}, ...)"
        )
    conflicts = [(i, row) for i, row in enumerate(rows) if row.fits[n].status in (SHAPE, DTYPE)]
    last_weight = max(i for i in matched if rows[i].is_kernel)
    for i, row in conflicts:
        if (
            row.is_kernel
            and i < last_weight
            and not _is_output_layer(row, source.tensors[row.tensor], row.tensor in transposed)
        ):
            return (
                f"{row.tensor} is {_shape(tuple(source.tensors[row.tensor].shape))}, the network's {_shape(row.shape)}"
            )
    agrees, differs = sum(rows[i].elements for i in matched), sum(row.elements for _, row in conflicts)
    if differs > agrees:
        return f"more differs in shape ({differs:,} numbers) than agrees ({agrees:,})"
    return ""


def _is_output_layer(row: TensorMatch, found: Tensor, transposed: bool) -> bool:
    """Whether shapes differ in the number of kernels alone, as heads for other classes do."""
    axis = 1 if transposed else 0
    shape = tuple(found.shape)
    return len(shape) == len(row.shape) and all(
        a == b for i, (a, b) in enumerate(zip(shape, row.shape, strict=True)) if i != axis
    )


def _notes(source: Source, wanted: Mapping[str, Tensor]) -> tuple[str, ...]:
    notes = [str(note) for note in source.provenance.get("adaptations", ())]
    if key_map := source.provenance.get("key_map"):
        notes.append(f"names mapped by {key_map if isinstance(key_map, str) else 'the given patterns'}")
    if unused := [name for name in source.tensors if name not in wanted]:
        notes.append(f"{len(unused)} tensors that the network lacks are left aside ({', '.join(unused[:3])}, ...)")
    return tuple(notes)


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "scalar"


def _name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
