"""Weights into a network: whole or not at all."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import Tensor, nn

from monai_medmerge.errors import IncompatibleSourcesError
from monai_medmerge.inspection import copy_network
from monai_medmerge.sources.checkpoint.source import Source
from monai_medmerge.sources.matching import (
    EXCLUDED,
    MATCH,
    MISSING,
    SHAPE,
    MatchReport,
    check_compatible,
    match,
    resolve,
)
from monai_medmerge.sources.names.identity import names_of, state_of
from monai_medmerge.sources.names.keymaps import KeyMap
from monai_medmerge.sources.patterns import Patterns
from monai_medmerge.sources.tensor_match import shape_text

logger = logging.getLogger(__name__)


def log_match(network: nn.Module, sources: Sequence[Source], exclude: Patterns = ()) -> None:
    """Log how sources fit a network: what differs, and the share that each covers.

    Args:
        network: to be merged into.
        sources: to be merged.
        exclude: as of `match`.

    Raises:
        IncompatibleSourcesError: one does not fit; the match table is shown.
    """
    report = check_compatible(network, sources, exclude)
    logger.info("Sources fit:\n%s", report.table(problems_only=True))


def load_weights(
    network: nn.Module,
    path: str | Path,
    new: Sequence[str] = (),
    key_map: KeyMap | None = None,
    part: str | None = None,
) -> None:
    """Load a checkpoint of weights into a network, every tensor of it and no other.

    Args:
        network: changed in place, if everything fits; else left as it is.
        path: any file or folder that `Source.from_file` reads, `FILE::PART` too.
        new: name patterns of tensors that may be of another shape, such as a head of other classes; these keep what
            they are.
        key_map: as of `Source.from_file`.
        part: as of `Source.from_file`.

    Raises:
        UnsafeCheckpointError: the file is absent, damaged or holds no network.
        IncompatibleSourcesError: names or shapes differ.
        SettingError: a layer of the network is lazy and has no shape yet.
    """
    source = Source.from_file(path, key_map=key_map, part=part)
    report = match(network, [source])
    resolved = resolve(network, source)
    kept = [row.tensor for row in report.rows if row.fits[0].status == SHAPE and _matches(row.tensor, new)]
    if kept:
        logger.warning("Other classes than those of %s: learned anew are %s", source.name, ", ".join(kept))
    if problem := _not_whole(report, resolved, state_of(network), kept):
        raise IncompatibleSourcesError(f"the weights of a {report.network}", problem, source.name)
    fill(network, report, resolved)
    logger.info("Loaded %s", source.provenance["file"])


def load_into(network: nn.Module, source: Source, exclude: Patterns = ()) -> nn.Module:
    """A copy of the network with what the source has of it; the rest stays the network's own.

    Args:
        network: stays untouched.
        source: one that fits.
        exclude: as of `match`.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> copied = load_into(layer, Source("bias", {"bias": torch.ones(1)}))
        >>> copied.bias.item(), torch.equal(copied.weight, layer.weight)
        (1.0, True)
    """
    copied = copy_network(network)
    fill(copied, match(copied, [source], exclude), resolve(copied, source))
    return copied


def fill(network: nn.Module, report: MatchReport, resolved: Source) -> None:
    """Copy the tensors that match, each once.

    Args:
        network: changed in place.
        report: of one source.
        resolved: that source, by the network's names.
    """
    state = state_of(network)
    with torch.no_grad():
        for row in report.rows:
            if row.fits[0].status == MATCH:
                state[row.tensor].copy_(resolved.tensors[row.tensor])


def _not_whole(report: MatchReport, resolved: Source, state: Mapping[str, Tensor], kept: Sequence[str]) -> str:
    """The first thing that is wrong with a source that should be the whole network; empty if nothing is."""
    if conflicts := resolved.provenance.get("conflicts"):
        return str(conflicts[0])
    missing = [row.tensor for row in report.rows if row.fits[0].status == MISSING and not _optional(row.tensor)]
    if missing:
        return f"{len(missing)} absent: {', '.join(missing[:3])}{', ...' if missing[3:] else ''}"
    for row in report.rows:
        if row.tensor not in kept and row.fits[0].status not in (MATCH, MISSING, EXCLUDED):
            return f"{row.tensor} of {row.fits[0].detail}, the network's of {shape_text(row.shape)}"
    names = {name for names in names_of(state).values() for name in names}
    if others := [name for name in resolved.tensors if name not in names and not _optional(name)]:
        return f"{len(others)} others: {', '.join(others[:3])}{', ...' if others[3:] else ''}"
    return ""


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _optional(name: str) -> bool:
    """Counters that older files lack, and that no result depends on."""
    return name.rpartition(".")[2] in ("num_batches_tracked", "n_averaged")
