"""The merging methods by name: what configurations, the documentation's table and the tests read.

A method is one decorated function. Its arguments say what it needs: `base` and a random `generator` are filled in for
every tensor, every other keyword is an option, with its default. Anyone adds a method by decorating a function.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from monai_medmerge.errors import SettingError

F = TypeVar("F", bound=Callable[..., Any])

_METHODS: dict[str, Method] = {}
METHODS: Mapping[str, Method] = types.MappingProxyType(_METHODS)

# Arguments of a method's function that `merge_with` has under the same name or makes: no options of the method's own.
FILLED_IN = ("base", "generator", "anchor", "statistics", "exclude")


@dataclass(frozen=True)
class Method:
    """One merging method.

    Args:
        name: what configurations call it.
        function: from a sequence of tensors, one per source, to a tensor; or, of a `whole` method, from a network and
            sources to a new network.
        reference: where it was published.
        whole: whether it looks at networks as a whole.
        symmetric: whether the order of the sources changes nothing (but for rounding), other than through the base.
        least: sources that it needs, the base not among them.
        most: sources that it can take, or None.
        per_source: options with one value for each source.
        data: the option, with one mapping from tensor names to tensors for each source, that holds what has to be
            measured on data first; empty where the weights are enough.
        callback: the option that holds the user's function which sees networks and data; empty where there is none.
    """

    name: str
    function: Callable[..., Any]
    reference: str
    whole: bool = False
    symmetric: bool = True
    least: int = 1
    most: int | None = None
    per_source: tuple[str, ...] = ()
    data: str = ""
    callback: str = ""

    @property
    def title(self) -> str:
        """The first line of its function's docstring, without the full stop."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0].rstrip(".")

    @property
    def options(self) -> dict[str, Any]:
        """What a user may set, with defaults; `inspect.Parameter.empty` where there is none."""
        keywords = {n: p for n, p in self._parameters.items() if p.kind is p.KEYWORD_ONLY and n not in FILLED_IN}
        seed = {"seed": 0} if self.uses("generator") else {}
        return {name: p.default for name, p in keywords.items()} | seed

    @property
    def streams(self) -> bool:
        """Whether it works tensor by tensor and from the weights alone."""
        return not self.whole and not self.data

    def uses(self, keyword: str) -> bool:
        """Whether its function takes this argument: `base`, the network that differences are taken from, for one."""
        return keyword in self._parameters

    def check_options(self, options: Mapping[str, Any], sources: int) -> None:
        """Refuse what the method does not know, lacks, or cannot spread over this many sources.

        Raises:
            SettingError: with the options that there are.
        """
        known = self.options
        takes_any = any(p.kind is p.VAR_KEYWORD for p in self._parameters.values())
        if unknown := [] if takes_any else sorted(set(options) - set(known)):
            raise SettingError(f"options among {', '.join(known) or 'none'}", ", ".join(unknown), f"method {self.name}")
        required = [name for name, default in known.items() if default is inspect.Parameter.empty]
        if missing := [name for name in required if name not in options]:
            raise SettingError(f"a value for {', '.join(required)}", f"none for {missing[0]}", f"method {self.name}")
        for name, value in options.items():
            if isinstance(known.get(name), float) and (not isinstance(value, int | float) or isinstance(value, bool)):
                raise SettingError("a number", f"{value!r}", f"method {self.name}, {name}")
        for name in (*self.per_source, *filter(None, [self.data])):
            value = options.get(name)
            if isinstance(value, str):
                raise SettingError("a list with a value for each source", f"{value!r}", f"method {self.name}, {name}")
            if value is not None and (not isinstance(value, Sequence) or len(value) != sources):
                found = f"{len(value)}" if isinstance(value, Sequence) else type(value).__name__
                raise SettingError(f"one value for each of {sources} sources", found, f"method {self.name}, {name}")

    def check_count(self, sources: int, base_among_them: bool) -> None:
        """Refuse more or fewer sources than the method is made for.

        Raises:
            SettingError: with the number that it takes.
        """
        least = self.least + base_among_them
        if sources < least or (self.most is not None and sources > self.most):
            most = "" if self.most is None else f" and at the most {self.most}"
            of_which = ", one of them the base" if base_among_them else ""
            raise SettingError(f"at least {least}{most} sources{of_which}", str(sources), f"method {self.name}")

    @cached_property
    def _parameters(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.function).parameters


def method(name: str, **properties: Any) -> Callable[[F], F]:
    """Register a function as a merging method; the function itself stays as it is.

    Args:
        name: what configurations call it.
        properties: as of `Method`, `reference` at the least.

    Raises:
        SettingError: another function has that name.

    Example:
        >>> @method("first", reference="none", symmetric=False)
        ... def first(tensors):
        ...     '''The first source.'''
        ...     return tensors[0]
        >>> get_method("first").title
        'The first source'
        >>> unregister("first")
    """

    def decorate(function: F) -> F:
        known = _METHODS.get(name)
        # The same function again, when its module is loaded anew.
        if known is not None and known.function.__qualname__ != function.__qualname__:
            raise SettingError("a name of its own for each method", f"{name!r} twice", function.__qualname__)
        _METHODS[name] = Method(name=name, function=function, **properties)
        return function

    return decorate


def unregister(name: str) -> None:
    """Take a method out again."""
    del _METHODS[name]


def get_method(name: str) -> Method:
    """The method of a name.

    Raises:
        SettingError: there is none; those that there are are named.
    """
    if name not in METHODS:
        raise SettingError(f"one of {', '.join(sorted(METHODS))}", repr(name), "method")
    return METHODS[name]


def methods_table() -> str:
    """All methods as a Markdown table, as `docs/methods.md` shows it."""
    lines = ["| name | what it does | needs | options (default) | reference |", "|---|---|---|---|---|"]
    for name, known in sorted(METHODS.items()):
        cells = (f"`{name}`", known.title, _needs(known), _options(known), known.reference)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _needs(known: Method) -> str:
    more = "" if known.least == known.most else " or more" if known.most is None else f" to {known.most}"
    needs = [f"{known.least}{more} source{'s' if (known.most or 2) > 1 else ''}"]
    needs += ["a base"] if known.uses("base") else []
    needs += [f"`{known.data}` measured on data"] if known.data else []
    needs += [f"a function `{known.callback}`"] if known.callback else []
    return ", ".join(needs)


def _options(known: Method) -> str:
    empty = inspect.Parameter.empty
    shown = [f"`{n}` (required)" if d is empty else f"`{n}` ({d})" for n, d in known.options.items()]
    return ", ".join(shown) or "none"
