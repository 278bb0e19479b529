"""What configurations call to look at sources and to load weights."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from torch import nn

from monai_medmerge.errors import IncompatibleSourcesError
from monai_medmerge.sources import Source, check_compatible

logger = logging.getLogger(__name__)


def log_match(network: nn.Module, sources: Sequence[Source]) -> None:
    """Log how sources fit a network: what differs, and the share that each covers.

    Args:
        network: to be merged into.
        sources: to be merged.

    Raises:
        IncompatibleSourcesError: one does not fit; the match table is shown.
    """
    report = check_compatible(network, sources)
    logger.info("Sources fit:\n%s", report.table(problems_only=True))


def load_weights(network: nn.Module, path: str | Path, new: Sequence[str] = ()) -> None:
    """Load a checkpoint of weights into a network, every tensor of it and no other.

    Args:
        network: changed in place.
        path: any file that `Source.from_file` reads.
        new: name patterns of tensors that may be of another shape, such as a head of other classes; these keep what
            they are.

    Raises:
        UnsafeCheckpointError: the file is absent, damaged or holds more than weights.
        IncompatibleSourcesError: names or shapes differ.
    """
    source = Source.from_file(path)
    own = network.state_dict()
    kept = [
        name
        for name, tensor in source.tensors.items()
        if name in own and own[name].shape != tensor.shape and any(fnmatchcase(name, pattern) for pattern in new)
    ]
    if kept:
        logger.warning("Other classes than those of %s: learned anew are %s", source.name, ", ".join(kept))
    try:
        network.load_state_dict({**source.tensors, **{name: own[name] for name in kept}}, strict=True)
    except RuntimeError as error:
        details = " ".join(str(error).split()[:60])
        raise IncompatibleSourcesError(f"the weights of a {type(network).__name__}", details, source.name) from error
    logger.info("Loaded %s", source.provenance["file"])
