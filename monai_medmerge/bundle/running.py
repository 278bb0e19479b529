"""Run a configuration of a bundle from a command, through MONAI's own run, with plain values and one line of error."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import monai

from monai_medmerge.bundle.configuration import explained
from monai_medmerge.bundle.shipped import find_bundle
from monai_medmerge.errors import SettingError
from monai_medmerge.files import shown

EXPRESSIONS = ("$", "@", "%")
_OF_RUN = set(inspect.signature(monai.bundle.run).parameters)


def locate_bundle(given: str, config: str) -> Path:
    """The folder of a bundle that is given as a folder, or as the name of one that comes with the package.

    Args:
        given: folder or name; a folder of that name comes first.
        config: name of a configuration that it must have, without suffix.

    Raises:
        SettingError: there is none, or it has no such configuration.
    """
    folder = Path(given) if Path(given).is_dir() else find_bundle(given)
    if not (folder / "configs" / f"{config}.json").is_file():
        raise SettingError(f"a bundle with configs/{config}.json", "none in it", shown(folder.absolute().name))
    return folder.absolute()


def plain_settings(texts: Iterable[str], taken: Mapping[str, str]) -> dict[str, Any]:
    """Settings as `key=value`, the values JSON or else text; never an expression, which MONAI would run.

    Args:
        texts: of the command line.
        taken: settings that options of the command give, to those options.

    Raises:
        SettingError: a text is no `key=value`, a key comes twice or has an option, a value would be run.

    Example:
        >>> plain_settings(["finetune_epochs=3", "method=slerp", 'subgroups=["site"]'], {})
        {'finetune_epochs': 3, 'method': 'slerp', 'subgroups': ['site']}
        >>> plain_settings(["seed=$1 + 1"], {})
        Traceback (most recent call last):
        ...
        monai_medmerge.errors.SettingError: --set seed: expected a plain value, found one that begins with $, ...
    """
    found: dict[str, Any] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        where = f"--set {shown(key)}"
        if not sign or not key.isidentifier() or key in _OF_RUN:
            raise SettingError("key=value with the name of a setting", shown(text), "--set")
        if key in taken:
            raise SettingError(f"{taken[key]} for this", "a second way", where)
        if key in found:
            raise SettingError("each setting once", "it twice", where)
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
        refuse_expressions(found[key], where)
    return found


def refuse_expressions(value: Any, where: str) -> None:
    """Refuse what MONAI would evaluate, or look up, where a plain value is meant.

    Args:
        value: of any depth.
        where: for the error.

    Raises:
        SettingError: a text in it begins with `$`, `@` or `%`, or it says what to call.
    """
    if isinstance(value, str) and value.startswith(EXPRESSIONS):
        raise SettingError("a plain value", f"one that begins with {value[0]}, which would be evaluated", where)
    if isinstance(value, dict):
        if any(key.startswith("_") or "::" in key or "#" in key for key in value):
            raise SettingError("plain names", "a name that MONAI gives a meaning", where)
        value = [*value, *value.values()]
    if isinstance(value, list):
        for inside in value:
            refuse_expressions(inside, where)


def run_config(bundle: Path, config: str, settings: Mapping[str, Any]) -> int:
    """Run a configuration to its end.

    Args:
        bundle: its folder.
        config: name of the configuration, without suffix.
        settings: to override, plain values.

    Returns:
        The status that the configuration ends with; 0 if it says none.

    Raises:
        MedMergeError: the run was refused or broke.
    """
    configs = bundle / "configs"
    logging = configs / "logging.conf"
    with explained("a run without an error", f"{config}.json"):
        try:
            monai.bundle.run(
                config_file=str(configs / f"{config}.json"),
                meta_file=str(configs / "metadata.json"),
                logging_file=str(logging) if logging.is_file() else None,
                bundle_root=str(bundle),
                **settings,
            )
        except SystemExit as ended:
            return ended.code if isinstance(ended.code, int) else 0
    return 0
