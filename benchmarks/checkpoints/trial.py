"""One form of a checkpoint read into one network, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from benchmarks.checkpoints.samples import Sample
from monai_medmerge import MedMergeError, Source
from monai_medmerge.inspection import copy_network
from monai_medmerge.sources import adapt, match, resolve
from monai_medmerge.sources.filling import fill

Outcome = Literal["right", "refused", "wrong"]
MOST_SECONDS = 2.0
"""What one small file may take at the most."""


@dataclass(frozen=True)
class Form:
    """A form in which people have a checkpoint, and what should come of it.

    Args:
        group: the kind of form.
        name: of the form, for the table.
        write: writes it below a folder, and returns what is given to `Source.from_file`.
        expected: the numbers that the filled network should have, or words of the refusal.
        part: as of `Source.from_file`.
        exclude: as of `match`.
        adapted: whether `adapt` is asked for.
        target: the network to be filled, if it is not the sample's.
        said: words that the report has to show.
    """

    group: str
    name: str
    write: Callable[[Sample, Path], Path | str]
    expected: Callable[[Sample], Mapping[str, Tensor]] | str
    part: str | None = None
    exclude: tuple[str, ...] = ()
    adapted: bool = False
    target: Callable[[Sample], nn.Module] | None = None
    said: str = ""


@dataclass(frozen=True)
class Result:
    """What came of a form, why, and whether that is what the table says."""

    outcome: Outcome
    why: str
    as_said: bool


def attempt(form: Form, sample: Sample, folder: Path) -> Result:
    """Write one form, read it, and fill a copy of the network.

    Args:
        form: to be written.
        sample: the network and its weights.
        folder: an empty one.
    """
    written = form.write(sample, folder)
    start = time.perf_counter()
    result = _read(form, sample, written)
    seconds = time.perf_counter() - start
    return result if seconds < MOST_SECONDS else Result("wrong", f"{seconds:.1f} s", as_said=False)


def _read(form: Form, sample: Sample, written: Path | str) -> Result:
    target = copy_network(form.target(sample) if form.target else sample.target)
    try:
        source = Source.from_file(written, part=form.part)
        source = adapt(target, source) if form.adapted else source
        report = match(target, [source], form.exclude)
        refusal = report.reasons[0]
    except MedMergeError as error:
        refusal = str(error)
    # Whatever else is raised reaches the user as a traceback, which is never right.
    except Exception as error:  # noqa: BLE001
        return Result("wrong", f"{type(error).__name__}: {error}", as_said=False)
    if refusal:
        named = isinstance(form.expected, str) and all(word in refusal for word in form.expected.split(" | "))
        return Result("refused", refusal, named)
    if isinstance(form.expected, str):
        return Result("wrong", "taken, although it cannot be right", as_said=False)
    if form.said not in str(report):
        return Result("wrong", f"taken without {form.said!r}", as_said=False)
    fill(target, report, resolve(target, source))
    different = _different(target.state_dict(), form.expected(sample))
    return Result("wrong", f"other numbers: {different}", as_said=False) if different else Result("right", "", True)


def _different(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """The first tensor that has other numbers than it should; empty if there is none."""
    for name, tensor in found.items():
        if name not in wanted or wanted[name].shape != tensor.shape:
            return name
        if not torch.allclose(tensor.double(), wanted[name].double(), rtol=1e-5, atol=1e-7):
            return name
    return ""
