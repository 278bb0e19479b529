"""`--print-completion`: what a shell needs to complete commands and options."""

from __future__ import annotations

import argparse
from typing import Any

from monai_medmerge.errors import SettingError

SHELLS = ("bash", "zsh", "tcsh")


class PrintCompletion(argparse.Action):
    """Print a shell's completion of the whole parser and exit, as `--version` does."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option: str | None = None) -> None:
        """Print it.

        Args:
            parser: to be completed.
            namespace: not used.
            values: name of a shell.
            option: not used.
        """
        try:
            print(completion(parser, values))
        except SettingError as error:
            parser.error(str(error))
        parser.exit()


def completion(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script that completes a parser's command line.

    Args:
        parser: with its commands.
        shell: of `SHELLS`.

    Raises:
        SettingError: the extra is not installed.
    """
    try:
        import shtab
    except ImportError as error:
        found = "none; pip install 'monai_medmerge[completion]'"
        raise SettingError("the package shtab", found, "--print-completion") from error
    script: str = shtab.complete(parser, shell)
    return script
