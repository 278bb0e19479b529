"""One definition that travels with weights: `model.json` beside `model.pt`, of plain data.

It says what a network is (class and arguments), how an image becomes its input, what its outputs mean and how labels
are written. Every step after training takes these from there.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from monai.bundle import ConfigParser
from torch import nn

from monai_medmerge.bundle.configuration import explained
from monai_medmerge.bundle.definition.networks import Config, NetworkDef, check_targets, plain
from monai_medmerge.bundle.definition.own_code import SCRIPTS, sha256_of
from monai_medmerge.bundle.definition.steps import IMAGE, for_keys, invertible, same_network, same_steps
from monai_medmerge.data.classes import agreed_class_names, checked_names, class_names, dataset_classes
from monai_medmerge.data.datasets import DATALIST
from monai_medmerge.errors import DatasetError, SettingError
from monai_medmerge.files import read_json, whole_file, write_json

FILE = "model.json"
FORMAT = "medmerge definition 1"
Task = Literal["classification", "multilabel", "ordinal", "segmentation"]
Activation = Literal["softmax", "sigmoid", "none"]
ACTIVATIONS: Mapping[str, Activation] = {
    "classification": "softmax", "ordinal": "softmax", "multilabel": "sigmoid", "segmentation": "softmax",
}  # fmt: skip
LABELS: Mapping[str, str] = {
    "classification": "a class number for each image",
    "ordinal": "a grade for each image, from 0",
    "multilabel": "0 or 1 for each class and image",
    "segmentation": "a label map for each image: the class number of every pixel or voxel",
}
NEEDED = ("network_def", "preprocessing", "class_names")


@dataclass(frozen=True)
class Definition:
    """What a network is, what it takes and what it answers.

    Args:
        task: `classification` (one class an image), `multilabel` (any number of classes), `ordinal` (a grade) or
            `segmentation`.
        class_names: one for each output.
        network_def: class and arguments.
        preprocessing: plain transforms from paths to what the network takes; with those of labels.
        activation: from outputs to probabilities: `softmax` (classes exclude one another), `sigmoid` or `none`.
        spatial_shape: of the input; of the sliding window in a segmentation. Empty if not stated.
        units: of the image's values before preprocessing, such as HU.
        value_range: lowest and highest of them; empty if not stated.
        codes: of the classes, as `class_codes` gives them; empty if not stated.
        missing: weights beside which there is no definition.
        named: whether the user named the network's code, see `own_class`.

    Raises:
        SettingError: a word is unknown.
        DatasetError: a class has no name of its own.
    """

    task: Task
    class_names: tuple[str, ...]
    network_def: NetworkDef | None
    preprocessing: tuple[Config, ...]
    activation: Activation
    spatial_shape: tuple[int, ...] = ()
    units: str = "not stated"
    value_range: tuple[float, ...] = ()
    codes: Mapping[str, Any] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    named: bool = False

    def __post_init__(self) -> None:
        for name, words in (("task", Task), ("activation", Activation)):
            value = getattr(self, name)
            if value not in get_args(words):
                raise SettingError(f"one of {', '.join(get_args(words))}", repr(value), name)
        if self.class_names:
            checked_names(self.class_names, "class_names")

    def network(self) -> nn.Module:
        """Make the network, with weights of its own.

        Raises:
            SettingError: it is not defined, or its class is not installed here.
        """
        self._ask("network_def")
        if self.network_def is None:
            raise SettingError("a network_def", "none", FILE)
        return self.network_def.build(self.named)

    def steps(self, *keys: str, undone: bool = False) -> list[Config]:
        """Preprocessing as plain data.

        Args:
            keys: for which entries; the image alone if none is given.
            undone: whether a map of answers is to be brought back to the image's grid.
        """
        self._ask("preprocessing")
        chosen = for_keys(self.preprocessing, *(keys or (IMAGE,)))
        return invertible(chosen) if undone else chosen

    def transforms(self, *keys: str, undone: bool = False) -> list[Any]:
        """Preprocessing, made.

        Args:
            keys: as of `steps`.
            undone: likewise.

        Raises:
            SettingError: it is not defined, or a transform is not installed here.
        """
        steps = self.steps(*keys, undone=undone)
        check_targets(steps, "preprocessing")
        with explained("transforms that can be made", "preprocessing"):
            made: list[Any] = ConfigParser({"steps": steps}).get_parsed_content("steps")
        return made

    def names(self, dataset_dir: str | os.PathLike[str] | None = None) -> list[str]:
        """The classes, which those of a data set must be, where it has its own.

        Args:
            dataset_dir: folder with or without a `dataset.json`.

        Raises:
            SettingError: no class is named.
            DatasetError: the data set has other classes.
        """
        if dataset_dir is not None and (Path(dataset_dir, DATALIST).is_file() or not self.class_names):
            found = dataset_classes(Path(dataset_dir))
            if self.class_names and found != list(self.class_names):
                where = f"{DATALIST}, class_names"
                raise DatasetError(f"the network's classes, {', '.join(self.class_names)}", ", ".join(found), where)
            return found
        if not self.class_names:
            self._ask("class_names")
        return list(self.class_names)

    def for_data(self, dataset_dir: str | os.PathLike[str]) -> Definition:
        """The definition of what is trained from these weights on other data: with the classes of that data.

        Args:
            dataset_dir: folder with a `dataset.json`, whose class names are taken; without one, nothing changes.

        Raises:
            SettingError: there are more or fewer classes, and no argument of the network tells their number.
            DatasetError: `dataset.json` names no class.
        """
        if self.missing or not Path(dataset_dir, DATALIST).is_file():
            return self
        names = tuple(replace(self, class_names=()).names(dataset_dir))
        if names == self.class_names or self.network_def is None:
            return self
        network = self.network_def.with_outputs(len(self.class_names), len(names))
        # The codes are of the old classes.
        return replace(self, class_names=names, network_def=network, codes={})

    def coded(self, codes: Mapping[str, Any]) -> Definition:
        """Itself with codes of its classes, for what is written beside the weights.

        Args:
            codes: as `class_codes` gives them.
        """
        return replace(self, codes=dict(codes))

    def answers(self) -> Activation:
        """The activation, which weights without a definition do not tell."""
        self._ask("activation")
        return self.activation

    def window(self) -> list[int]:
        """The spatial shape, as of a sliding window."""
        self._ask("patch")
        if not self.spatial_shape:
            raise SettingError("a spatial_shape", "none", FILE)
        return list(self.spatial_shape)

    def only(self, *tasks: Task) -> Definition:
        """Itself, if its task is one of these.

        Raises:
            SettingError: it is another; use the bundle of that task.
        """
        if not self.missing and self.task not in tasks:
            raise SettingError(f"a network for {' or '.join(tasks)}", f"one for {self.task}", FILE)
        return self

    def _ask(self, name: str) -> None:
        if self.missing:
            raise SettingError(f"{name}, or a {FILE} beside the weights", "neither", ", ".join(self.missing))

    def as_dict(self) -> dict[str, Any]:
        """The content of `model.json`."""
        network = None if self.network_def is None else self.network_def.config
        file = None if self.network_def is None else self.network_def.file
        return {
            "format": FORMAT,
            "task": self.task,
            "class_names": list(self.class_names),
            "network_def": network,
            **({} if file is None else {"code": {f"{SCRIPTS}/{file.name}": sha256_of(file)}}),
            "preprocessing": list(self.preprocessing),
            "activation": self.activation,
            "label_format": LABELS[self.task],
            "spatial_shape": list(self.spatial_shape),
            "units": self.units,
            "value_range": list(self.value_range),
            "codes": dict(self.codes),
        }

    @property
    def sha256(self) -> str:
        """Of the content, whatever file it came from; for provenance."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()

    def write(self, folder: str | os.PathLike[str], weights: Sequence[str] = ()) -> Path:
        """Write `model.json`, and the network's file of code beside it under `scripts`.

        Args:
            folder: of the weights.
            weights: names of their files, if `model.json` may be that of other weights of the folder: `NAME.json` is
                then written for each of these.

        Returns:
            The file, or the last.

        Raises:
            SettingError: the definition is not whole, or another network's weights are there.
        """
        for name in NEEDED:
            self._ask(name)
        paths = [Path(folder, FILE)]
        if paths[0].is_file():
            try:
                read_one(paths[0]).check_same(self, f"{FILE} in {paths[0].absolute().parent.name}")
            except SettingError:
                if not weights:
                    raise
                paths = [Path(folder, name).with_suffix(".json") for name in weights]
        if self.network_def is not None and self.network_def.file is not None:
            for name, content in (
                (self.network_def.file.name, self.network_def.file.read_bytes()),
                ("__init__.py", b""),
            ):
                with whole_file(Path(folder, SCRIPTS, name)) as part:
                    part.write_bytes(content)
        for path in paths:
            write_json(path, self.as_dict())
        return paths[-1]

    def check_same(self, other: Definition, where: str) -> None:
        """Whether two definitions are of one network, one preprocessing and the same classes.

        Args:
            other: to compare with.
            where: for the error.

        Raises:
            SettingError: they are not; what differs first is named.
        """
        if self.network_def and other.network_def:
            if not same_network(self.network_def.config, other.network_def.config):
                raise _differs("network_def", self.network_def.config, other.network_def.config, where)
            one, another = (sha256_of(d.file) if d.file else "none" for d in (self.network_def, other.network_def))
            if one != another:
                raise SettingError(f"code of SHA-256 {one[:12]}", another[:12], f"{where}, network_def")
        if not same_steps(self.preprocessing, other.preprocessing):
            raise _differs("preprocessing", list(self.preprocessing), list(other.preprocessing), where)
        for name in ("class_names", "task", "activation"):
            if getattr(self, name) != getattr(other, name):
                raise _differs(name, getattr(self, name), getattr(other, name), where)


