"""A user's own network class, in a file that the user named: running it runs that file.

Weights travel, and so does the file of their network. A file that only came along with weights is not run: its SHA-256
is kept when a user names it on a command line or in a configuration, and only files of a known hash are run later.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from monai_medmerge.bundle.configuration import explained
from monai_medmerge.errors import SettingError
from monai_medmerge.files import whole_file

logger = logging.getLogger(__name__)
SUFFIX = ".py"
SCRIPTS = "scripts"
"""Package of a bundle's own code, as MONAI's model zoo has it."""


def allow(file: str | os.PathLike[str]) -> str:
    """Remember a file of code that its user has named, by its content.

    Args:
        file: Python code.

    Returns:
        Its SHA-256.

    Raises:
        SettingError: there is no such file.
    """
    digest = sha256_of(Path(file))
    known = _allowed()
    if digest not in known:
        try:
            with whole_file(_store()) as part:
                part.write_text("\n".join([*sorted(known), digest]) + "\n", encoding="utf-8")
        except OSError as error:
            logger.warning("Could not remember %s: %s", Path(file).name, error.strerror)
    return digest


def own_class(file: str | os.PathLike[str], name: str, named: bool) -> type[nn.Module]:
    """A class of networks from a file of code, which is run.

    Args:
        file: Python code that needs no other file beside it.
        name: of the class.
        named: whether the user named the file; if not, its content must be known.

    Raises:
        SettingError: the file is absent, unknown or fails, or has no such class.
    """
    path = Path(file)
    digest = allow(path) if named else sha256_of(path)
    if digest not in _allowed() and not named:
        raise SettingError(
            f"code that you have named yourself, as in `medmerge plan --network {path.name}::{name}(...)`",
            "code that only came along with the weights",
            path.name,
        )
    found = getattr(_module(path, digest), name, None)
    if not (inspect.isclass(found) and issubclass(found, nn.Module)):
        raise SettingError(f"a class of networks named {name}", "none" if found is None else "another thing", path.name)
    return found


def keywords(made: Any, positional: list[Any], named: Mapping[str, Any], where: str) -> dict[str, Any]:
    """All arguments by name, as configurations have them.

    Args:
        made: class or function.
        positional: arguments without a name.
        named: the others.
        where: for errors.

    Example:
        >>> keywords(nn.Linear, [2], {"out_features": 1}, "Linear")
        {'in_features': 2, 'out_features': 1}
    """
    with explained("arguments that the class takes", where):
        bound = inspect.signature(made).bind(*positional, **named)
    plain: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            raise SettingError("arguments by their names", "some without", where)
        plain |= value if kind is inspect.Parameter.VAR_KEYWORD else {name: value}
    return plain


def sha256_of(file: Path) -> str:
    """Of a file's bytes.

    Raises:
        SettingError: there is no such file.
    """
    if not file.is_file():
        raise SettingError("a file of Python code", "a folder" if file.is_dir() else "none of that name", file.name)
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _module(path: Path, digest: str) -> ModuleType:
    # By content, so that two files of one name, in two runs of one process, stay apart.
    name = f"medmerge_own_{digest[:16]}_{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    logger.warning("Running the code of %s", path.name)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise SettingError("a file of Python code", f"the suffix {path.suffix!r}", path.name)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with explained("code that runs by itself, without other files beside it", path.name):
            spec.loader.exec_module(module)
    except SettingError:
        del sys.modules[name]
        raise
    return module


def _store() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state, "medmerge", "allowed_code")


def _allowed() -> set[str]:
    store = _store()
    return set(store.read_text(encoding="utf-8").split()) if store.is_file() else set()
