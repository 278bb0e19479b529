"""The texts of an exported bundle: metadata, inference configuration, README; stock MONAI is all they need."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import monai
import numpy as np
import torch

from monai_medmerge.errors import SettingError

Config = dict[str, Any]
SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
TASKS = ("segmentation", "classification")


@dataclass(frozen=True)
class BundleCard:
    """What a bundle says of itself, and cannot be read from its network.

    Args:
        task: `segmentation` (one answer per voxel) or `classification` (one per image).
        spatial_shape: of the network's input, in pixels or voxels; the sliding window of a segmentation.
        classes: names of the output channels; numbered if not given.
        name: title of the README.
        version: of the bundle.
        description: one or more sentences.
        authors: names.
        copyright: line of the holder.
        modality: such as MR, CT or US.
        intended_use: what for, and what not.

    Raises:
        SettingError: the task is unknown, the shape has no two or three positive sizes, two classes have one name, or
            the version is not made of three numbers.
    """

    task: str
    spatial_shape: Sequence[int]
    classes: Sequence[str] = ()
    name: str = "Merged network"
    version: str = "0.1.0"
    description: str = "A network merged from several pretrained ones."
    authors: str = "not stated"
    copyright: str = "not stated"
    modality: str = "not stated"
    intended_use: str = "Research only; not for diagnosis."

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise SettingError(f"one of {', '.join(TASKS)}", repr(self.task), "task")
        if len(self.spatial_shape) not in (2, 3) or any(size < 1 for size in self.spatial_shape):
            raise SettingError("two or three positive sizes", f"{tuple(self.spatial_shape)}", "spatial_shape")
        if len(set(self.classes)) < len(self.classes):
            raise SettingError("a name of its own for every class", ", ".join(self.classes), "classes")
        if not re.fullmatch(r"\d+\.\d+\.\d+", self.version):
            raise SettingError("three numbers, such as 0.1.0", repr(self.version), "version")


def metadata(card: BundleCard, in_channels: int, out_channels: int) -> Config:
    """The content of `configs/metadata.json`, by the schema that the model zoo names.

    Args:
        card: of the bundle.
        in_channels: of the image.
        out_channels: of the answer.

    Raises:
        SettingError: there are other numbers of classes and channels.
    """
    classes = list(card.classes) or [f"class {number}" for number in range(out_channels)]
    if len(classes) != out_channels:
        raise SettingError(f"{out_channels} classes, one per output channel", f"{len(classes)}", "classes")
    image = {
        "type": "image",
        "format": "magnitude",
        "modality": card.modality,
        "num_channels": in_channels,
        "spatial_shape": list(card.spatial_shape),
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": card.task == "segmentation",
        "channel_def": {str(number): "image" for number in range(in_channels)},
    }
    answer = {
        "type": "image" if card.task == "segmentation" else "probabilities",
        "format": card.task,
        "num_channels": out_channels,
        "spatial_shape": list(card.spatial_shape) if card.task == "segmentation" else [],
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": card.task == "segmentation",
        "channel_def": {str(number): name for number, name in enumerate(classes)},
    }
    return {
        "schema": SCHEMA,
        "version": card.version,
        "changelog": {card.version: "exported"},
        "monai_version": monai.__version__.split("+")[0],
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": {"nibabel": "5.2.0", "pytorch-ignite": "0.5.2"},
        "name": card.name,
        "task": f"{card.modality} {card.task}",
        "description": card.description,
        "authors": card.authors,
        "copyright": card.copyright,
        "intended_use": card.intended_use,
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": answer}},
    }


def inference(card: BundleCard, network_def: Mapping[str, Any], preprocessing: Sequence[Config] | None) -> Config:
    """The content of `configs/inference.json`, with the ids that MONAI's properties name.

    Args:
        card: of the bundle.
        network_def: `_target_` and arguments, plain.
        preprocessing: transforms from a path under `image` to a tensor; if None: load, channel first, intensities
            from 0 to 1, and the input's size for a classification.
    """
    whole = card.task == "classification"
    loading: list[Config] = [
        {"_target_": "LoadImaged", "keys": "image"},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "ScaleIntensityd", "keys": "image"},
        *([{"_target_": "Resized", "keys": "image", "spatial_size": list(card.spatial_shape)}] if whole else []),
        {"_target_": "EnsureTyped", "keys": "image", "dtype": "$torch.float32"},
    ]
    window = {
        "_target_": "SlidingWindowInferer",
        "roi_size": list(card.spatial_shape),
        "sw_batch_size": 1,
        "overlap": 0.5,
    }
    answers: list[Config] = [{"_target_": "Activationsd", "keys": "pred", "softmax": True}]
    if not whole:
        answers.append({"_target_": "AsDiscreted", "keys": "pred", "argmax": True})
        answers.append({"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir", "output_postfix": "seg"})
    csv = {
        "_target_": "ClassificationSaver",
        "output_dir": "@output_dir",
        "batch_transform": "$lambda batch: [case['image'].meta for case in batch]",
        "output_transform": "$monai.handlers.from_engine(['pred'])",
    }
    checkpoint = {
        "_target_": "CheckpointLoader",
        "load_path": "$@bundle_root + '/models/model.pt'",
        "load_dict": {"model": "@network"},
    }
    evaluator = {
        "_target_": "SupervisedEvaluator",
        "device": "@device",
        "val_data_loader": "@dataloader",
        "network": "@network",
        "inferer": "@inferer",
        "postprocessing": "@postprocessing",
        "val_handlers": "@handlers",
    }
    return {
        "imports": ["$import glob"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/input'",
        "output_dir": "$@bundle_root + '/output'",
        "datalist": "$sorted(glob.glob(@dataset_dir + '/*'))",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": dict(network_def),
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": list(loading if preprocessing is None else preprocessing),
        },
        "dataset": {"_target_": "Dataset", "data": "$[{'image': i} for i in @datalist]", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
        "inferer": {"_target_": "SimpleInferer"} if whole else window,
        "postprocessing": {"_target_": "Compose", "transforms": answers},
        "handlers": [checkpoint, *([csv] if whole else [])],
        "evaluator": evaluator,
        "initialize": ["$monai.utils.set_determinism(seed=0)"],
        "run": ["$@evaluator.run()"],
    }


def readme(card: BundleCard, sources: Sequence[Mapping[str, Any]]) -> str:
    """The content of `docs/README.md`.

    Args:
        card: of the bundle.
        sources: what it was merged from: `name` and `sha256` each; may be empty.
    """
    lines = [f"# {card.name}", "", card.description, "", f"Intended use: {card.intended_use}", ""]
    if sources:
        lines += ["## Merged from", "", "| source | SHA-256 of its weights |", "|---|---|"]
        lines += [f"| {source['name']} | `{source['sha256']}` |" for source in sources]
        lines += [
            "",
            "Method: MedMerge (arXiv:2403.11646), by the package monai_medmerge; the bundle needs MONAI alone.",
            "",
        ]
    named = ", ".join(card.classes) or "each class"
    answer = {
        "classification": f"`OUTPUT/predictions.csv` has a row per image: its file, then the probability of {named}.",
        "segmentation": f"`OUTPUT` has a label map per image, numbered from 0: {named}.",
    }[card.task]
    lines += [
        "## Inference",
        "",
        "```",
        "python -m monai.bundle run --config_file configs/inference.json --meta_file configs/metadata.json \\",
        "    --dataset_dir IMAGES --output_dir OUTPUT",
        "```",
        "",
        answer,
        "",
    ]
    return "\n".join(lines)
