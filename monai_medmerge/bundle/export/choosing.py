"""What an export is of: from the definition beside the weights, the user's configuration, and what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from monai_medmerge.bundle.configuration import SUFFIXES, read_configuration
from monai_medmerge.bundle.definition.document import FILE, Definition, read_beside
from monai_medmerge.bundle.definition.networks import Config, NetworkDef, describe
from monai_medmerge.bundle.definition.own_code import SCRIPTS
from monai_medmerge.bundle.definition.steps import IMAGE, for_keys, same_network, same_steps
from monai_medmerge.bundle.export.configured import PREPROCESSING, configured_activation, configured_preprocessing
from monai_medmerge.bundle.export.scripts import scripts_beside
from monai_medmerge.bundle.export.writing import network_config
from monai_medmerge.errors import SettingError

GENERIC = "generic"
INFERENCE = "inference.json"


@dataclass(frozen=True)
class Chosen:
    """What is exported.

    Args:
        network: class and arguments.
        card: entries of `BundleCard` that are known.
        preprocessing: plain steps for images, or `generic`.
        scripts: folder or file of the network's own code.
        definition: beside the weights, if there is one.
    """

    network: NetworkDef
    card: Mapping[str, Any]
    preprocessing: Sequence[Config] | str
    scripts: Path | None = None
    definition: Definition | None = None


@dataclass(frozen=True)
class Stated:
    """What a user states; what they do not is None.

    Args:
        network: as of `build_network`, or a MONAI configuration.
        task: as of `Definition`.
        classes: names of the output channels.
        spatial_shape: of the input.
        activation: as of `Definition`.
        preprocessing: `generic`, or FILE::ID.
    """

    network: str | None = None
    task: str | None = None
    classes: Sequence[str] | None = None
    spatial_shape: Sequence[int] | None = None
    activation: str | None = None
    preprocessing: str | None = None
    card: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        entries = {"task": self.task, "classes": self.classes, "spatial_shape": self.spatial_shape,
                   "activation": self.activation}  # fmt: skip
        given = {name: value for name, value in entries.items() if value}
        object.__setattr__(self, "card", {n: tuple(v) if isinstance(v, list | tuple) else v for n, v in given.items()})


def choose(weights: str | Path, stated: Stated) -> Chosen:
    """What weights are exported as: as their definition says, or as the configuration and the user do.

    Args:
        weights: of the network.
        stated: by the user; what a definition beside the weights says otherwise is refused.

    Raises:
        SettingError: something contradicts the definition, or without one something is stated nowhere.
    """
    network = _network(stated.network)
    definition = read_beside(weights)
    if definition is not None:
        return _defined(definition, stated, network, Path(weights).name)
    if network is None:
        raise SettingError(f"--network, or a {FILE} beside the weights", "neither", Path(weights).name)
    parsers = _configurations(str(stated.network))
    card = dict(stated.card)
    if "activation" not in card:
        card |= {"activation": next(filter(None, map(configured_activation, parsers.values())), None)}
    found: Sequence[Config] | str | None = GENERIC if stated.preprocessing == GENERIC else None
    if found is None:
        found = _named(stated.preprocessing) if stated.preprocessing else _first(parsers)
    ways = {
        "--activation softmax, sigmoid or none": card["activation"],
        f"--preprocessing FILE::ID or {GENERIC}": found,
        "--task": stated.task,
        "--spatial-shape": stated.spatial_shape,
    }
    missing = [way for way, value in ways.items() if not value]
    if missing or found is None:
        expected = f"{'; '.join(missing)}: or a {FILE} beside the weights, or a configuration that tells"
        raise SettingError(expected, "none", "what the weights answer")
    return Chosen(network, card, found, _scripts(network, stated.network))


def _network(description: str | None) -> NetworkDef | None:
    if description is None:
        return None
    file = description.partition("::")[0]
    if Path(file).suffix.lower() in SUFFIXES or Path(file).is_dir():
        return NetworkDef(network_config(description))
    return describe(description)


def _defined(definition: Definition, stated: Stated, network: NetworkDef | None, weights: str) -> Chosen:
    where, used = f"{FILE} beside {weights}", definition.network_def
    if used is None:
        raise SettingError("a network_def", "none", where)
    if network is not None and not same_network(network.config, used.config):
        raise SettingError(f"the network of {where}", "another", "--network")
    for name, value in stated.card.items():
        own = definition.class_names if name == "classes" else getattr(definition, name)
        if own and value != own:
            raise SettingError(f"{own}, as {where} says", f"{value}", f"--{name.replace('_', '-')}")
    steps = for_keys(definition.preprocessing, IMAGE)
    if stated.preprocessing is not None:
        given = None if stated.preprocessing == GENERIC else _named(stated.preprocessing)
        if given is None or not same_steps(given, steps):
            raise SettingError(f"the preprocessing of {where}", "another", "--preprocessing")
    if network is not None and network.file is not None:
        definition = replace(definition, named=True)
    card = {
        "task": definition.task, "classes": definition.class_names, "activation": definition.activation,
        "spatial_shape": definition.spatial_shape or stated.spatial_shape or (),
    }  # fmt: skip
    return Chosen(used, card, steps, used.file, definition)


def _configurations(network: str) -> dict[str, ConfigParser]:
    """The configuration that tells the network, and that of inference beside it."""
    file = Path(network.partition("::")[0])
    if file.suffix.lower() not in SUFFIXES:
        return {}
    files = {path.absolute() for path in (file, file.with_name(INFERENCE)) if path.is_file()}
    ordered = sorted(files, key=lambda path: path != file.absolute())
    return {path.name: read_configuration(path) for path in ordered}


def _first(parsers: Mapping[str, ConfigParser]) -> list[Config] | None:
    # What an inference prepares images with comes before what a validation does.
    for names in (PREPROCESSING[:1], PREPROCESSING[1:]):
        for parser in parsers.values():
            if (found := configured_preprocessing(parser, *names)) is not None:
                return found
    return None


def _named(description: str) -> list[Config]:
    file, _, name = description.partition("::")
    found = configured_preprocessing(read_configuration(file), name or "preprocessing")
    if found is None:
        raise SettingError(f"an entry {name or 'preprocessing'} with steps", "none", Path(file).name)
    return found


def _scripts(network: NetworkDef, description: str | None) -> Path | None:
    if network.file is not None or description is None:
        return network.file
    if not str(network.config["_target_"]).startswith(f"{SCRIPTS}."):
        return None
    found = scripts_beside(description.partition("::")[0])
    if found is None:
        raise SettingError(f"the folder {SCRIPTS} of the bundle", "none", str(network.config["_target_"]))
    return found
