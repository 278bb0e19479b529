"""Command lines, refused in one line that names the nearest option there is."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

from monai_medmerge.files import shown


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose refusal is one line, and which takes no option under half of its name.

    Args:
        settings: as of `argparse.ArgumentParser`.

    Example:
        >>> parser = Parser(prog="tool")
        >>> _ = parser.add_argument("--network")
        >>> parser.parse_args(["--network", "UNet"]).network
        'UNet'
        >>> parser.unknown(["--netwrok"])
        "--netwrok: expected an option of 'tool', found another; the nearest is --network"
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **settings})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As its parent; what a command does not know is refused by that command itself, which knows its options."""
        given = list(sys.argv[1:] if args is None else args)
        # A misspelt option is what is wrong, and not that the right one is missing.
        if self._subparsers is None and (wrong := [text for text in given if self._is_unknown(text)]):
            self.error(self.unknown(wrong))
        found, left = super().parse_known_args(args, namespace)
        if left:
            self.error(self.unknown(left))
        return found, left

    def unknown(self, arguments: Sequence[str]) -> str:
        """What to say of arguments that nobody takes.

        Args:
            arguments: the first of them is named.
        """
        name = arguments[0].partition("=")[0]
        if not name.startswith("-"):
            return f"expected options of {self.prog!r}, found {shown(name)!r}"
        nearest = get_close_matches(name, list(self._long()), 1)
        also = f"; the nearest is {nearest[0]}" if nearest else f"; there are {', '.join(self._long())}"
        return f"{shown(name)}: expected an option of {self.prog!r}, found another{also}"

    def _is_unknown(self, text: str) -> bool:
        return len(text) > 2 and text.startswith("--") and text.partition("=")[0] not in self._option_string_actions

    def _long(self) -> Iterator[str]:
        return (text for action in self._actions for text in action.option_strings if text.startswith("--"))

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with 2.

        Args:
            message: what is wrong.

        Raises:
            SystemExit: always.
        """
        print(f"error: {' '.join(message.split())}  (help: {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)
