"""The alignment stage of a configuration."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from monai_medmerge.errors import SettingError
from monai_medmerge.networks import align, image_of
from monai_medmerge.sources import Source, check_compatible

logger = logging.getLogger(__name__)
ALIGNMENTS = ("none", "weights", "activations")


def align_sources(
    network: nn.Module, sources: Sequence[Source], alignment: str, batches: Iterable[Any], anchor: int = 0
) -> list[Source]:
    """Bring the channels of the sources into the anchor's order, if the configuration says so.

    Args:
        network: to be merged into.
        sources: two or more, or one, which stays as it is.
        alignment: `none`; `weights`, matched without data; or `activations`, matched on the batches.
        batches: dictionaries with `image`; the first one also serves to check that no source's function changes.
        anchor: index of the source that keeps its order.

    Returns:
        The sources, in order; what was moved and gained is in their provenance, and logged.

    Raises:
        SettingError: the alignment is unknown.
        IncompatibleSourcesError: a source does not fit.
    """
    if alignment not in ALIGNMENTS:
        raise SettingError(f"one of {', '.join(ALIGNMENTS)}", repr(alignment), "alignment")
    check_compatible(network, sources)
    if alignment == "none" or len(sources) < 2:
        return list(sources)
    example = image_of(next(iter(batches)))[:2]
    aligned = align(network, sources, example, batches if alignment == "activations" else None, anchor)
    for source in aligned:
        if "alignment" in source.provenance:
            logger.info("Aligned %s: %s", source.name, source.provenance["alignment"])
    return aligned
