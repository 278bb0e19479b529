"""`plan`: whether sources fit a network, and what merging them costs."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from monai_medmerge.bundle.plan import build_network, plan
from monai_medmerge.sources import Source

if TYPE_CHECKING:
    from argparse import _SubParsersAction


def add(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to a parser's commands."""
    command = commands.add_parser("plan", help="whether sources fit a network, and what merging them costs")
    command.add_argument(
        "--network",
        required=True,
        metavar="CONFIG_OR_CLASS",
        help="a MONAI configuration (FILE or FILE::ID; its expressions are run), or a class with literal arguments, "
        "such as 'DenseNet121(spatial_dims=2, in_channels=1, out_channels=3)'",
    )
    command.add_argument("--source", required=True, action="append", help="a checkpoint or bundle folder; repeat it")
    command.add_argument("--adapt", action="store_true", help="fit other input channels, dimensions and precision")
    command.add_argument("--json", action="store_true", help="print JSON instead of tables")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the plan: 0 it fits, 1 it does not."""
    network = build_network(arguments.network)
    sources = [Source.from_file(path) for path in arguments.source]
    found = plan(network, sources, adapting=arguments.adapt)
    print(json.dumps(found.as_dict(), indent=2) if arguments.json else found)
    return 0 if found.report.compatible else 1
