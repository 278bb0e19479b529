"""Do these sources fit this network? Known in a second, before anything is learned."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from monai_medmerge.errors import IncompatibleSourcesError, SettingError
from monai_medmerge.sources.adaptation import adapted_tensors
from monai_medmerge.sources.anatomy import Anatomy, Verdict, judge
from monai_medmerge.sources.checkpoint.source import Source
from monai_medmerge.sources.names.identity import names_of, state_of
from monai_medmerge.sources.names.resolving import resolve
from monai_medmerge.sources.patterns import Patterns, selects
from monai_medmerge.sources.tensor_match import DTYPE, EXCLUDED, MATCH, MISSING, SHAPE, Fit, TensorMatch, shape_text

__all__ = [
    "DTYPE", "EXCLUDED", "MATCH", "MISSING", "SHAPE", "Fit", "MatchReport", "TensorMatch", "check_compatible", "match",
    "resolve",
]  # fmt: skip


@dataclass(frozen=True)
class MatchReport:
    """How sources fit a network; `str()` is a table.

    Args:
        network: class name of the network.
        sources: the sources' names.
        rows: one per tensor of the network, by the first of its names.
        reasons: per source, why it does not fit; empty where it does.
        notes: per source, what was done or left aside: part, key map, adaptation, tensors that the network lacks.
        heads: per source, tensors of the network's head that it does not fill.
    """

    network: str
    sources: tuple[str, ...]
    rows: tuple[TensorMatch, ...]
    reasons: tuple[str, ...]
    notes: tuple[tuple[str, ...], ...]
    heads: tuple[tuple[str, ...], ...] = ()

    @property
    def compatible(self) -> bool:
        """Whether every source fits."""
        return not any(self.reasons)

    @property
    def coverage(self) -> tuple[float, ...]:
        """Share of the network's numbers that each source has, from 0 to 1; what is excluded does not count."""
        total = max(sum(row.elements for row in self.rows if not row.excluded), 1)
        columns = range(len(self.sources))
        return tuple(sum(r.elements for r in self.rows if r.fits[n].status == MATCH) / total for n in columns)

    @property
    def unmatched(self) -> tuple[str, ...]:
        """Tensors that no source has, or that are excluded: they stay the network's own (the head, as a rule)."""
        return tuple(row.tensor for row in self.rows if all(fit.status != MATCH for fit in row.fits))

    def table(self, problems_only: bool = False, limit: int | None = None) -> str:
        """The report as text.

        Args:
            problems_only: only the tensors that some source lacks or has otherwise.
            limit: rows at the most.
        """
        rows = [row for row in self.rows if not problems_only or any(fit.status != MATCH for fit in row.fits)]
        cells = [("tensor", "shape", *self.sources)]
        cells += [(row.tensor, shape_text(row.shape), *map(str, row.fits)) for row in rows[:limit]]
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
        sources = zip(self.sources, self.coverage, self.reasons, self.notes, self._heads, strict=True)
        return {
            "network": self.network,
            "compatible": self.compatible,
            "sources": [
                {"name": name, "coverage": round(share, 6), "reason": reason, "notes": list(notes), "head": list(head)}
                for name, share, reason, notes, head in sources
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

    @property
    def _heads(self) -> tuple[tuple[str, ...], ...]:
        return self.heads or ((),) * len(self.sources)

    def _summary(self) -> list[str]:
        lines = [""]
        columns = zip(self.sources, self.coverage, self.reasons, self.notes, self._heads, strict=True)
        for n, (name, share, reason, notes, head) in enumerate(columns):
            verdict = f"does not fit: {reason}" if reason else f"fits{self._of_its_own(n, head)}"
            lines.append(f"{name}: {100 * share:.1f} % of {self.network}; {verdict}")
            lines += [f"  {note}" for note in notes]
        return lines

    def _of_its_own(self, n: int, head: Sequence[str]) -> str:
        """What of the network stays as it is, with both shapes where the source has another one."""
        if not head:
            return ""
        rows = {row.tensor: row for row in self.rows}
        shown = [
            f"{name} ({rows[name].fits[n].detail or 'absent'} for {shape_text(rows[name].shape)})" for name in head[:3]
        ]
        return f", all but the head, which stays the network's own: {', '.join(shown)}{', ...' if head[3:] else ''}"

    def __str__(self) -> str:
        return self.table()


def match(network: nn.Module, sources: Sequence[Source], exclude: Patterns = ()) -> MatchReport:
    """Compare every tensor of a network with what each source has under its name.

    A source fits if it fills the network's body. What it may lack is the head: output layers, also those of another
    width, and whole modules behind the last weight that it has. A hole in the body, or a share of the network below
    five in a hundred, is no fit.

    Args:
        network: the network to be merged into; only names, shapes and dtypes are looked at. It may be wrapped.
        sources: one or more.
        exclude: name pattern or patterns of tensors that stay the network's own, whatever the sources have there.

    Returns:
        A report; a mismatch is never an exception here.

    Raises:
        SettingError: what is given are no sources, but paths or networks, say; or a layer of the network is lazy and
            has no shape yet.

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
    state = state_of(network)
    resolved = [resolve(network, source) for source in sources]
    patterns = [exclude] if isinstance(exclude, str) else list(exclude)
    rows = tuple(
        TensorMatch(
            first,
            tuple(state[first].shape),
            tuple(_fit(state[first], s.tensors.get(first), _excluded(names, patterns)) for s in resolved),
            state[first].numel(),
        )
        for first, names in names_of(state).items()
    )
    anatomy = Anatomy.of(network)
    verdicts = [
        Verdict("another source has its name")
        if [other.name for other in resolved].count(source.name) > 1
        else _verdict(network, rows, n, source, anatomy)
        for n, source in enumerate(resolved)
    ]
    return MatchReport(
        type(network).__name__,
        tuple(source.name for source in sources),
        rows,
        tuple(verdict.conflict for verdict in verdicts),
        tuple(_notes(source, state) for source in resolved),
        tuple(verdict.head for verdict in verdicts),
    )


def check_compatible(network: nn.Module, sources: Sequence[Source], exclude: Patterns = ()) -> MatchReport:
    """`match`, with an error instead of a verdict.

    Args:
        network: the network to be merged into.
        sources: one or more.
        exclude: as of `match`.

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
    report = match(network, sources, exclude)
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


def _excluded(names: Sequence[str], patterns: Sequence[str]) -> bool:
    """Whether a tensor is excluded under any of its names."""
    return any(selects(patterns, name) for name in names)


def _fit(wanted: Tensor, found: Tensor | None, excluded: bool) -> Fit:
    if excluded:
        return Fit(EXCLUDED)
    if found is None:
        return Fit(MISSING)
    if tuple(found.shape) != tuple(wanted.shape):
        return Fit(SHAPE, shape_text(tuple(found.shape)))
    if found.is_floating_point() != wanted.is_floating_point():
        return Fit(DTYPE, _name(found))
    return Fit(MATCH, "" if found.dtype == wanted.dtype else f"match, {_name(found)} to {_name(wanted)}")


def _verdict(network: nn.Module, rows: Sequence[TensorMatch], n: int, source: Source, anatomy: Anatomy) -> Verdict:
    """Why source n does not fit, and which tensors of the head it does not fill."""
    if conflicts := source.provenance.get("conflicts"):
        return Verdict(str(conflicts[0]))
    verdict = judge([(row, row.fits[n]) for row in rows], source.tensors, anatomy)
    if verdict.conflict and _adaptable(network, rows, source, anatomy):
        return Verdict(f"{verdict.conflict}; --adapt (adapt in Python) makes it fit")
    return verdict


def _adaptable(network: nn.Module, rows: Sequence[TensorMatch], source: Source, anatomy: Anatomy) -> bool:
    """Whether adaptation would make a source fit, by its shapes alone."""
    shapes = {name: tensor.to("meta") for name, tensor in source.tensors.items()}
    adapted, done = adapted_tensors(network, shapes)
    if not done:
        return False
    state = state_of(network)
    fits = [_fit(state[row.tensor], adapted.get(row.tensor), row.excluded) for row in rows]
    return not judge(list(zip(rows, fits, strict=True)), adapted, anatomy).conflict


def _notes(source: Source, wanted: Mapping[str, Tensor]) -> tuple[str, ...]:
    told = source.provenance
    notes = [str(note) for note in (*told.get("computed", ()), *told.get("adaptations", ()))]
    if averaged := told.get("averaged"):
        taken = told.get("nested_under", "raw")
        notes.append(
            f"{taken} taken; averaged weights lie under {', '.join(averaged)}: part={averaged[0]!r} or "
            f"FILE::{averaged[0]} takes them"
        )
    if key_map := told.get("key_map"):
        notes.append(f"names mapped by {key_map if isinstance(key_map, str | Path) else 'the given patterns'}")
    if unused := [name for name in source.tensors if name not in wanted]:
        notes.append(f"{len(unused)} tensors that the network lacks are left aside ({', '.join(unused[:3])}, ...)")
    return tuple(notes)


def _name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
