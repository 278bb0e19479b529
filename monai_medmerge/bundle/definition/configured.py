"""What the configuration around an expression says of an id, before anything is made of it."""

from __future__ import annotations

import inspect
from typing import Any

from monai.bundle import ConfigParser

from monai_medmerge.bundle.definition.networks import Config

SIGN = ("$", "@", "%")


def calling_parser() -> ConfigParser | None:
    """The parser that evaluates the expression which called us, if one does."""
    # See Note [How an overlay sees the configuration around it]: an expression is given what it refers to, made; what
    # a network or a preprocessing was made of is known to the parser alone, and it is a caller of the expression.
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, ConfigParser):
            return caller
        frame = frame.f_back
    return None


def stated(parser: ConfigParser, name: str, reference: str) -> Any:
    """What a configuration states under an id by itself, with every reference followed.

    Args:
        parser: of the configuration.
        name: the id.
        reference: an id that what is not stated refers to.

    Returns:
        The content, not made; None where there is none, or it comes from the reference.

    Example:
        >>> parser = ConfigParser({"size": 3, "net": {"_target_": "Net", "size": "@size"}, "classes": "$@definition.a"})
        >>> stated(parser, "net", "@definition"), stated(parser, "classes", "@definition")
        ({'_target_': 'Net', 'size': 3}, None)
    """
    content = parser.get(name)
    return None if content is None or _refers(content, reference) else followed(parser, name, content)


def followed(parser: ConfigParser, name: str, content: Any) -> Any:
    """Content with every reference and expression in it replaced by its value; what has a `_target_` is not made.

    Args:
        parser: of the configuration.
        name: id of the content.
        content: as it is written there.
    """
    if isinstance(content, dict):
        if content.get("_disabled_") is True:
            return None
        return {key: followed(parser, f"{name}::{key}", value) for key, value in content.items()}
    if isinstance(content, list):
        return [followed(parser, f"{name}::{number}", value) for number, value in enumerate(content)]
    if not (isinstance(content, str) and content.startswith(SIGN)):
        return content
    if content.startswith("@") and isinstance(parser.get(content[1:]), dict | list | str):
        return followed(parser, content[1:].replace("#", "::"), parser.get(content[1:]))
    # A number type stays an expression: its value is no plain data, and its name is.
    if content.startswith(("$torch.", "$np.", "$numpy.", "$lambda")):
        return content
    return parser.get_parsed_content(name)


def _refers(content: Any, reference: str) -> bool:
    if isinstance(content, dict):
        return any(_refers(value, reference) for value in content.values())
    if isinstance(content, list):
        return any(_refers(value, reference) for value in content)
    return isinstance(content, str) and content.startswith(SIGN) and reference in content


def is_component(content: Any) -> bool:
    """Whether content is an entry with a `_target_`."""
    return isinstance(content, dict) and "_target_" in content


__all__ = ["Config", "calling_parser", "followed", "is_component", "stated"]
