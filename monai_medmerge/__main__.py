"""`medmerge`, or `python -m monai_medmerge`: what is asked and prepared beside a run.

Exit status: 0 it fits or is done, 1 it does not fit, 2 wrong use.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from monai_medmerge import __version__
from monai_medmerge.commands import COMMANDS
from monai_medmerge.commands.completion import SHELLS, PrintCompletion
from monai_medmerge.commands.parsing import Parser
from monai_medmerge.errors import MedMergeError


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="medmerge", description=__doc__)
    parser.add_argument("--version", action="version", version=f"medmerge {__version__}")
    shell_help = 'print a script that completes commands and options, for: eval "$(medmerge --print-completion bash)"'
    parser.add_argument("--print-completion", choices=SHELLS, action=PrintCompletion, help=shell_help)
    commands = parser.add_subparsers(dest="command", required=True)
    for command in COMMANDS:
        command.add(commands)
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
    # What a system refuses at the last moment: a folder that cannot be written to, a full disk.
    except OSError as error:
        name = Path(str(error.filename)).name if error.filename else parsed.command
        print(f"error: {name}: {error.strerror or type(error).__name__}", file=sys.stderr)
        return 2
    return status


if __name__ == "__main__":
    sys.exit(main())
