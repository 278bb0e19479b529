"""What configurations call to take a definition from beside weights, or to make one of what they state."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from monai_medmerge.bundle.definition.configured import calling_parser, is_component, stated
from monai_medmerge.bundle.definition.document import (
    ACTIVATIONS,
    FILE,
    Activation,
    Definition,
    Task,
    read_beside,
    read_one,
    undefined,
)
from monai_medmerge.bundle.definition.networks import Config, NetworkDef, check_targets, describe, plain
from monai_medmerge.bundle.definition.steps import plain_steps, same_network, same_steps
from monai_medmerge.errors import SettingError

PACKAGED = "zoo"
"""Folder of the package with its bundles."""
REFERENCE = "@definition"
FACTORY = "network_from"


def packaged_bundles() -> Path:
    """The folder with the bundles that come with the package."""
    return Path(str(files("monai_medmerge"))) / PACKAGED


def read_definition(*weights: str | os.PathLike[str], otherwise: str | None = None) -> Definition:
    """The definition beside weights; what a configuration states by itself must agree with it.

    Args:
        weights: their files; if there are several, all must have the same definition.
        otherwise: name of a packaged bundle, whose definition is taken where the weights themselves are absent, so
            that a bundle's configuration can be looked at from any folder.

    Returns:
        The definition. Where some weights have none, one that asks for what it is asked.

    Raises:
        SettingError: two definitions differ, or the configuration contradicts.
    """
    found = [(Path(file), read_beside(file)) for file in weights]
    whole = [(file, definition) for file, definition in found if definition is not None]
    if not whole and otherwise is not None and not any(file.exists() for file, _ in found):
        return read_one(packaged_bundles() / otherwise / "models" / FILE)
    if len(whole) < len(found) or not whole:
        return undefined([file for file, definition in found if definition is None])
    (first, definition), *others = whole
    for file, other in others:
        definition.check_same(other, f"{file.name}, beside {first.name}")
    parser = calling_parser()
    if parser is not None:
        _check_agrees(parser, definition, first.name)
    return definition


def _check_agrees(parser: ConfigParser, definition: Definition, weights: str) -> None:
    """Refuse an override that contradicts what the weights were made with."""
    # What is stated may refer to the definition, such as by the number of its classes, and it is not there yet.
    parser.ref_resolver.resolved_content[REFERENCE[1:]] = definition
    network = stated(parser, "network_def", REFERENCE)
    if _is_network(network) and definition.network_def is not None:
        given = _network_def(network)
        if not same_network(given.config, definition.network_def.config):
            raise SettingError(_short(definition.network_def.config), _short(given.config), f"network_def, {weights}")
    steps = stated(parser, "preprocessing", REFERENCE)
    if steps is not None and not same_steps(plain_steps(steps), definition.preprocessing):
        expected = f"the preprocessing that {weights} was trained with ({FILE} beside it)"
        raise SettingError(expected, "another", "preprocessing")
    names = stated(parser, "class_names", REFERENCE)
    if isinstance(names, list) and names != list(definition.class_names):
        raise SettingError(", ".join(definition.class_names), ", ".join(map(str, names)), f"class_names, {weights}")


def define(
    class_names: list[str],
    task: Task = "classification",
    activation: Activation | None = None,
    spatial_shape: tuple[int, ...] = (),
    units: str = "not stated",
    value_range: tuple[float, ...] = (),
    codes: Mapping[str, Any] | None = None,
) -> Definition:
    """The definition that the configuration around this call states, to be written beside the weights that it makes.

    Its `network_def` and `preprocessing` are taken as they are written there, references followed.

    Args:
        class_names: as of `Definition`, and so are the others.
        task: likewise.
        activation: that of the task if None.
        spatial_shape: likewise.
        units: likewise.
        value_range: likewise.
        codes: likewise.

    Raises:
        SettingError: there is no configuration, or what it states is no plain data.
    """
    parser = calling_parser()
    if parser is None:
        raise SettingError("a call from a configuration", "another", "define")
    if task not in ACTIVATIONS:
        raise SettingError(f"one of {', '.join(ACTIVATIONS)}", repr(task), "task")
    network = stated(parser, "network_def", REFERENCE)
    if not _is_network(network):
        raise SettingError("a `_target_` with its arguments, or CLASS(ARGUMENTS)", "another entry", "network_def")
    steps = tuple(plain_steps(stated(parser, "preprocessing", REFERENCE)))
    given = _network_def(network)
    if given.file is None:
        check_targets(given.config, "network_def")
    check_targets(list(steps), "preprocessing")
    return Definition(
        task=task,
        class_names=tuple(class_names),
        network_def=given,
        preprocessing=steps,
        activation=ACTIVATIONS[task] if activation is None else activation,
        spatial_shape=tuple(spatial_shape),
        units=units,
        value_range=tuple(value_range),
        codes=codes or {},
        named=True,
    )


def _is_network(content: Any) -> bool:
    return is_component(content) or isinstance(content, str)


def _network_def(content: Config | str) -> NetworkDef:
    if isinstance(content, str):
        return describe(content)
    if str(content["_target_"]).rpartition(".")[2] == FACTORY:
        return describe(str(content["description"]))
    return NetworkDef(plain(content, "network_def"))


def _short(config: Config) -> str:
    arguments = ", ".join(f"{key}={value!r}" for key, value in config.items() if key != "_target_")
    return f"{str(config['_target_']).rpartition('.')[2]}({arguments})"
