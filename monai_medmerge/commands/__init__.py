"""What `python -m monai_medmerge` can do, one file a command."""

from monai_medmerge.commands import bundles, compare, export, overlay, plan, rank

COMMANDS = (bundles, compare, export, overlay, plan, rank)
"""Modules with ``add(commands)``, which adds a parser whose `run` default takes the parsed arguments to a status."""

__all__ = ["COMMANDS"]
