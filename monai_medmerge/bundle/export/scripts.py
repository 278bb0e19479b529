"""The code of a user's own network, copied along with a bundle and importable while it is exported."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from monai_medmerge.bundle.definition.own_code import SCRIPTS


def scripts_beside(configuration: str | Path) -> Path | None:
    """The folder `scripts` of the bundle that a configuration belongs to, if there is one.

    Args:
        configuration: a file in the bundle's folder or in its `configs`.
    """
    folder = Path(configuration).absolute().parent
    found = (folder.parent if folder.name == "configs" else folder) / SCRIPTS
    return found if found.is_dir() else None


def copy_scripts(scripts: Path, root: Path) -> None:
    """Copy code into a bundle.

    Args:
        scripts: a folder, or one file.
        root: of the bundle.
    """
    target = root / SCRIPTS
    if scripts.is_dir():
        shutil.copytree(scripts, target, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    else:
        target.mkdir()
        shutil.copy(scripts, target)
    (target / "__init__.py").touch()


@contextmanager
def importable(scripts: Path | None) -> Iterator[None]:
    """Let Python's package `scripts` be a bundle's own, as `monai.bundle run` does, and put everything back.

    Args:
        scripts: a folder, or one file; nothing happens for None.
    """
    if scripts is None:
        yield
        return
    others = {name: module for name, module in sys.modules.items() if _own(name)}
    for name in others:
        del sys.modules[name]
    writes = sys.dont_write_bytecode
    # From a copy, so that what TorchScript notes of the code's place tells nothing of the user's folders.
    with TemporaryDirectory() as folder:
        copy_scripts(scripts, Path(folder))
        sys.path.insert(0, folder)
        sys.dont_write_bytecode = True
        importlib.invalidate_caches()
        try:
            yield
        finally:
            sys.dont_write_bytecode = writes
            sys.path.remove(folder)
            for name in [name for name in sys.modules if _own(name)]:
                del sys.modules[name]
            sys.modules.update(others)


def _own(name: str) -> bool:
    return name == SCRIPTS or name.startswith(f"{SCRIPTS}.")
