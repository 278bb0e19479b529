"""The alignment stage of a configuration, and what it would do."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from monai_medmerge.errors import SettingError
from monai_medmerge.inspection import image_of
from monai_medmerge.networks import align
from monai_medmerge.networks.alignment.permutation import ChannelGroups, channel_groups
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
            logger.info("%s", describe(source.name, source.provenance["alignment"]))
    return aligned


def describe(name: str, record: Mapping[str, Any]) -> str:
    """One line on what alignment did to a source.

    Args:
        name: of the source.
        record: its ``provenance["alignment"]``.

    Example:
        >>> record = {"by": "weights", "anchor": "a", "groups": 2, "moved": 12, "channels": 16}
        >>> describe("b", {**record, "similarity_before": 0.01, "similarity_after": 0.25})
        'b to a by weights: 12 of 16 channels in 2 groups moved; cosine of weights 0.010, now 0.250'
    """
    measure = "cosine of weights" if record["by"] == "weights" else "mean correlation of channels"
    return (
        f"{name} to {record['anchor']} by {record['by']}: {record['moved']:,} of {record['channels']:,} channels in "
        f"{record['groups']} groups moved; {measure} {record['similarity_before']:.3f}, "
        f"now {record['similarity_after']:.3f}"
    )


@dataclass(frozen=True)
class AlignmentPlan:
    """What can move in a network, and what matching by weights gains; `str()` is for reading.

    Args:
        groups: channels that can move together, and what stays with the reason.
        sources: name of every source but the anchor to its record, see `align`.
    """

    groups: ChannelGroups
    sources: Mapping[str, Mapping[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """The plan in plain types."""
        moving = [{"name": g.name, "channels": g.size, "tensors": len(g.members)} for g in self.groups.groups]
        staying = [vars(fixed) for fixed in self.groups.fixed]
        return {"groups": moving, "stays": staying, "sources": {name: dict(r) for name, r in self.sources.items()}}

    def __str__(self) -> str:
        lines = [describe(name, record) for name, record in self.sources.items()]
        return "\n".join([str(self.groups), "", *(lines or ["one source: nothing to align"])])


def plan_alignment(
    network: nn.Module, sources: Sequence[Source], example_input: Tensor, anchor: int = 0
) -> AlignmentPlan:
    """What aligning by weights would do, without data.

    Args:
        network: to be merged into.
        sources: one or more that fit it.
        example_input: a batch that the network takes; a small one is quick.
        anchor: index of the source that keeps its order.

    Raises:
        IncompatibleSourcesError: a source does not fit.

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
        >>> source = Source.from_network(network, "a")
        >>> print(plan_alignment(network, [source], torch.zeros(1, 2)))
        Sequential: 1 groups, 4 channels can move
          0.weight: 4, 3 tensors
        1 axes stay, in part or as a whole
          0.weight, axis 1: 2 reads what stays
        <BLANKLINE>
        one source: nothing to align
    """
    aligned = align(network, sources, example_input, anchor=anchor)
    records = {s.name: s.provenance["alignment"] for n, s in enumerate(aligned) if n != anchor}
    return AlignmentPlan(channel_groups(network, example_input), records)
