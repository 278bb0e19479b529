"""`overlay`: where the overlay for users' own bundles is, or a copy of it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from monai_medmerge.bundle.overlay.starting import OVERLAY_FILE
from monai_medmerge.errors import SettingError
from monai_medmerge.files import whole_file

if TYPE_CHECKING:
    from argparse import _SubParsersAction


def add(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to a parser's commands."""
    command = commands.add_parser(
        "overlay", help="print the path of medmerge.json, which starts any bundle's training from merged sources"
    )
    command.add_argument(
        "--to", type=Path, metavar="FOLDER", help="copy it there, over no other, and print the copy's path"
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print a path: 0 it is there."""
    if arguments.to is None:
        print(OVERLAY_FILE)
        return 0
    if not arguments.to.is_dir():
        found = "a file" if arguments.to.exists() else "none of that name"
        raise SettingError("a folder", found, arguments.to.name)
    copy = arguments.to / OVERLAY_FILE.name
    content = OVERLAY_FILE.read_bytes()
    if copy.exists() and not (copy.is_file() and copy.read_bytes() == content):
        raise SettingError(
            "a folder without an overlay of your own", f"another {copy.name}", arguments.to.absolute().name
        )
    with whole_file(copy) as part:
        part.write_bytes(content)
    print(copy)
    return 0
