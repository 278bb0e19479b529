"""Names, files and the documentation's table agree, because all come from the registry."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import monai_medmerge.methods as methods
from monai_medmerge.errors import SettingError
from monai_medmerge.methods import METHODS, Method, get_method, method, methods_table, unregister

ROOT = Path(__file__).parents[2]
every_method = pytest.mark.parametrize("known", METHODS.values(), ids=list(METHODS))


def test_the_documentation_shows_the_table() -> None:
    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    shown = text.partition("<!-- table -->")[2].partition("<!-- end of table -->")[0].strip()
    assert shown == methods_table(), "print(methods_table()) says what belongs between the marks of docs/methods.md"


def test_every_decorated_function_is_registered_and_exported() -> None:
    room = Path(inspect.getfile(methods)).parent
    decorated = [
        name
        for path in room.rglob("*.py")
        for name in re.findall(r'^@method\(\s*"(\w+)"', path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert sorted(decorated) == sorted(METHODS)
    assert set(METHODS) <= set(methods.__all__)


@every_method
def test_each_says_what_it_is(known: Method) -> None:
    documentation = inspect.getdoc(known.function) or ""
    assert known.title
    for part in ("Args:", "Returns:", "Example:"):
        assert part in documentation
    assert all(f"{name}:" in documentation or f"`{name}`" in documentation for name in known.options)
    assert re.search(r"https://(arxiv|doi)\.org/", known.reference)


@every_method
def test_options_are_the_keywords_of_the_function(known: Method) -> None:
    parameters = inspect.signature(known.function).parameters
    keywords = {n for n, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
    assert set(known.options) - {"seed"} <= keywords
    assert ("seed" in known.options) == ("generator" in parameters)
    assert set(known.per_source) | {known.data, known.callback} - {""} <= set(known.options)


def test_names_are_unique_and_unknown_ones_refused() -> None:
    with pytest.raises(SettingError, match=r"'ties' twice"):

        @method("ties", reference="none")
        def something_else() -> None:
            """No method."""

    assert METHODS["ties"].function is methods.ties
    with pytest.raises(SettingError, match=r"one of breadcrumbs, .*found 'medley'"):
        get_method("medley")


def test_a_method_can_be_added_and_taken_out() -> None:
    @method("passing", reference="none", least=3, most=3)
    def passing() -> None:
        """Nothing."""

    assert "`passing` | Nothing | 3 sources |" in methods_table()
    unregister("passing")
    assert "passing" not in METHODS


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("task_arithmetic", {"scale": "0.4"}, "task_arithmetic, scale: expected a number, found '0.4'"),
        ("ties", {"density": True}, "a number"),
        ("weighted_average", {"weights": "12"}, "weights: expected a list"),
    ],
)
def test_options_of_another_type_are_refused(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        get_method(name).check_options(options, sources=2)
