"""What a bundle's folder tells of itself."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_medmerge.errors import DatasetError, SettingError

# The weights that training through MONAI Label writes; a bundle's own are left alone.
TRAINED = "model_label.pt"
MODEL = "model.pt"
TASKS = ("segmentation", "classification")


def read_metadata(bundle: Path) -> dict[str, Any]:
    """The content of `configs/metadata.json`.

    Args:
        bundle: its folder.

    Raises:
        SettingError: there is none, or it has no `network_data_format`.
    """
    where = f"{bundle.name}/configs/metadata.json"
    file = bundle / "configs" / "metadata.json"
    if not file.is_file():
        raise SettingError("a bundle with configs/metadata.json", "none", where)
    metadata: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if not metadata.get("network_data_format", {}).get("outputs"):
        raise SettingError("network_data_format with inputs and outputs", "none", where)
    return metadata


def task_type(metadata: Mapping[str, Any], name: str) -> str:
    """`segmentation` or `classification`: the format of the output, or else a word in the bundle's name.

    Raises:
        SettingError: it is neither.

    Example:
        >>> task_type({"network_data_format": {"outputs": {"pred": {"format": "classification"}}}}, "chest")
        'classification'
    """
    stated = str(_output(metadata).get("format", "")).lower()
    for task in TASKS:
        if task in stated or task in name.lower():
            return task
    raise SettingError(f"an output of format {' or '.join(TASKS)}", repr(stated), f"{name}, network_data_format")


def class_names(metadata: Mapping[str, Any]) -> list[str]:
    """Names of the output channels, in order.

    Example:
        >>> class_names({"network_data_format": {"outputs": {"pred": {"channel_def": {"1": "cyst", "0": "none"}}}}})
        ['none', 'cyst']
    """
    channels = _output(metadata).get("channel_def", {})
    return [channels[number] for number in sorted(channels, key=int)]


def target_classes(dataset_dir: str | os.PathLike[str], bundle: str | os.PathLike[str]) -> list[str]:
    """Names of the classes that a training is to tell apart.

    Args:
        dataset_dir: folder whose `dataset.json` names them in `class_names`. MONAI Label has images and labels of its
            own, and no such file.
        bundle: folder whose `metadata.json` names them otherwise.

    Raises:
        DatasetError: `dataset.json` has no `class_names`.
        SettingError: neither file is there.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     _ = Path(folder, "dataset.json").write_text('{"class_names": ["none", "cyst"]}')
        ...     target_classes(folder, "a bundle")
        ['none', 'cyst']
    """
    datalist = Path(dataset_dir, "dataset.json")
    if not datalist.is_file():
        return class_names(read_metadata(Path(bundle)))
    named = json.loads(datalist.read_text(encoding="utf-8")).get("class_names")
    if not isinstance(named, list) or not named:
        raise DatasetError("a list `class_names`", repr(named), datalist.name)
    return [str(name) for name in named]


def weights_files(bundle: Path) -> list[Path]:
    """The networks' weights of a bundle, the default first: what was trained here last, then `model.pt`."""
    found = sorted(
        (bundle / "models").glob("*.pt"), key=lambda file: (file.name != TRAINED, file.name != MODEL, file.name)
    )
    return [file for file in found if not file.name.startswith(".")]


def _output(metadata: Mapping[str, Any]) -> dict[str, Any]:
    outputs = metadata.get("network_data_format", {}).get("outputs", {})
    return dict(next(iter(outputs.values()), {}))
