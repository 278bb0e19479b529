"""What `verify.json` ends with: a verdict, in words, as a report and as an exit status."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_medmerge.errors import SettingError
from monai_medmerge.evaluation import Comparison, GateResult, ReportContent, check, write_report
from monai_medmerge.evaluation.report.page import CARD, DATA, PAGE
from monai_medmerge.files import read_json

logger = logging.getLogger(__name__)
SUPERSEDED = "superseded"


def read_gate(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The limits of a `gate.json`.

    Args:
        path: the file.

    Raises:
        SettingError: there is no such file, or it is no JSON object.
    """
    file = Path(path)
    if not file.is_file():
        raise SettingError("a file with limits", "none of that name", file.name)
    content = read_json(file)
    if not isinstance(content, dict):
        raise SettingError("a JSON object", type(content).__name__, file.name)
    return content


def named_reference(path: str | os.PathLike[str] | None) -> str:
    """The weights of the network in use, which whoever compares must name: there is none by default.

    Args:
        path: of the weights.

    Raises:
        SettingError: nothing was named.

    Example:
        >>> named_reference("in_use.pt")
        'in_use.pt'
        >>> named_reference(None)
        Traceback (most recent call last):
        ...
        monai_medmerge.errors.SettingError: reference: expected the weights of the network in use, ...
    """
    if path is None or not str(path):
        expected = "the weights of the network in use, or of the best source fine-tuned where none is in use"
        raise SettingError(expected, "none named", "reference")
    return os.fspath(path)


def set_aside_report(folder: str | os.PathLike[str]) -> list[str]:
    """Move an older run's report away before a comparison begins, as a run that ends early would leave it in place.

    Args:
        folder: as of `verify`; the older files go to its subfolder `superseded`, in the place of those there.

    Returns:
        Names of what was moved.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     _ = Path(folder, "report.json").write_text("passed")
        ...     set_aside_report(folder), Path(folder, "superseded", "report.json").read_text()
        (['report.json'], 'passed')
    """
    root = Path(folder)
    old = [root / name for name in (PAGE, DATA, CARD) if (root / name).exists()]
    if not old:
        return []
    aside = root / SUPERSEDED
    aside.mkdir(exist_ok=True)
    names = [file.name for file in old]
    for file in old:
        file.replace(aside / file.name)
    # What the older run wrote shall not stand beside what a still older one did.
    for name in {PAGE, DATA, CARD} - set(names):
        (aside / name).unlink(missing_ok=True)
    logger.info("Moved an older verification to %s: %s", SUPERSEDED, ", ".join(names))
    return names


def verify(
    comparison: Comparison,
    gate_file: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    title: str,
    purpose: str = "",
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> GateResult:
    """Hold a comparison against a site's limits, log every reason, and write the report.

    Args:
        comparison: from `compare`.
        gate_file: JSON with the limits, see `check`.
        folder: for `report.html`, `report.json` and `MODEL_CARD.md`.
        title: of the report.
        purpose: what the network is for, and what not.
        settings: of the comparison.
        seed: of the resamples.

    Returns:
        The result; its `exit_status` is 0 passed, 1 failed, 3 undecided.

    Raises:
        SettingError: the limits cannot be read or meant.
    """
    result = check(comparison, read_gate(gate_file))
    content = ReportContent(
        title=title,
        purpose=purpose,
        comparison=comparison,
        gate=result,
        settings=settings or {},
        seeds={"resamples": seed},
        command=sys.argv,
    )
    write_report(folder, content)
    logger.info("%s\n\n%s", comparison, result)
    return result
