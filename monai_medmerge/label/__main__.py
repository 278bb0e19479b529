"""``python -m monai_medmerge.label``: serve bundles with MONAI Label.

Copies the app and the bundles into a folder, where training may write, and starts MONAI Label's own server there. A
bundle that is in the folder already stays as it is, with what was trained.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from monai_medmerge.errors import SettingError
from monai_medmerge.files import whole_folder, write_text
from monai_medmerge.label.bundles import read_metadata

APP = Path(__file__).parent / "app"
# What runs of a bundle leave in its folder.
LEFT_OUT = shutil.ignore_patterns("__pycache__", "output", "eval", "medmerge", "dataset")


def prepare(folder: Path, bundles: Sequence[Path]) -> Path:
    """Put the app and copies of bundles into a folder.

    Args:
        folder: of the app; made if absent.
        bundles: folders of bundles; their names become the models' names.

    Returns:
        The folder.

    Raises:
        SettingError: one is no bundle, or two have one name.
    """
    names = [bundle.resolve().name for bundle in bundles]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise SettingError("bundles of different names", f"two of {', '.join(sorted(repeated))}", "bundle")
    for bundle in bundles:
        read_metadata(bundle)
        copy = folder / "model" / bundle.resolve().name
        if not copy.exists():
            with whole_folder(copy) as part:
                shutil.copytree(bundle, part, ignore=LEFT_OUT, dirs_exist_ok=True)
    write_text(folder / "main.py", (APP / "main.py").read_text(encoding="utf-8"))
    return folder


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Prepare and start the server; further arguments go to `monailabel start_server`."""
    parser = argparse.ArgumentParser(prog="python -m monai_medmerge.label", description=__doc__)
    parser.add_argument("--bundle", action="append", required=True, type=Path, help="a bundle's folder; repeat it")
    parser.add_argument("--studies", required=True, help="folder of images, or the address of a DICOMweb server")
    parser.add_argument("--folder", type=Path, default=Path("outputs/label"), help="where it runs")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parsed, others = parser.parse_known_args(arguments)
    try:
        folder = prepare(parsed.folder, parsed.bundle)
    except SettingError as error:
        parser.error(str(error))
    command = [
        sys.executable, "-m", "monailabel.main", "start_server", "--app", str(folder), "--studies", parsed.studies,
        "--host", parsed.host, "--port", str(parsed.port), *others,
    ]  # fmt: skip
    # In place of this process, so that a signal to it reaches the server.
    os.execv(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main()
