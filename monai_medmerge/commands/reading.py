"""Options of commands that read sources: which tensors stay the network's own, and other names."""

from __future__ import annotations

import argparse


def add_reading(command: argparse.ArgumentParser) -> None:
    """Add `--exclude` and `--key-map` to a command.

    Args:
        command: its parser.
    """
    command.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="PATTERN",
        help="of names, such as 'fc.*': these tensors stay the network's own, and their shape never matters; repeat it",
    )
    command.add_argument(
        "--key-map",
        metavar="FILE",
        help="JSON of regular expressions to replacements, for names that are not found by themselves",
    )
