"""A merged network as a bundle that stock MONAI runs and that the model zoo's own checks accept."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import Tensor, nn

from monai_medmerge.bundle.configuration import explained, read_configuration, reason
from monai_medmerge.bundle.export.formats import check_onnx_installed, write_onnx, write_torchscript
from monai_medmerge.bundle.export.texts import BundleCard, Config, inference, metadata, readme
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
    network_def: Mapping[str, Any],
    weights: str | Path,
    card: BundleCard,
    preprocessing: Sequence[Config] | None = None,
    licence: str | Path | None = None,
    in_channels: int | None = None,
    torchscript: bool = True,
    onnx: bool = True,
    trace: bool = False,
) -> Path:
    """Write a bundle: configs, weights, README, LICENSE, TorchScript and ONNX.

    Args:
        folder: to be made; the bundle's name in the zoo.
        network_def: `_target_` and arguments, plain types.
        weights: of the network, every tensor and no other; a `merge.json` beside them names the sources.
        card: what the bundle says of itself.
        preprocessing: see `inference`.
        licence: file with the terms of the weights.
        in_channels: of the image; that of the first weight if None.
        torchscript: write `models/model.ts`.
        onnx: write `models/model.onnx`.
        trace: see `write_torchscript`.

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
    if onnx:
        check_onnx_installed()
    network = _network(network_def)
    load_weights(network, weights)
    network.eval()
    example = _example(network, card, in_channels)
    answer = _answer(network, example, card.task)
    described = metadata(card, example.shape[1], answer.shape[1])
    with whole_folder(root) as part:
        write_json(part / "configs" / "metadata.json", described)
        write_json(part / "configs" / "inference.json", inference(card, network_def, preprocessing))
        save_weights(part / "models" / "model.pt", network)
        write_text(part / "docs" / "README.md", readme(card, sources))
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
    name = name or "network_def"
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


def _network(network_def: Mapping[str, Any]) -> nn.Module:
    with explained("a class and arguments that make a network", "network_def"):
        network = ConfigParser({"network_def": dict(network_def)}).get_parsed_content("network_def")
    if not isinstance(network, nn.Module):
        raise SettingError("a network", f"a {type(network).__name__}", "network_def")
    return network


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


def _answer(network: nn.Module, example: Tensor, task: str) -> Tensor:
    """One per voxel for a segmentation, one per image for a classification."""
    given = " x ".join(map(str, example.shape))
    with torch.no_grad(), explained(f"a network that takes an input of {given}", "spatial_shape or in_channels"):
        answer = network(example)
    if not isinstance(answer, Tensor):
        raise SettingError("one tensor as the network's answer", f"a {type(answer).__name__}", "network")
    shape = "1 x classes" if task == "classification" else " x ".join(map(str, [1, "classes", *example.shape[2:]]))
    if answer.ndim < 2 or answer.shape[2:] != (example.shape[2:] if task == "segmentation" else ()):
        raise SettingError(f"{shape} as the answer for a {task}", " x ".join(map(str, answer.shape)), "network")
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
