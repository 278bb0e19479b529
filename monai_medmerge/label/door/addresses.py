"""What an address of the server is, what a client sends to it, and what the door asks of the server."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

from monai_medmerge.errors import MedMergeError
from monai_medmerge.label.door.checks import Limits, Option, check_options
from monai_medmerge.label.door.uploads import Content

Group = Literal["models", "trainers", "strategies", "scoring"]


class AbsentError(MedMergeError):
    """What a client asks for is not on the server.

    Args:
        what: it is, in a sentence.
    """

    def __init__(self, what: str) -> None:
        super().__init__("what is on the server", "nothing", what)
        self.args = (what,)

    def __reduce__(self) -> Any:
        return type(self), self.args


class Served(Protocol):
    """What a server serves, as the door needs to know it."""

    limits: Limits
    opened: frozenset[str]
    studies: Path | None
    """The folder of studies; None where they are on another server."""

    def tasks(self, group: Group) -> Mapping[str, Mapping[str, Any]]:
        """Models, trainings, strategies or scores by name, as /info shows them."""

    def has_image(self, image: str) -> bool:
        """Whether there is an image of this id."""

    def has_label(self, image: str, tag: str) -> bool:
        """Whether an image has a label of this tag."""

    def is_labelled(self) -> bool:
        """Whether any image has a final label."""


@dataclass
class Call:
    """What a client sends: all of it is checked, and what it becomes goes on.

    Args:
        path: parts of the address that are a client's to choose.
        query: what stands after `?`.
        texts: texts of a form.
        files: files of a form: field, name and content.
        body: JSON, as it came.
    """

    path: dict[str, str]
    query: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    files: list[tuple[str, str, BinaryIO]] = field(default_factory=list)
    body: bytes = b""


@dataclass(frozen=True)
class Route:
    """An address.

    Args:
        methods: of HTTP.
        path: with `{name}` where a client chooses; no slash at the end.
        query: its options.
        texts: those of its form.
        files: fields of its form that are files, and of what.
        body: whether it takes JSON.
        more: checks what depends on the server.
        setting: word in the app's setting `open` without which it is closed.
        handed: go on unchecked, query and body; for what another server answers.
    """

    methods: tuple[str, ...]
    path: str
    query: Mapping[str, Option] = field(default_factory=dict)
    texts: Mapping[str, Option] = field(default_factory=dict)
    files: Mapping[str, Content] = field(default_factory=dict)
    body: bool = False
    more: Callable[[Call, Served], None] | None = None
    setting: str = ""
    handed: bool = False

    @property
    def takes(self) -> str:
        """Kind of its body: `form`, `json`, `any` or nothing."""
        if self.handed:
            return "any"
        return "form" if self.texts or self.files else "json" if self.body else ""

    def matches(self, path: str) -> dict[str, str] | None:
        """What a client chose of an address; None if it is another.

        Example:
            >>> Route(("GET",), "/model/{model}").matches("/model/a")
            {'model': 'a'}
        """
        pattern = re.sub(r"\{(\w+):path\}", r"(?P<\1>.*)", self.path)
        found = re.fullmatch(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", pattern), path)
        return found.groupdict() if found else None

    def check(self, call: Call, served: Served) -> None:
        """See whether a client may say all this here.

        Args:
            call: what it says. An image that is named by a path becomes the whole path.
            served: what there is.

        Raises:
            MedMergeError: it may not.
        """
        if self.setting and self.setting not in served.opened:
            raise AbsentError(f"This is closed; the app's setting `open` would have to name {self.setting}")
        if self.handed:
            return
        check_options(call.query, self.query, self.path)
        check_options(call.texts, self.texts, self.path)
        fields = [name for name, _, _ in call.files]
        check_options(dict.fromkeys(fields, ""), {name: Option("text") for name in self.files}, self.path)
        if self.more:
            self.more(call, served)
