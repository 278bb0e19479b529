"""A method with its settings, checked: what happens to one tensor name, wherever the tensors are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Generator, Tensor

from monai_medmerge.errors import SettingError, UnsafeCheckpointError
from monai_medmerge.methods.averaging.averages import uniform_average
from monai_medmerge.methods.registry import Method
from monai_medmerge.methods.tensors import TensorHeader, TensorReaders
from monai_medmerge.sources.checkpoint.values import all_finite, is_sound
from monai_medmerge.sources.patterns import selects

BASES = ("anchor", "mean")
GIVEN = "given"
STATISTICS = ("anchor", "average")
# What batch-norm and instance-norm call their running statistics.
RUNNING = ("running_mean", "running_var")

Reader = Callable[[], Tensor]


@dataclass(frozen=True)
class Recipe:
    """Decides, name by name, between copying, averaging and the method.

    Args:
        known: the method; it takes tensors.
        sources: their names, for errors.
        base: `anchor`, `mean`, or `given` where the caller has one; None takes `anchor` where the method needs a base.
        anchor: index of the source that integers, and running statistics if so wished, are copied from.
        statistics: `anchor` or `average`.
        exclude: patterns of names that are not merged.
        options: the method's own.

    Raises:
        SettingError: an option is unknown or missing, or the number of sources does not suit the method.
    """

    known: Method
    sources: Sequence[str]
    base: str | None
    anchor: int
    statistics: str
    exclude: str | Sequence[str]
    options: Mapping[str, Any]

    def __post_init__(self) -> None:
        where = f"method {self.known.name}"
        needs_base = self.known.uses("base")
        if self.base is not None and not needs_base:
            raise SettingError("no base", "one", where)
        if self.statistics not in STATISTICS:
            raise SettingError(f"one of {', '.join(STATISTICS)}", repr(self.statistics), "statistics")
        if not 0 <= self.anchor < len(self.sources):
            raise SettingError(f"an index from 0 to {len(self.sources) - 1}", repr(self.anchor), "anchor")
        self.known.check_options(self.options, len(self.sources))
        self.known.check_count(len(self.sources), base_among_them=needs_base and self._base == "anchor")

    def excludes(self, name: str) -> bool:
        """Whether a tensor of this name is not merged."""
        return selects(self.exclude, name)

    def tensor(
        self, name: str, readers: Mapping[int, Reader], header: TensorHeader, base: Reader | None = None
    ) -> Tensor:
        """The merged tensor of one name.

        Args:
            name: in the state dict.
            readers: for each source that has the tensor, by its index, how to read it.
            header: shape of all of them, and dtype of the result; all have integers if that is one.
            base: how to read the base where it is `given`; None where it lacks the tensor.

        Raises:
            UnsafeCheckpointError: a source holds values that are not finite.
            SettingError: statistics per source are incomplete, or the method gave something unfit.
        """
        given = [(self.sources[n], read) for n, read in sorted(readers.items())]
        if not _all_finite(name, header, [*given, *([("the base", base)] if base else [])]):
            return readers[self.anchor if self.anchor in readers else min(readers)]().to(header.dtype)
        present = sorted(readers)
        running = name.rpartition(".")[2] in RUNNING
        if not header.dtype.is_floating_point or not header.bytes or (running and self.statistics == "anchor"):
            return self.copied(name, readers, header)
        arguments: dict[str, Any] | None = None
        if not running:
            start, chosen = self._start(readers, base)
            arguments = self._arguments(name, start, chosen)
        if arguments is None:
            merged = uniform_average(_read(readers, present))
        else:
            merged = self.known.function(_read(readers, chosen), **arguments)
        return self._checked(name, merged, header)

    def copied(self, name: str, readers: Mapping[int, Reader], header: TensorHeader) -> Tensor:
        """The anchor's tensor of one name, or the first source's that has it; arguments as of `tensor`."""
        chosen = self.anchor if self.anchor in readers else min(readers)
        if not _all_finite(name, header, [(self.sources[chosen], readers[chosen])]):
            return readers[chosen]().to(header.dtype)
        return self._checked(name, readers[chosen](), header)

    @property
    def _base(self) -> str:
        return self.base or BASES[0]

    def _start(self, readers: Mapping[int, Reader], given: Reader | None) -> tuple[Tensor | None, list[int]]:
        """The base of one tensor, None where there is none, and the sources whose difference from it counts."""
        present = sorted(readers)
        if not self.known.uses("base"):
            return None, present
        if self._base == "mean":
            return uniform_average(_read(readers, present)), present
        if self._base == GIVEN:
            return (given() if given else None), present
        # The anchor's difference from itself is zero, and no vote.
        return (readers[self.anchor]() if self.anchor in readers else None), [n for n in present if n != self.anchor]

    def _arguments(self, name: str, start: Tensor | None, chosen: Sequence[int]) -> dict[str, Any] | None:
        """What the method is called with for one tensor; None where it cannot be, so that the tensor is averaged."""
        if len(chosen) < self.known.least or (start is None and self.known.uses("base")):
            return None
        arguments = dict(self.options)
        arguments |= {key: [self.options[key][n] for n in chosen] for key in self.known.per_source if key in arguments}
        if start is not None:
            arguments["base"] = start
        if self.known.uses("generator"):
            arguments["generator"] = _generator(int(arguments.pop("seed", 0)), name)
        if self.known.data:
            measured = [self.options[self.known.data][n].get(name) for n in chosen]
            if all(value is None for value in measured):
                return None
            if any(value is None for value in measured):
                lacking = self.sources[next(n for n, value in zip(chosen, measured, strict=True) if value is None)]
                expected = f"{self.known.data} of every source that has the tensor, or of none"
                raise SettingError(expected, f"none of {lacking!r}", name)
            arguments[self.known.data] = measured
        return arguments

    def _checked(self, name: str, merged: Tensor, header: TensorHeader) -> Tensor:
        where = f"method {self.known.name}, {name}"
        if tuple(merged.shape) != header.shape:
            raise SettingError(f"a tensor of shape {header.shape}", str(tuple(merged.shape)), where)
        merged = merged.to(header.dtype)
        if all_finite(merged):
            return merged
        raise SettingError("finite weights", f"NaN or infinite values in {header.dtype}", where)


def _all_finite(name: str, header: TensorHeader, given: Sequence[tuple[str, Reader]]) -> bool:
    """Whether there is something to merge: a mask with minus infinity is sound, but no weight."""
    # Medians and votes lose a NaN, and running statistics of all but the anchor are not looked at by any method.
    found = True
    for source, read in given if header.dtype.is_floating_point and header.bytes else ():
        tensor = read()
        finite = all_finite(tensor)
        if not finite and not is_sound(tensor):
            raise UnsafeCheckpointError("finite weights", "NaN or infinite values", f"{source}, {name}")
        found = found and finite
    return found


def _read(readers: Mapping[int, Reader], chosen: Sequence[int]) -> TensorReaders:
    return TensorReaders([readers[n] for n in chosen])


def _generator(seed: int, name: str) -> Generator:
    # A seed of its own for each name, so that no two tensors share a mask and none depends on the order of names.
    digest = hashlib.sha256(f"{seed}|{name}".encode()).digest()
    return Generator().manual_seed(int.from_bytes(digest[:7], "little"))