def definition_file(weights: str | os.PathLike[str]) -> Path | None:
    """The definition beside some weights: `NAME.json`, or `model.json`, which holds for all weights of its folder.

    Args:
        weights: their file.
    """
    file = Path(weights)
    for candidate in (file.with_suffix(".json"), file.with_name(FILE)):
        if candidate.is_file() and _content(candidate).get("format") == FORMAT:
            return candidate
    return None


def read_one(file: str | os.PathLike[str]) -> Definition:
    """Read a `model.json`; nothing of it is made or run.

    Args:
        file: as `Definition.write` wrote it.

    Raises:
        SettingError: it cannot be read, an entry is missing, or one is no plain data.
    """
    path = Path(file)
    content = _content(path)
    if content.get("format") != FORMAT:
        raise SettingError(f"format {FORMAT!r}", repr(content.get("format")), path.name)
    if absent := [name for name in (*NEEDED, "task") if not content.get(name)]:
        raise SettingError(f"an entry {absent[0]!r}", "none", path.name)
    plain({**content, "codes": {}}, path.name)
    network = content["network_def"]
    if not isinstance(network, dict) or not isinstance(network.get("_target_"), str):
        raise SettingError("a `_target_` with its arguments", "another entry", f"{path.name}, network_def")
    if not isinstance(content["preprocessing"], list) or not isinstance(content["class_names"], list):
        raise SettingError("lists under preprocessing and class_names", "another entry", path.name)
    return Definition(
        task=content["task"],
        class_names=tuple(map(str, content["class_names"])),
        network_def=NetworkDef(network, _code(path, content.get("code"))),
        preprocessing=tuple(content["preprocessing"]),
        activation=content.get("activation", ACTIVATIONS.get(content["task"], "none")),
        spatial_shape=tuple(content.get("spatial_shape", ())),
        units=str(content.get("units", "not stated")),
        value_range=tuple(content.get("value_range", ())),
        codes=content.get("codes", {}),
    )


