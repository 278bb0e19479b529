"""``python -m monai_medmerge.label``: serve bundles with MONAI Label, behind a door that takes no code from clients.

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
LOOPBACK = ("127.0.0.1", "localhost", "::1")
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


def _bound(host: str, port: int, origins: Sequence[str]) -> None:
    """Say where the server is reached from, and let no page of another origin ask it; see `docs/label.md`."""
    names = sorted({*LOOPBACK, host} - {"0.0.0.0", "::"})  # noqa: S104  (compared, not bound to)
    own = [f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}" for name in names]
    os.environ["MONAI_MEDMERGE_LABEL_ORIGINS"] = " ".join([*own, *origins])
    os.environ["MONAI_MEDMERGE_LABEL_HOST"] = host
    if host not in LOOPBACK and os.environ.get("MONAI_LABEL_AUTH_ENABLE", "").lower() not in ("1", "true"):
        sys.stderr.write(
            f"warning: {host} can be reached from other machines, and anyone there may ask: MONAI Label's log-in is not"
            " set up (MONAI_LABEL_AUTH_ENABLE)\n"
        )


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Prepare and start the server; further arguments go to `monailabel start_server`."""
    parser = argparse.ArgumentParser(prog="python -m monai_medmerge.label", description=__doc__)
    served = parser.add_mutually_exclusive_group(required=True)
    served.add_argument("--bundle", action="append", type=Path, help="a bundle's folder; repeat it")
    served.add_argument("--app", type=Path, help="a MONAI Label app of another origin, to be served as it is")
    parser.add_argument("--studies", required=True, help="folder of images, or the address of a DICOMweb server")
    parser.add_argument("--folder", type=Path, default=Path("outputs/label"), help="where it runs")
    parser.add_argument("--host", default="127.0.0.1", help="another one lets other machines ask")
    parser.add_argument("--origin", action="append", default=[], help="whose pages may ask too; repeat it")
    parser.add_argument("--port", type=int, default=8000)
    parsed, others = parser.parse_known_args(arguments)
    try:
        folder = parsed.app or prepare(parsed.folder, parsed.bundle)
    except SettingError as error:
        parser.error(str(error))
    _bound(parsed.host, parsed.port, parsed.origin)
    command = [
        sys.executable, "-m", "monailabel.main", "start_server", "--app", str(folder), "--studies", parsed.studies,
        "--host", parsed.host, "--port", str(parsed.port), "--uvicorn_app", "monai_medmerge.label.served:app", *others,
    ]  # fmt: skip
    # In place of this process, so that a signal to it reaches the server.
    os.execv(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main()
