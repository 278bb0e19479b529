"""From words or plain data to a network: a configuration, a class with arguments, or a class in the user's own file."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import monai.data
import monai.networks.nets
import monai.transforms
from monai.bundle import ConfigParser
from monai.data import ImageReader
from monai.transforms import LoadImage, LoadImaged, Transform
from torch import nn

from monai_medmerge.bundle.configuration import SUFFIXES, explained, read_configuration
from monai_medmerge.bundle.definition.own_code import SCRIPTS, SUFFIX, keywords, own_class
from monai_medmerge.errors import SettingError
from monai_medmerge.files import shown

Config = dict[str, Any]
NETWORK_IDS = ("network_def", "network")
FACTORIES = ("torchvision.models", "timm")
"""Packages whose networks are made by functions."""
FETCHING = ("weights", "weights_backbone", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path")
"""Arguments by which these functions fetch or read weights, which are sources' to give."""
OUTPUTS = ("num_classes", "out_channels", "classes", "n_classes", "out_features")
"""Arguments that tell the number of outputs."""


@dataclass(frozen=True)
class NetworkDef:
    """A network as plain data.

    Args:
        config: `_target_` and its arguments; `scripts.STEM.CLASS` for a class in a file.
        file: of the user's own code, if there is one.
    """

    config: Config
    file: Path | None = None

    def build(self, named: bool = True) -> nn.Module:
        """Make the network.

        Args:
            named: whether the user named its file of code, see `own_class`.

        Raises:
            SettingError: nothing of the kind comes of it.
        """
        target = str(self.config["_target_"])
        if self.file is None:
            check_targets(self.config, "network_def")
            content = self.config
        else:
            arguments = {key: value for key, value in self.config.items() if key != "_target_"}
            check_targets(arguments, "network_def")
            with explained("arguments that can be read", "network_def"):
                given = ConfigParser({"given": arguments}).get_parsed_content("given")
            made = own_class(self.file, target.rpartition(".")[2], named)
            with explained("arguments that the class takes", target.removeprefix(f"{SCRIPTS}.")):
                return made(**given)
        with explained("a class and arguments that make a network", "network_def"):
            network = ConfigParser({"network_def": content}).get_parsed_content("network_def")
        if not isinstance(network, nn.Module):
            raise SettingError("a network", f"a {type(network).__name__}", "network_def")
        return network

    def with_outputs(self, before: int, after: int) -> NetworkDef:
        """The same network with another number of outputs.

        Args:
            before: how many it has.
            after: how many it shall have.

        Raises:
            SettingError: no argument, or several, may tell that number.

        Example:
            >>> NetworkDef({"_target_": "UNet", "in_channels": 2, "out_channels": 2}).with_outputs(2, 3).config
            {'_target_': 'UNet', 'in_channels': 2, 'out_channels': 3}
        """
        if before == after:
            return self
        found = [key for key in OUTPUTS if self.config.get(key) == before]
        if len(found) != 1:
            expected = f"one argument of {', '.join(OUTPUTS)} that is {before}, to make it {after}"
            raise SettingError(expected, ", ".join(found) or "none", "network_def")
        return NetworkDef({**self.config, found[0]: after}, self.file)


