"""What a user's configuration tells of a network's answers and of its images: activation and preprocessing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast, get_args

from monai.bundle import ConfigParser

from monai_medmerge.bundle.configuration import explained
from monai_medmerge.bundle.definition.configured import followed
from monai_medmerge.bundle.definition.document import Activation
from monai_medmerge.bundle.definition.networks import Config
from monai_medmerge.bundle.definition.steps import IMAGE, PATH_SAFE, for_keys, plain_steps

POSTPROCESSING = ("postprocessing", "validate::postprocessing", "evaluate::postprocessing", "train::postprocessing")
LOSSES = ("loss_function", "loss", "train::loss_function", "train::loss", "validate::loss_function")
PREPROCESSING = ("preprocessing", "validate::preprocessing", "validate::deterministic_transforms",
                 "train::deterministic_transforms")  # fmt: skip
OF_LOSS: Mapping[str, Activation] = {
    "CrossEntropyLoss": "softmax", "BCEWithLogitsLoss": "sigmoid", "MultiLabelSoftMarginLoss": "sigmoid",
    "NLLLoss": "none", "BCELoss": "none",
}  # fmt: skip
"""Losses that take one kind of scores only; others say it in their arguments."""


def configured_activation(parser: ConfigParser) -> Activation | None:
    """The activation that a configuration's postprocessing has, or else its loss; None if neither tells.

    Args:
        parser: of the configuration.

    Example:
        >>> configured_activation(ConfigParser({"loss": {"_target_": "DiceLoss", "sigmoid": True}}))
        'sigmoid'
    """
    for names, tells in ((POSTPROCESSING, _of_step), (LOSSES, _of_loss)):
        for name in names:
            for item in _items(parser, parser.get(name)):
                if (found := tells(parser, item)) is not None:
                    return found
    return None


def configured_preprocessing(parser: ConfigParser, *names: str) -> list[Config] | None:
    """The steps that a configuration prepares images with, as plain data; None if there are none without chance.

    Args:
        parser: of the configuration.
        names: of entries, the first that has such steps is taken; `PREPROCESSING` if none is given.

    Raises:
        SettingError: the steps are no plain data.
    """
    for name in names or PREPROCESSING:
        content = parser.get(name)
        if isinstance(content, str) and content.startswith("@"):
            content = parser.get(content[1:])
        inner = content.get("transforms") if isinstance(content, dict) else content
        if isinstance(inner, str) and inner.startswith("@"):
            inner = parser.get(inner[1:])
        if not isinstance(inner, list):
            continue
        with explained("steps of plain data, for images alone", name):
            kept = for_keys(plain_steps(_anywhere(followed(parser, name, inner)), name), IMAGE)
        if kept and not any(_name(step).startswith("Rand") for step in kept):
            return kept
    return None


def _anywhere(steps: list[Any]) -> list[Any]:
    """Steps without the device that they were run on."""
    return [{k: v for k, v in step.items() if k != "device"} if isinstance(step, Mapping) else step for step in steps]


def exported_steps(steps: list[Config]) -> list[Config]:
    """Steps whose images keep their meta data, which MONAI needs to save answers, and which stock MONAI has.

    Args:
        steps: plain data, for images alone.

    Example:
        >>> exported_steps([{"_target_": "EnsureTyped", "keys": "image", "track_meta": False}])
        [{'_target_': 'EnsureTyped', 'keys': 'image', 'track_meta': True}]
    """
    plain = [step["transform"] if step.get("_target_") == PATH_SAFE else step for step in steps]
    return [{**step, "track_meta": True} if "track_meta" in step else dict(step) for step in plain]


def _items(parser: ConfigParser, content: Any) -> Iterator[Mapping[str, Any]]:
    """Everything with a `_target_`, references followed."""
    if isinstance(content, str) and content.startswith("@") and content[1:] in parser:
        content = parser.get(content[1:])
    if isinstance(content, Mapping):
        if "_target_" in content:
            yield content
        for value in content.values():
            yield from _items(parser, value)
    elif isinstance(content, list):
        for value in content:
            yield from _items(parser, value)


def _of_step(parser: ConfigParser, step: Mapping[str, Any]) -> Activation | None:
    return _flagged(parser, step) if _name(step).startswith("Activations") else None


def _of_loss(parser: ConfigParser, loss: Mapping[str, Any]) -> Activation | None:
    name = _name(loss)
    if name in OF_LOSS:
        return OF_LOSS[name]
    if name == "FocalLoss":
        return "softmax" if _true(parser, loss.get("use_softmax")) else "sigmoid"
    return _flagged(parser, loss)


def _flagged(parser: ConfigParser, item: Mapping[str, Any]) -> Activation | None:
    for word in get_args(Activation):
        if _true(parser, item.get(word)):
            return cast(Activation, word)
    return None


def _true(parser: ConfigParser, value: Any) -> bool:
    if isinstance(value, str) and value.startswith("@"):
        value = parser.get(value[1:])
    return value is True


def _name(item: Mapping[str, Any]) -> str:
    return str(item.get("_target_", "")).rpartition(".")[2]
