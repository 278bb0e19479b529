"""A merged network as a bundle that stock MONAI runs and that the model zoo's own checks accept."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from monai.bundle import ConfigParser
from torch import Tensor, nn

from monai_medmerge.bundle.configuration import explained, read_configuration, reason
from monai_medmerge.bundle.definition.document import FILE, Activation, Definition, Task
from monai_medmerge.bundle.definition.networks import NETWORK_IDS, NetworkDef
from monai_medmerge.bundle.definition.own_code import SCRIPTS
from monai_medmerge.bundle.export.formats import check_onnx_installed, write_onnx, write_torchscript
from monai_medmerge.bundle.export.scripts import copy_scripts, importable
from monai_medmerge.bundle.export.texts import (
    BundleCard,
    Config,
    class_names,
    generic_steps,
    inference,
    metadata,
    readme,
)
from monai_medmerge.errors import SettingError
from monai_medmerge.files import save_weights, sweep, whole_folder, write_json, write_text
from monai_medmerge.sources.filling import load_weights

logger = logging.getLogger(__name__)
LARGE_FILE = 25_000_000
NO_LICENCE = (
    "No licence was chosen for these weights: all rights stay with the holders named in configs/metadata.json.\n"
)


def export_bundle(
    folder: str | Path,
    network_def: Mapping[str, Any] | NetworkDef,
    weights: str | Path,
    card: BundleCard,
    preprocessing: Sequence[Config] | str | None = None,
    licence: str | Path | None = None,
    in_channels: int | None = None,
    torchscript: bool = True,
    onnx: bool = True,
    trace: bool = False,
    scripts: Path | None = None,
    definition: Definition | None = None,
) -> Path:
    """Write a bundle: configs, weights with their definition, README, LICENSE, TorchScript and ONNX.

    Args:
        folder: to be made; the bundle's name in the zoo.
        network_def: `_target_` and arguments, plain types; `scripts.FILE.CLASS` for own code.
        weights: of the network, every tensor and no other; a `merge.json` beside them names the sources.
        card: what the bundle says of itself.
        preprocessing: transforms from a path under `image` to a tensor, plain; or `generic`, see `generic_steps`.
        licence: file with the terms of the weights.
        in_channels: of the image; that of the first weight if None.
        torchscript: write `models/model.ts`.
        onnx: write `models/model.onnx`.
        trace: see `write_torchscript`.
        scripts: folder or file of own code, copied along.
        definition: of the weights, for what the card does not hold.

    Returns:
        The folder.

    Raises:
        SettingError: the folder is there already, the licence or the record of sources cannot be read, the network is
            none or answers another task, or an export fails or answers otherwise. No folder is left behind.
        IncompatibleSourcesError: the weights are another network's.
        UnsafeCheckpointError: the weights cannot be read.
    """
    root = Path(folder)
    sweep(root.parent)
    if root.exists():
        found = "a folder" if root.is_dir() else "a file"
        raise SettingError("a folder that is not there yet", found, root.absolute().name)
    terms = NO_LICENCE if licence is None else _text(Path(licence))
    sources = _sources(Path(weights))
    if preprocessing is None:
        raise SettingError("transforms, or 'generic'", "none stated", "preprocessing")
    steps = None if isinstance(preprocessing, str) else list(preprocessing)
    if isinstance(preprocessing, str) and preprocessing != "generic":
        raise SettingError("transforms, or 'generic'", repr(preprocessing), "preprocessing")
    if onnx:
        check_onnx_installed()
    made = network_def if isinstance(network_def, NetworkDef) else NetworkDef(dict(network_def))
    with importable(scripts):
        network = _network(made, definition is None or definition.named)
        load_weights(network, weights)
        network.eval()
        example = _example(network, card, in_channels)
        answer = _answer(network, example, card)
        channels = example.shape[1], answer.shape[1]
        configuration = inference(card, made.config, steps, channels)
        described = metadata(card, *channels, configuration)
        with whole_folder(root) as part:
            write_json(part / "configs" / "metadata.json", described)
            write_json(part / "configs" / "inference.json", configuration)
            save_weights(part / "models" / "model.pt", network)
            if scripts is not None:
                copy_scripts(scripts, part)
            if told := _definition(made, card, steps, channels[1], definition):
                write_json(part / "models" / FILE, told.as_dict())
            write_text(part / "docs" / "README.md", readme(card, sources, channels[0]))
            write_text(part / "LICENSE", terms)
            if torchscript:
                write_torchscript(part, network, example, trace)
            if onnx:
                write_onnx(part / "models" / "model.onnx", network, example)
    _tell_large_files(root)
    return root


def network_config(description: str) -> Config:
    """The `_target_` and the arguments of a network, plain, with every reference followed.

    Args:
        description: a MONAI configuration file with `network_def`, or FILE::ID for another entry. Its expressions that
            the entry needs are run: give only files that you would run.

    Raises:
        SettingError: there is no such entry, or an argument is no plain value.
    """
    file, _, name = description.partition("::")
    parser = read_configuration(file)
    name = name or next((key for key in NETWORK_IDS if isinstance(parser.get(key), dict)), NETWORK_IDS[0])
    if name not in parser:
        others = ", ".join(other for other in parser.get() if other != "_meta_") or "none"
        raise SettingError(f"an entry {name!r}; name the network's: FILE::ID", f"only {others}", Path(file).name)
    where = f"{Path(file).name}, {name}"
    with explained("an entry whose references can be followed", where):
        parser.parse()
        item = parser.ref_resolver.get_item(name, resolve=True, instantiate=False)
    config = None if item is None else item.get_config()
    if not isinstance(config, dict) or "_target_" not in config:
        raise SettingError("an entry with `_target_`, or another one's name: FILE::ID", "none", where)
    try:
        plain: Config = json.loads(json.dumps(config))
    except (TypeError, ValueError) as error:
        raise SettingError("plain numbers, texts and lists as arguments", str(error), where) from error
    return plain


def _network(network_def: NetworkDef, named: bool) -> nn.Module:
    if network_def.file is not None:
        return network_def.build(named)
    with explained("a class and arguments that make a network", "network_def"):
        network = ConfigParser({"network_def": dict(network_def.config)}).get_parsed_content("network_def")
    if not isinstance(network, nn.Module):
        raise SettingError("a network", f"a {type(network).__name__}", "network_def")
    return network


def _definition(
    network_def: NetworkDef, card: BundleCard, steps: list[Config] | None, outputs: int, known: Definition | None
) -> Definition | None:
    """What later steps take beside the exported weights; None for code of several files, which no definition names."""
    if network_def.file is None and str(network_def.config["_target_"]).startswith(f"{SCRIPTS}."):
        return None
    if known is not None:
        return known
    return Definition(
        task=cast(Task, card.task),
        class_names=tuple(class_names(card, outputs)),
        network_def=network_def,
        preprocessing=tuple(generic_steps(card) if steps is None else steps),
        activation=cast(Activation, card.activation),
        spatial_shape=tuple(card.spatial_shape),
    )


def _example(network: nn.Module, card: BundleCard, in_channels: int | None) -> Tensor:
    if in_channels is None:
        first = next((p for p in network.parameters() if p.ndim == len(card.spatial_shape) + 2), None)
        if first is None:
            raise SettingError("in_channels, as no convolution tells it", "none", "network")
        in_channels = int(first.shape[1])
    if in_channels < 1:
        raise SettingError("one or more channels", str(in_channels), "in_channels")
    generator = torch.Generator().manual_seed(0)
    return torch.rand((1, in_channels, *card.spatial_shape), generator=generator)


def _answer(network: nn.Module, example: Tensor, card: BundleCard) -> Tensor:
    """One per voxel for a segmentation, one per image else; some classifiers end in 1 x classes x 1 x 1."""
    given = " x ".join(map(str, example.shape))
    with torch.no_grad(), explained(f"a network that takes an input of {given}", "spatial_shape or in_channels"):
        answer = network(example)
    if not isinstance(answer, Tensor):
        raise SettingError("one tensor as the network's answer", f"a {type(answer).__name__}", "network")
    rest = answer.shape[2:]
    fits = all(size == 1 for size in rest) if card.whole else rest == example.shape[2:]
    if answer.ndim < 2 or not fits:
        shape = "1 x classes" if card.whole else " x ".join(map(str, [1, "classes", *example.shape[2:]]))
        raise SettingError(f"{shape} as the answer for a {card.task}", " x ".join(map(str, answer.shape)), "network")
    if card.activation == "softmax" and answer.shape[1] == 1:
        # One channel's softmax is 1 whatever the network says.
        raise SettingError("sigmoid or none for a network of one output", "softmax", "activation")
    return answer


def _sources(weights: Path) -> list[dict[str, Any]]:
    """What the overlay, or a run that writes as it does, recorded beside the weights."""
    record = weights.parent / "merge.json"
    if not record.is_file():
        return []
    try:
        content = json.loads(_text(record))
    except (ValueError, RecursionError) as error:
        raise SettingError("the JSON text of a merge beside the weights", reason(error), record.name) from error
    sources = content.get("sources") if isinstance(content, dict) else None
    # A configuration may have that name too, and its entry is an expression.
    if not isinstance(sources, list):
        logger.warning("%s beside the weights names no sources: the README will not, either", record.name)
        return []
    for number, source in enumerate(sources):
        if not isinstance(source, dict) or not {"name", "sha256"} <= set(source):
            where = f"{record.name}, sources[{number}]"
            raise SettingError("`name` and `sha256` of a source", "another entry", where)
    return sources


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError("a text file in UTF-8", reason(error), path.name) from error


def _tell_large_files(root: Path) -> None:
    for file in sorted((root / "models").iterdir()):
        if file.stat().st_size > LARGE_FILE:
            logger.warning(
                "%s has over 25 MB: for the model zoo, list where to download it in large_files.yml", file.name
            )
