"""Read a user's MONAI configuration, and say in one line why nothing comes of it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from monai.bundle import ConfigParser, ConfigWorkflow

from monai_medmerge.errors import MedMergeError, SettingError, causes

SUFFIXES = (".json", ".yaml", ".yml")


def read_configuration(file: str | Path) -> ConfigParser:
    """A parser with a file's content, of which nothing is run yet.

    Args:
        file: JSON or YAML.

    Raises:
        SettingError: there is no such file, or it holds no JSON or YAML object.
    """
    path = Path(file)
    if not path.is_file():
        raise SettingError("a configuration file", "a folder" if path.is_dir() else "none of that name", path.name)
    if path.suffix.lower() not in SUFFIXES:
        raise SettingError(f"a file {', '.join(SUFFIXES)}", f"the suffix {path.suffix!r}", path.name)
    try:
        content = ConfigParser.load_config_file(path)
    except (ValueError, RecursionError, OSError, yaml.YAMLError) as error:
        raise SettingError("JSON or YAML text", reason(error), path.name) from error
    if not isinstance(content, dict):
        raise SettingError("an object with named entries", f"a {type(content).__name__}", path.name)
    parser = ConfigParser()
    parser.read_config(content)
    return parser


def calling_workflow() -> ConfigWorkflow | None:
    """The workflow of `python -m monai.bundle run` that evaluates the expression which called us, if one does."""
    # Note [How an overlay sees the configuration around it]
    # An expression is given what it refers to by id, and nothing else; but the ids of a user's trainer are not known
    # to a file written before it. The workflow that evaluates the expression knows them all, and is a caller of it.
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, ConfigWorkflow):
            return caller
        frame = frame.f_back
    return None


@contextmanager
def explained(expected: str, where: str) -> Iterator[None]:
    """Turn whatever a user's own code raises inside into one line; the package's own errors stay as they are.

    Args:
        expected: what would have been right.
        where: the file, setting or class concerned.

    Raises:
        SettingError: something was raised inside.

    Example:
        >>> with explained("a number above 0", "speed"):
        ...     1 / 0
        Traceback (most recent call last):
        monai_medmerge.errors.SettingError: speed: expected a number above 0, found ZeroDivisionError: division by zero
    """
    try:
        yield
    # Expressions and constructors are any code, and raise anything.
    except Exception as error:
        own = next((cause for cause in causes(error) if isinstance(cause, MedMergeError)), None)
        if own is not None:
            raise own from own.__cause__
        raise SettingError(expected, reason(error), where) from error


def reason(error: BaseException) -> str:
    """Kind and first line of what lies behind an error, without the paths that the system puts in.

    Args:
        error: as it was caught; MONAI wraps what an expression raises.
    """
    *_, first = causes(error)
    text = first.strerror if isinstance(first, OSError) and first.strerror else str(first).strip()
    line = next(iter(text.splitlines()), "")
    return f"{type(first).__name__}: {line}" if line else type(first).__name__


def nameless_reason(error: BaseException) -> str:
    """What lies behind an error, without a file's name, which may be a patient's, and without others' words.

    Args:
        error: as it was caught; MONAI wraps what a transform raises.
    """
    *_, first = causes(error)
    kind = type(first).__name__
    return f"{kind}: expected {first.expected}, found {first.found}" if isinstance(first, MedMergeError) else kind
