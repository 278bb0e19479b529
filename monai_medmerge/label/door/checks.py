"""What a client may say: options of declared types and ranges, names that stay below a folder, JSON of a bounded depth.

Nothing here needs a server. What a client sends is taken as one of these or refused in one line, so that nothing of a
request becomes configuration: MONAI evaluates every string of a configuration that begins with `$`.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from monai_medmerge.errors import SettingError
from monai_medmerge.files import below
from monai_medmerge.files.naming import LONGEST_PATH, shown

Kind = Literal[
    "truth", "whole number", "number", "choice", "word", "file names", "devices", "checksum", "session", "text",
    "long text", "path", "name", "object",
]  # fmt: skip
DEEPEST = 16
LONGEST = 200
LONGEST_TEXT = 100_000
# What MONAI's configurations evaluate, look up or read from other files.
EVALUATED = ("$", "@", "%")
WORDS = {
    "word": re.compile(r"(?:\w[\w .:+-]{0,99})?"),
    "file names": re.compile(r"(?:\w[\w .+-]*(?:,\s*\w[\w .+-]*)*)?"),
    "devices": re.compile(r"(?:all|\d{1,3}(?:,\d{1,3})*)?"),
    "checksum": re.compile(r"(?:(?:SHA256|SHA512|MD5):)?[0-9a-fA-F]{32,128}"),
    "session": re.compile(r"(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})?"),
}
EXPECTED = {
    "truth": "true or false",
    "word": "a word of letters, digits, spaces and .:+-_",
    "file names": "file names, separated by commas",
    "devices": "`all` or numbers of devices, separated by commas",
    "checksum": "digits of SHA256, SHA512 or MD5",
    "session": "a session's id",
}
TRUTHS = ("true", "false")


@dataclass(frozen=True)
class Option:
    """A declared option: what it may be.

    Args:
        kind: of its value. A `name` is of an image, a label or a tag; an `object` is JSON.
        low: the least number.
        high: the greatest.
        choices: the words of a `choice`.
        default: that holds unless a client says otherwise, for clients to see.

    Example:
        >>> Option("whole number", 1, 1000).check("7", "max_epochs")
        >>> Option("whole number", 1, 1000).check(0, "max_epochs")
        Traceback (most recent call last):
        monai_medmerge.errors.SettingError: max_epochs: expected a whole number from 1 to 1000, found 0
    """

    kind: Kind
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()
    default: Any = None

    def check(self, value: Any, where: str) -> None:
        """See whether a client may say this.

        Args:
            value: as it came; forms send words and digits for truths and numbers.
            where: name of the option, for the error.

        Raises:
            SettingError: it may not.
        """
        if self.kind == "object":
            checked_object(value, where)
        elif self.kind == "name":
            check_name(value, where)
        elif not self._fits(value):
            # Digits of a huge number are no help to anyone.
            found = shown(value) if isinstance(value, str) else shown(_brief(value))
            raise SettingError(self.expected(), found, where)

    def expected(self) -> str:
        """What it may be, in words."""
        if self.kind == "choice":
            return f"one of {', '.join(choice or 'nothing' for choice in self.choices)}"
        if self.kind in ("number", "whole number"):
            return f"a {self.kind} from {self.low:g} to {self.high:g}"
        return EXPECTED.get(self.kind, f"a text of up to {self.longest} characters that begins with no $, @ or %")

    @property
    def longest(self) -> int:
        """Characters of a text."""
        return {"long text": LONGEST_TEXT, "path": LONGEST_PATH}.get(self.kind, LONGEST)

    def described(self) -> dict[str, Any]:
        """As /info shows it to viewers."""
        content: dict[str, Any] = {"type": self.kind, "default": self.default}
        if self.kind in ("number", "whole number"):
            content["range"] = [self.low, self.high]
        if self.choices:
            content["choices"] = list(self.choices)
        return content

    def _fits(self, value: Any) -> bool:
        if self.kind == "truth":
            return isinstance(value, bool | str) and str(value).lower() in TRUTHS
        if self.kind in ("number", "whole number"):
            number = _number(value)
            whole = self.kind == "number" or number % 1 == 0
            return whole and self.low <= number <= self.high
        if not isinstance(value, str):
            return False
        if self.kind == "choice":
            return value in self.choices
        if self.kind == "long text":
            return len(value) <= self.longest
        if self.kind in ("text", "path"):
            return len(value) <= self.longest and value.isprintable() and not value.startswith(EVALUATED)
        return bool(WORDS[self.kind].fullmatch(value))


@dataclass(frozen=True)
class Limits:
    """How far a client may go; an app's settings of the same names (`--conf max_epochs 200`) say otherwise.

    Args:
        max_epochs: of one training.
        max_coefficient_epochs: of learning coefficients before it.
        max_samples: images that one request may have scored.
        max_upload_mb: of one request, in megabytes.
    """

    max_epochs: int = 1000
    max_coefficient_epochs: int = 100
    max_samples: int = 100_000
    max_upload_mb: int = 4096

    @classmethod
    def of(cls, conf: Mapping[str, Any]) -> Limits:
        """As an app's settings have it.

        Args:
            conf: of the app.

        Raises:
            SettingError: one is no whole number above 0.

        Example:
            >>> Limits.of({"max_epochs": "20"}).max_epochs
            20
        """
        named = {name: conf[name] for name in cls.__dataclass_fields__ if name in conf}
        for name, value in named.items():
            Option("whole number", 1, 10**9).check(value, name)
        return replace(cls(), **{name: int(value) for name, value in named.items()})


def declared(config: Mapping[str, Any], limits: Limits) -> dict[str, Option]:
    """The options that a task declares, from the defaults that it tells viewers.

    Args:
        config: option and default; a list is one of choices. What is known by name has a range of its own.
        limits: of numbers.

    Example:
        >>> declared({"max_epochs": 50, "device": ["cpu"]}, Limits())["max_epochs"].expected()
        'a whole number from 1 to 1000'
    """
    known = {
        "max_epochs": Option("whole number", 1, limits.max_epochs),
        "coefficient_epochs": Option("whole number", 0, limits.max_coefficient_epochs),
        "val_split": Option("number", -1, 0.99),
        "gpus": Option("devices"),
        "sources": Option("file names"),
        "run_id": Option("word"),
        "tracking_experiment_name": Option("word"),
        "tracking_run_name": Option("word"),
        # Where the server would connect to is not a client's to say.
        "tracking_uri": Option("choice", choices=tuple({"", str(config.get("tracking_uri", ""))})),
    }
    return {
        name: replace(known.get(name, _by_default(default)), default=default) for name, default in config.items()
    } | {"client_id": Option("word")}


def _by_default(default: Any) -> Option:
    if isinstance(default, bool):
        return Option("truth")
    if isinstance(default, int):
        return Option("whole number", -1_000_000, 1_000_000)
    if isinstance(default, float):
        return Option("number", -1_000_000, 1_000_000)
    if isinstance(default, list | tuple | dict):
        return Option("choice", choices=tuple(str(choice) for choice in default))
    return Option("text")


# What MONAI Label's clients send beyond what a task declares.
TRAIN = {"tracking_run_name": Option("word")}
INFER = {
    "result_extension": Option("choice", choices=("", ".nii.gz", ".nii", ".nrrd", ".seg.nrrd")),
    "result_dtype": Option("choice", choices=("", "uint8", "uint16", "int16", "int32", "float32")),
    "result_compress": Option("truth"),
    "logging": Option("choice", choices=("DEBUG", "INFO", "WARNING", "ERROR")),
    "save_label": Option("truth"),
    "label_tag": Option("name"),
    "label_info": Option("object"),
}
BATCH = {
    "multi_gpu": Option("truth"),
    "gpus": Option("devices"),
    "logging": INFER["logging"],
    "save_label": Option("truth"),
    "label_tag": Option("name"),
    "max_workers": Option("whole number", 0, 64),
    "max_batch_size": Option("whole number", 0, 1_000_000),
}


def check_options(values: Mapping[str, Any], options: Mapping[str, Option], where: str) -> None:
    """See whether a client says nothing but what is declared.

    Args:
        values: option and value, as they came.
        options: those that are declared.
        where: what they are options of.

    Raises:
        SettingError: one is not declared, or of another type or range.

    Example:
        >>> check_options({"max_epoch": 3}, {"max_epochs": Option("whole number", 1, 9)}, "/train")
        Traceback (most recent call last):
        monai_medmerge.errors.SettingError: /train: expected options among max_epochs, found 'max_epoch' (max_epochs?)
    """
    for name, value in values.items():
        if name not in options:
            close = difflib.get_close_matches(name[:LONGEST], options, 1)
            found = f"'{shown(name)}'" + (f" ({close[0]}?)" if close else "")
            raise SettingError(f"options among {', '.join(sorted(options)) or 'none'}", found, where)
        options[name].check(value, name)


def check_name(value: Any, where: str) -> None:
    """See whether this can be the id of an image or label, or a tag: one name, of a file or folder.

    Args:
        value: as it came.
        where: what it is, for the error, which does not repeat it.

    Raises:
        SettingError: it leads elsewhere, begins with a dot, is too long, or has control characters.

    Example:
        >>> check_name("../x", "tag")
        Traceback (most recent call last):
        monai_medmerge.errors.SettingError: tag: expected a name that stays below its folder, found `..` in it
    """
    if not isinstance(value, str):
        raise SettingError("a name", f"a {type(value).__name__}", where)
    below(".", value, where)
    if "/" in value or "\\" in value:
        raise SettingError("a name", "a path", where)
    if value.startswith((".", *EVALUATED)) or len(value) > LONGEST or not value.strip():
        raise SettingError(f"a name of up to {LONGEST} characters, without . $ @ or % in front", "another", where)


def read_json(text: str | bytes, where: str) -> Any:
    """JSON, as far as anyone needs it.

    Args:
        text: as it came.
        where: what it is.

    Raises:
        SettingError: it is no JSON, nests deeper than 16, or has a number that JSON does not know.

    Example:
        >>> read_json('{"a": [1]}', "params")
        {'a': [1]}
    """
    try:
        content = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise SettingError("JSON", f"none that can be read ({type(error).__name__})", where) from error
    if any(depth > DEEPEST for depth, _ in _walk(content)):
        raise SettingError(f"JSON that nests up to {DEEPEST} deep", "deeper", where)
    return content


def read_object(text: str | bytes, where: str) -> dict[str, Any]:
    """A JSON object.

    Args:
        text: as it came; nothing stands for an empty one.
        where: what it is.

    Raises:
        SettingError: it is something else.

    Example:
        >>> read_object("null", "params")
        Traceback (most recent call last):
        monai_medmerge.errors.SettingError: params: expected a JSON object, found null
    """
    content = read_json(text, where) if text else {}
    if not isinstance(content, dict):
        raise SettingError("a JSON object", shown(_brief(content)), where)
    return content


def checked_object(value: Any, where: str) -> None:
    """See whether JSON that only viewers read is short, flat and evaluates to nothing.

    Args:
        value: what came of it.
        where: what it is.

    Raises:
        SettingError: it is not.
    """
    if any(depth > DEEPEST for depth, _ in _walk(value)):
        raise SettingError(f"JSON that nests up to {DEEPEST} deep", "deeper", where)
    refuse_evaluated(value, where)


def refuse_evaluated(value: Any, where: str) -> None:
    """Refuse every string that MONAI would evaluate, at any depth, keys too.

    Args:
        value: of a request, whole.
        where: what it is.

    Raises:
        SettingError: a string begins with `$`, `@` or `%`.

    Example:
        >>> refuse_evaluated({"device": ["$print(1)"]}, "request")
        Traceback (most recent call last):
        monai_medmerge.errors.SettingError: request: expected no text that begins with $, @ or %, found one
    """
    if any(isinstance(part, str) and part.lstrip().startswith(EVALUATED) for _, part in _walk(value)):
        raise SettingError("no text that begins with $, @ or %", "one", where)


def _walk(value: Any) -> Iterable[tuple[int, Any]]:
    """Every part of nested lists and dictionaries with its depth; no recursion, so no depth is too great."""
    waiting = [(0, value)]
    while waiting:
        depth, part = waiting.pop()
        yield depth, part
        if isinstance(part, Mapping):
            waiting += [(depth + 1, inner) for pair in part.items() for inner in pair]
        elif isinstance(part, Collection) and not isinstance(part, str | bytes):
            waiting += [(depth + 1, inner) for inner in part]


def _number(value: Any) -> float:
    """A number, or NaN, which is in no range."""
    if isinstance(value, bool) or not isinstance(value, int | float | str) or len(str(value)[:50]) > 40:
        return math.nan
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return math.nan
    return number if math.isfinite(number) else math.nan


def _brief(value: Any) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return "null" if value is None else json.dumps(value) if isinstance(value, bool | float | str) else _digits(value)


def _digits(value: Any) -> str:
    return str(value) if isinstance(value, int) and abs(value) < 10**40 else f"a {type(value).__name__}"


def _no_constant(name: str) -> Any:
    raise ValueError(name)
