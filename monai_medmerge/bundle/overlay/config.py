"""Where an overlay takes hold of the configuration around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from monai.bundle import ConfigComponent, ConfigItem, ConfigParser, ReferenceResolver

from monai_medmerge.errors import SettingError

USUAL_IDS = ("train::trainer", "trainer")


def find_trainer(parser: ConfigParser, run_id: str, wanted: str | None = None) -> str:
    """The id of the trainer that a configuration runs.

    Args:
        parser: of the configuration.
        run_id: of the expressions that will be run.
        wanted: id to take instead of looking for one.

    Returns:
        An id with ``::``, of a component or an expression: the first trainer among what the run refers to, or
        `train::trainer` or `trainer`.

    Raises:
        SettingError: there is no such id; the message says what to add.

    Example:
        >>> parser = ConfigParser({"mine": {"_target_": "X", "max_epochs": 1}, "run": ["$@mine.run()"]})
        >>> find_trainer(parser, "run")
        'mine'
    """
    if wanted is not None:
        if wanted not in parser:
            raise SettingError(
                "the id of a trainer", f"no {wanted!r}; {_like_trainers(parser)}", "medmerge::trainer_id"
            )
        return _follow(parser, ReferenceResolver.normalize_id(wanted))
    candidates = [*_references(parser.get(run_id)), *USUAL_IDS]
    for candidate in candidates:
        if candidate in parser:
            found = _follow(parser, candidate)
            if _is_trainer(parser[found]) or (candidate in USUAL_IDS and found in parser):
                return found
    raise SettingError(
        f"a trainer that {run_id!r} runs, or under {' or '.join(USUAL_IDS)}; name yours: --medmerge::trainer_id ID",
        f"none; {_like_trainers(parser)}",
        "configuration",
    )


def when_made(item: ConfigItem, tell: Callable[[Any], None]) -> None:
    """Call a function with what an item of the configuration makes, as soon as it is made.

    Args:
        item: a component or an expression that was not resolved yet.
        tell: is given the object.
    """
    # Not before: a distributed run may begin its process group among the expressions of `run`.
    method = "instantiate" if isinstance(item, ConfigComponent) else "evaluate"
    make = getattr(item, method)

    def make_and_tell(*arguments: Any, **keywords: Any) -> Any:
        made = make(*arguments, **keywords)
        tell(made)
        return made

    setattr(item, method, make_and_tell)


def _references(content: Any) -> list[str]:
    expressions = content if isinstance(content, list) else [content]
    return [
        name for text in expressions if isinstance(text, str) for name in ReferenceResolver.match_refs_pattern(text)
    ]


def _follow(parser: ConfigParser, name: str) -> str:
    """The id that an alias (`"@train::trainer"` and no more) stands for in the end."""
    seen: set[str] = set()
    while isinstance(parser[name], str) and parser[name].startswith("@") and name not in seen:
        seen.add(name)
        name = ReferenceResolver.normalize_id(parser[name][1:])
    return name


def _is_trainer(content: Any) -> bool:
    return isinstance(content, dict) and "_target_" in content and "max_epochs" in content


def _like_trainers(parser: ConfigParser) -> str:
    found = [name for name, content in _components(parser.get()) if _is_trainer(content)]
    return f"like one looks {', '.join(found)}" if found else "nothing has `max_epochs`"


def _components(content: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(content, dict | list):
        if isinstance(content, dict) and "_target_" in content:
            yield name, content
        for _, below, value in ReferenceResolver.iter_subconfigs(name, content):
            yield from _components(value, below)
