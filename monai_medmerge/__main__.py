"""`python -m monai_medmerge`: what is asked before a run is started.

Exit status: 0 it fits, 1 it does not, 2 wrong use.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from monai_medmerge.bundle.plan import build_network, plan
from monai_medmerge.errors import MedMergeError
from monai_medmerge.sources import Source


def _plan(arguments: argparse.Namespace) -> int:
    network = build_network(arguments.network)
    sources = [Source.from_file(path) for path in arguments.source]
    found = plan(network, sources, adapting=arguments.adapt)
    print(json.dumps(found.as_dict(), indent=2) if arguments.json else found)
    return 0 if found.report.compatible else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m monai_medmerge", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
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
    command.set_defaults(run=_plan)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: as on the command line; those of this process if None.

    Returns:
        The exit status.
    """
    parsed = _parser().parse_args(arguments)
    try:
        status: int = parsed.run(parsed)
    except MedMergeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return status


if __name__ == "__main__":
    sys.exit(main())
