"""What `medmerge` can do, one file a command."""

from monai_medmerge.commands import (
    bundles,
    compare,
    dataset,
    doctor,
    export,
    merge,
    overlay,
    pipeline,
    plan,
    rank,
    verify,
)

COMMANDS = (bundles, compare, dataset, doctor, export, merge, overlay, pipeline, plan, rank, verify)
"""Modules with ``add(commands)``, which adds a parser whose `run` default takes the parsed arguments to a status."""

__all__ = ["COMMANDS"]
