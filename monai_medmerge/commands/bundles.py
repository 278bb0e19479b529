"""`bundles`: the bundles that come with the package, listed, or copied to where one works."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from monai_medmerge.bundle.shipped import copy_bundle, describe, shipped_bundles
from monai_medmerge.commands.ending import ended
from monai_medmerge.commands.parsing import Parser

if TYPE_CHECKING:
    from argparse import _SubParsersAction


def add(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to a parser's commands."""
    command = commands.add_parser("bundles", help="list the bundles that come with the package, or copy one")
    command.set_defaults(run=list_them)
    actions = command.add_subparsers(dest="action", parser_class=Parser)
    copy = actions.add_parser("copy", help="copy a bundle, with its weights and configurations")
    copy.add_argument("name", help="of the bundle")
    copy.add_argument("folder", nargs="?", default=".", help="where to; by default this one")
    copy.set_defaults(run=copy_one)


def list_them(arguments: argparse.Namespace) -> int:
    """Print each with its version and what it does."""
    for name, folder in shipped_bundles().items():
        print(f"{name} {describe(folder)}")
    print("next: medmerge bundles copy medmerge_classification")
    return 0


def copy_one(arguments: argparse.Namespace) -> int:
    """Copy it, and say what to type next."""
    target = copy_bundle(arguments.name, Path(arguments.folder))
    following = ["medmerge", "merge", "--bundle", str(target), "--dataset", "DATA", "--output", "OUT"]
    ended(target, f"{arguments.name} {describe(target)}", next_command=following)
    return 0
