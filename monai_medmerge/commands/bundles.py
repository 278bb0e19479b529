"""`bundles`: which bundles come with the package, and copies of them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from monai_medmerge.bundle.zoo import bundle_line, bundled, copy_bundle
from monai_medmerge.commands.ending import ended

if TYPE_CHECKING:
    from argparse import _SubParsersAction


def add(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to a parser's commands."""
    command = commands.add_parser("bundles", help="list the bundles that come with the package, or copy one")
    command.set_defaults(run=run)
    actions = command.add_subparsers(dest="action", parser_class=type(command))
    listed = actions.add_parser("list", help="names, versions and tasks; as without it")
    listed.set_defaults(run=run)
    copied = actions.add_parser("copy", help="a folder of your own, to be changed and run")
    copied.add_argument("name", help="of a bundle that is listed")
    copied.add_argument("folder", type=Path, help="becomes the bundle; it must not exist")
    copied.set_defaults(run=copy)


def run(_: argparse.Namespace) -> int:
    """Print a line for each bundle: 0 they are there."""
    known = bundled()
    for name, folder in known.items():
        print(f"{name:<26}{bundle_line(folder)}")
    print(f"next: medmerge bundles copy {next(iter(known))} FOLDER")
    return 0


def copy(arguments: argparse.Namespace) -> int:
    """Copy a bundle: 0 it is there."""
    folder = copy_bundle(arguments.name, arguments.folder)
    files = [path for path in folder.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 1e6
    ended(
        folder,
        f"{arguments.name}, {bundle_line(folder)}; {len(files)} files, {size:.1f} MB",
        next_command=["medmerge", "merge", "--bundle", str(folder), "--dataset", "DATA", "--output", "OUT"],
    )
    return 0
