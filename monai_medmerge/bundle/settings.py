"""Refuse settings that a configuration does not have, and end in one line where `monai.bundle run` would in sixty."""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from types import TracebackType
from typing import Any

from monai.bundle import ConfigExpression, ConfigParser, ConfigWorkflow, ReferenceResolver
from monai.utils import ensure_tuple

from monai_medmerge.bundle.configuration import calling_workflow, reason
from monai_medmerge.errors import MedMergeError, SettingError, causes
from monai_medmerge.files import shown

logger = logging.getLogger(__name__)
# What MONAI's own `tracking` adds to a configuration, and what its other applications read.
OF_MONAI = (
    "displayable_configs",
    "output_dir",
    "tracking_uri",
    "experiment_name",
    "run_name",
    "save_execute_config",
    "is_not_rank0",
)
STATUS = 2
"""With which a run ends that was refused or that broke; 1 and 3 are results of a verification."""


def check_settings(verbose: bool = False) -> None:
    """What a configuration of ours evaluates first: from here on errors are one line, and every setting is looked up.

    Args:
        verbose: print the whole traceback too.

    Raises:
        SettingError: something was set that the configuration does not have; the nearest that it has is named.
    """
    tell_in_one_line(verbose)
    workflow = calling_workflow()
    if workflow is not None:
        refuse_unknown(workflow.parser.get(), (*_entries(workflow), *_declared(workflow)))


def refuse_unknown(content: Mapping[str, Any], entries: tuple[str, ...] = ("initialize", "run", "finalize")) -> None:
    """Refuse values of a configuration to which nothing in it refers: options that do not exist.

    Args:
        content: of a configuration, with what was overridden.
        entries: ids that are run or were declared, and that nothing needs to refer to.

    Raises:
        SettingError: there is such a value.

    Example:
        >>> refuse_unknown({"epochs": 3, "epoch": 4, "run": ["$print(@epochs)"]})
        Traceback (most recent call last):
        monai_medmerge.errors.SettingError: epoch: expected a setting ...; the nearest is epochs
    """
    left = unused(content, entries)
    if left:
        nearest = get_close_matches(left[0], sorted(_known(content) & set(content)), 1)
        found = "none of that name" + (f"; the nearest is {nearest[0]}" if nearest else "")
        raise SettingError("a setting of this configuration", found, shown(left[0]))


def unused(content: Mapping[str, Any], entries: tuple[str, ...] = ("initialize", "run", "finalize")) -> list[str]:
    """Names of a configuration's values to which nothing in it refers.

    Args:
        content: of the configuration.
        entries: ids that are run and not referred to.

    Example:
        >>> unused({"epochs": 3, "epoch": 4, "run": ["$print(@epochs)"]})
        ['epoch']
    """
    passed = _known(content) | {*entries, *OF_MONAI}
    return [name for name, value in content.items() if name not in passed and name[:1] != "_" and not _is_made(value)]


def tell_in_one_line(verbose: bool = False) -> None:
    """End `python -m monai.bundle run` in one line and with status 2 on an error, not in a traceback and with 1.

    Processes that run a bundle from code of their own stay as they are.

    Args:
        verbose: print the traceback too. The log has it at level DEBUG.
    """
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is None or spec.name != "monai.bundle.__main__":
        return
    usual = sys.__excepthook__

    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not isinstance(error, Exception):
            return usual(kind, error, trace)
        logger.debug("This run ended in an error", exc_info=(kind, error, trace))
        if verbose:
            usual(kind, error, trace)
        own = next((cause for cause in causes(error) if isinstance(cause, MedMergeError)), None)
        also = "" if own or verbose else "  (all of it: --verbose True)"
        sys.stderr.write(f"error: {own or reason(error)}{also}\n")
        # Raised inside of the hook, it sets the status with which Python ends.
        raise SystemExit(STATUS)

    sys.excepthook = tell


def _declared(workflow: ConfigWorkflow) -> set[str]:
    """Names in the files of a run: what is overridden may leave others of them without use."""
    # MONAI keeps no list of them; the function that was called with them is a caller of this one.
    frame, files = inspect.currentframe(), None
    while frame is not None and not files:
        files = frame.f_locals.get("config_file") if frame.f_globals.get("__name__") == "monai.bundle.scripts" else None
        frame = frame.f_back
    folder = workflow.config_root_path
    content = (ConfigParser.load_config_file(file) for file in ensure_tuple(files or sorted(folder.glob("*.json"))))
    return {name.partition("::")[0].lstrip("+") for names in content for name in names}


def _entries(workflow: ConfigWorkflow) -> tuple[str, ...]:
    return (workflow.init_id, workflow.run_id, workflow.final_id)


def _known(content: Mapping[str, Any]) -> set[str]:
    found = (name for text in _texts(content) for name in ReferenceResolver.match_refs_pattern(text))
    return {ReferenceResolver.normalize_id(name).lstrip("@").partition("::")[0] for name in found}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for inside in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(inside)


def _is_made(value: Any) -> bool:
    """Whether something is made or run, or collects what is: steps of other runs and imports, and no setting."""
    if isinstance(value, str):
        return ConfigExpression.is_import_statement(value)
    if isinstance(value, Mapping) and "_target_" in value:
        return True
    return any(text.startswith(("$", "@", "%")) for text in _texts(value))