def build_network(description: str) -> nn.Module:
    """The network that a configuration defines, or that a class and its arguments make.

    Args:
        description: a MONAI configuration file (json or yaml) with `network_def` or `network`, or `FILE::ID` for
            another entry; a class of `monai.networks.nets` or a dotted one, with literal arguments:
            ``DenseNet121(spatial_dims=2, in_channels=1, out_channels=3)``; a function of torchvision or timm, where
            they are installed: ``torchvision.models.resnet18(num_classes=3)``; or a class in your own file:
            ``my_model.py::Net(classes=3)``. A configuration may hold expressions, and MONAI runs those that the entry
            needs; a file of code is run: give only files that you would run.

    Raises:
        SettingError: there is no such file, entry or class, or what it makes is no network.

    Example:
        >>> type(build_network("torch.nn.Linear(in_features=2, out_features=1)")).__name__
        'Linear'
    """
    file, _, name = description.partition("::")
    if Path(file).suffix.lower() in SUFFIXES:
        parser = read_configuration(file)
        name = name or next((key for key in NETWORK_IDS if key in parser), "")
        if not name or name not in parser:
            found = ", ".join(key for key in parser.config if key != "_meta_") or "none"
            raise SettingError(f"an entry {name or ' or '.join(NETWORK_IDS)}", f"only {found}", Path(file).name)
        with explained("a configuration that defines a network", Path(file).name):
            parser.parse()
            network = parser.get_parsed_content(name, instantiate=True)
    else:
        network = describe(description).build()
    if not isinstance(network, nn.Module):
        raise SettingError("a network", f"a {type(network).__name__}", description)
    return network


def describe(description: str) -> NetworkDef:
    """A class with its arguments, as plain data.

    Args:
        description: ``CLASS(ARGUMENTS)`` or ``FILE.py::CLASS(ARGUMENTS)``, as `build_network` takes it.

    Raises:
        SettingError: there is no such class, or it does not take the arguments.

    Example:
        >>> describe("torch.nn.Linear(2, out_features=1)").config
        {'_target_': 'torch.nn.Linear', 'in_features': 2, 'out_features': 1}
    """
    file, _, expression = description.rpartition("::")
    with explained("a file, or a class with literal arguments", description):
        parsed = ast.parse(expression.strip(), mode="eval").body
        call = parsed if isinstance(parsed, ast.Call) else None
        path = ast.unparse(call.func if call else parsed)
        positional = [_literal(argument, path) for argument in call.args] if call else []
        named = {str(k.arg): _literal(k.value, path) for k in call.keywords} if call else {}
    if file:
        own = Path(file)
        if own.suffix != SUFFIX:
            raise SettingError("FILE.py::CLASS(ARGUMENTS)", f"a file of suffix {own.suffix!r}", own.name)
        made: Any = own_class(own, path, named=True)
        target = f"{SCRIPTS}.{own.stem}.{path}"
    else:
        module, _, name = path.rpartition(".")
        with explained("a class of monai.networks.nets, or a dotted one", path):
            made = getattr(importlib.import_module(module) if module else monai.networks.nets, name)
        if not _makes_networks(made):
            raise SettingError("a class of networks", f"a {type(made).__name__}", path)
        target = path if module else f"monai.networks.nets.{path}"
    config = plain({"_target_": target, **keywords(made, positional, named, path)}, path)
    return NetworkDef(config, Path(file).absolute() if file else None)


def _literal(argument: ast.expr, where: str) -> Any:
    """An argument's value, read and never run."""
    try:
        return ast.literal_eval(argument)
    except (ValueError, TypeError):
        found = shown(ast.unparse(argument))
        raise SettingError("arguments that are plain numbers, texts and lists", found, where) from None


def network_from(description: str) -> nn.Module:
    """`build_network`, for configurations: ``{"_target_": "monai_medmerge.bundle.network_from", "description": ...}``.

    Args:
        description: as of `build_network`.
    """
    return build_network(description)


def as_network(network_def: nn.Module | str) -> nn.Module:
    """The network of a configuration whose `network_def` may be text: ``--network_def "my_model.py::Net(classes=3)"``.

    Args:
        network_def: made already, or as `build_network` takes it.

    Raises:
        SettingError: no network comes of it.

    Example:
        >>> as_network("torch.nn.Linear(2, 1)")
        Linear(in_features=2, out_features=1, bias=True)
    """
    if isinstance(network_def, str):
        return build_network(network_def)
    if not isinstance(network_def, nn.Module):
        raise SettingError("a network", f"a {type(network_def).__name__}", "network_def")
    return network_def