def read_beside(weights: str | os.PathLike[str]) -> Definition | None:
    """The definition beside some weights, or None; the class names of an older run's `metrics.json` must agree.

    Args:
        weights: their file.

    Raises:
        SettingError: it cannot be read.
        DatasetError: `metrics.json` names other classes.
    """
    file = definition_file(weights)
    if file is None:
        return None
    found = read_one(file)
    if file.name == FILE:
        agreed_class_names(found.class_names, Path(weights))
    return found


def undefined(weights: Sequence[str | os.PathLike[str]]) -> Definition:
    """What stands in for a definition where some weights have none: every question to it is an error that asks.

    Args:
        weights: their files.
    """
    names = tuple(class_names(Path(weights[0]), ())) if weights else ()
    missing = tuple(Path(file).name for file in weights)
    return Definition("classification", names, None, (), "softmax", missing=missing)


def with_code(definition: Definition, named: bool) -> Definition:
    """The same definition, whose code the user has named."""
    return replace(definition, named=named)


def _content(path: Path) -> dict[str, Any]:
    content = read_json(path)
    return content if isinstance(content, dict) else {}


def _code(path: Path, code: Any) -> Path | None:
    """The file of code that a definition names, at its place, with the content that it had."""
    if not code:
        return None
    if not isinstance(code, dict) or len(code) != 1:
        raise SettingError("one file of code with its SHA-256", "another entry", f"{path.name}, code")
    ((name, digest),) = code.items()
    # Beside the weights, or where bundles have it; never elsewhere.
    places = [folder / SCRIPTS / Path(name).name for folder in (path.parent, path.absolute().parent.parent)]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise SettingError(f"the network's code, {SCRIPTS}/{Path(name).name}", "none", path.name)
    if sha256_of(found) != digest:
        raise SettingError(f"code of SHA-256 {str(digest)[:12]}", "another content", f"{path.name}, {found.name}")
    return found


def _differs(name: str, expected: Any, found: Any, where: str) -> SettingError:
    if isinstance(expected, dict) and isinstance(found, dict):
        key = next((k for k in (*expected, *found) if expected.get(k) != found.get(k)), "")
        return SettingError(f"{expected.get(key)!r}", f"{found.get(key)!r}", f"{where}, {name}::{key}")
    if isinstance(expected, list):
        pairs = zip([*expected, *[None] * len(found)], [*found, *[None] * len(expected)], strict=False)
        number, (one, other) = next((n, pair) for n, pair in enumerate(pairs) if pair[0] != pair[1])
        return SettingError(f"{one}", f"{other}", f"{where}, {name}::{number}")
    return SettingError(f"{expected}", f"{found}", f"{where}, {name}")