def plain(value: Any, where: str) -> Any:
    """A value as JSON has it; a tuple becomes a list, a torch type its name.

    Args:
        value: made of plain types.
        where: for errors.

    Raises:
        SettingError: it is something else, or text that MONAI would run.

    Example:
        >>> plain({"size": (2, 3), "bias": True}, "Net")
        {'size': [2, 3], 'bias': True}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item, f"{where}::{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}::{number}") for number, item in enumerate(value)]
    if isinstance(value, str) and value.startswith(("$", "@", "%")):
        raise SettingError("plain data, or a class in the place of an expression", repr(value), where)
    if value is None or isinstance(value, str | int | float | bool):
        return json.loads(json.dumps(value))
    text = str(value)
    if text.startswith("torch.") and text.count(".") == 1:
        return text.removeprefix("torch.")
    if inspect.isclass(value) and value.__module__ == "numpy":
        return value.__name__
    raise SettingError("plain numbers, texts and lists", f"a {type(value).__name__}", where)


def check_targets(value: Any, where: str) -> None:
    """Whether plain data makes nothing but networks and transforms, before any of it is made.

    Args:
        value: plain data with `_target_` entries.
        where: for errors.

    Raises:
        SettingError: it names another class or function, or an expression.

    Example:
        >>> check_targets({"_target_": "os.system", "command": "true"}, "network_def")
        Traceback (most recent call last):
        monai_medmerge.errors.SettingError: network_def: expected a network or a transform, found 'os.system'
    """
    plain(value, where)
    for item in _items(value):
        target = item.get("_target_")
        if target is None:
            continue
        made = _located(str(target), where)
        allowed = _makes_networks(made) or (inspect.isclass(made) and issubclass(made, Transform))
        # Readers and writers are named by texts, which MONAI would look up anywhere.
        if allowed and inspect.isclass(made) and made.__module__.startswith("monai.transforms.io"):
            allowed = made in (LoadImage, LoadImaged) and _is_reader(item.get("reader"))
        if not allowed:
            raise SettingError("a network or a transform", repr(target), where)
        if inspect.isfunction(made):
            _check_fetches_nothing(item, where)


def _items(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        yield value
        for item in value.values():
            yield from _items(item)
    elif isinstance(value, list):
        for item in value:
            yield from _items(item)


def _located(target: str, where: str) -> Any:
    with explained("a class that is installed here", f"{where}, {target}"):
        module, _, name = target.rpartition(".")
        if module:
            return getattr(importlib.import_module(module), name)
        for package in (monai.networks.nets, monai.transforms):
            if hasattr(package, name):
                return getattr(package, name)
        raise SettingError("a class of monai.networks.nets or monai.transforms, or a dotted one", target, where)


def _makes_networks(made: Any) -> bool:
    if inspect.isclass(made):
        return issubclass(made, nn.Module)
    if not inspect.isfunction(made):
        return False
    package = made.__module__.partition(".")[0]
    return made.__module__.startswith(FACTORIES[0]) or (package == FACTORIES[1] and made.__name__ == "create_model")


def _check_fetches_nothing(item: Mapping[str, Any], where: str) -> None:
    """Refuse what would fetch or read weights: a definition of others must not make this machine do so."""
    for name in FETCHING:
        if item.get(name):
            raise SettingError("a network without weights, which sources give", f"{name}={item[name]!r}", where)
    if any(isinstance(value, str) and ":" in value for value in item.values()):
        raise SettingError("a network without weights, which sources give", "an address", where)


def _is_reader(reader: Any) -> bool:
    if reader is None:
        return True
    if not isinstance(reader, str):
        return False
    if hasattr(monai.data, reader):
        made = getattr(monai.data, reader)
    else:
        module, _, name = reader.rpartition(".")
        if not module:
            return reader.lower() in ("nibabelreader", "numpyreader", "pilreader", "itkreader", "pydicomreader")
        made = getattr(importlib.import_module(module), name, None) if module.startswith("monai") else None
    return inspect.isclass(made) and issubclass(made, ImageReader)
