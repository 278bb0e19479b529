"""The texts of an exported bundle: metadata, inference configuration, README; stock MONAI is all they need."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, get_args

import monai
import numpy as np
import torch

from monai_medmerge.bundle.definition.document import Activation, Task
from monai_medmerge.bundle.export.configured import exported_steps
from monai_medmerge.errors import SettingError

Config = dict[str, Any]
SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
TASKS = get_args(Task)
SEGMENTATION = "segmentation"
CLASSIFICATION = "classification"
THRESHOLD = 0.5
PACKAGES = ("monai_medmerge", "torchvision", "timm")
"""What a bundle may need beside MONAI."""


@dataclass(frozen=True)
class BundleCard:
    """What a bundle says of itself, and cannot be read from its network.

    Args:
        task: `segmentation` (one answer per voxel), or one answer per image: `classification`, `ordinal` (grades) or
            `multilabel` (any number of classes).
        spatial_shape: of the network's input, in pixels or voxels; the sliding window of a segmentation.
        classes: names of the output channels; numbered if not given.
        activation: from the network's answers to probabilities: `softmax` (classes exclude one another), `sigmoid`
            (each by itself) or `none` (they are probabilities already).
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
    activation: str = ""
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
        if self.activation not in get_args(Activation):
            expected = f"{', '.join(get_args(Activation))}, as the network was trained"
            raise SettingError(expected, repr(self.activation) if self.activation else "none stated", "activation")
        if len(self.spatial_shape) not in (2, 3) or any(size < 1 for size in self.spatial_shape):
            raise SettingError("two or three positive sizes", f"{tuple(self.spatial_shape)}", "spatial_shape")
        if len(set(self.classes)) < len(self.classes):
            raise SettingError("a name of its own for every class", ", ".join(self.classes), "classes")
        if not re.fullmatch(r"\d+\.\d+\.\d+", self.version):
            raise SettingError("three numbers, such as 0.1.0", repr(self.version), "version")

    @property
    def whole(self) -> bool:
        """Whether an image has one answer."""
        return self.task != SEGMENTATION

    @property
    def overlapping(self) -> bool:
        """Whether a pixel or voxel may be of several classes, or of none."""
        return self.activation == "sigmoid"


def class_names(card: BundleCard, out_channels: int) -> list[str]:
    """Names of the output channels, or numbers.

    Args:
        card: of the bundle.
        out_channels: of the answer.

    Raises:
        SettingError: there are other numbers of classes and channels.
    """
    classes = list(card.classes) or [f"class {number}" for number in range(out_channels)]
    if len(classes) != out_channels:
        raise SettingError(f"{out_channels} classes, one per output channel", f"{len(classes)}", "classes")
    return classes


def metadata(card: BundleCard, in_channels: int, out_channels: int, configuration: Config | None = None) -> Config:
    """The content of `configs/metadata.json`, by the schema that the model zoo names.

    Args:
        card: of the bundle.
        in_channels: of the image.
        out_channels: of the answer.
        configuration: of the inference, for the packages that it needs.

    Raises:
        SettingError: there are other numbers of classes and channels.
    """
    classes = class_names(card, out_channels)
    image = {
        "type": "image",
        "format": "magnitude",
        "modality": card.modality,
        "num_channels": in_channels,
        "spatial_shape": list(card.spatial_shape),
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": not card.whole,
        "channel_def": {str(number): "image" for number in range(in_channels)},
    }
    answer = {
        "type": "probabilities" if card.whole else "image",
        "format": CLASSIFICATION if card.whole else SEGMENTATION,
        "num_channels": out_channels,
        "spatial_shape": [] if card.whole else list(card.spatial_shape),
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": not card.whole,
        "channel_def": {str(number): name for number, name in enumerate(classes)},
    }
    return {
        "schema": SCHEMA,
        "version": card.version,
        "changelog": {card.version: "exported"},
        "monai_version": monai.__version__.split("+")[0],
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": {"nibabel": "5.2.0", "pytorch-ignite": "0.5.2", **_packages(configuration)},
        "name": card.name,
        "task": f"{card.modality} {card.task}",
        "description": card.description,
        "authors": card.authors,
        "copyright": card.copyright,
        "intended_use": card.intended_use,
        "activation": card.activation,
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": answer}},
    }


def generic_steps(card: BundleCard) -> list[Config]:
    """Load, channel first, intensities from 0 to 1, and the input's size for one answer per image.

    Args:
        card: of the bundle.
    """
    resized = {"_target_": "Resized", "keys": "image", "spatial_size": list(card.spatial_shape)}
    return [
        {"_target_": "LoadImaged", "keys": "image"},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "ScaleIntensityd", "keys": "image"},
        *([resized] if card.whole else []),
        {"_target_": "EnsureTyped", "keys": "image", "dtype": "float32"},
    ]


def answer_steps(card: BundleCard, out_channels: int, undone: bool) -> list[Config]:
    """From the network's answers to probabilities, or to label maps on the image's own grid, saved.

    Args:
        card: of the bundle.
        out_channels: of the answer.
        undone: whether the image's preparation is to be undone.
    """
    steps: list[Config] = []
    if card.activation != "none":
        steps.append({"_target_": "Activationsd", "keys": "pred", card.activation: True})
    if card.whole:
        return steps
    apart = card.overlapping or out_channels == 1
    chosen: Config = {"threshold": THRESHOLD} if apart else {"argmax": True}
    steps.append({"_target_": "AsDiscreted", "keys": "pred", **chosen})
    if undone:
        grid = {"transform": "@preprocessing", "orig_keys": "image", "nearest_interp": True, "to_tensor": True}
        steps.append({"_target_": "Invertd", "keys": "pred", **grid})
    flat = len(card.spatial_shape) == 2
    saved = {"output_dir": "@output_dir", "resample": False, "output_dtype": "$numpy.uint8"}
    if not (flat and apart and out_channels > 1):
        extension = ".png" if flat else ".nii.gz"
        return [*steps, {"_target_": "SaveImaged", "keys": "pred", "output_postfix": "seg", **saved,
                         "output_ext": extension}]  # fmt: skip
    # Pictures have no channels of their own: one for each class.
    names = [re.sub(r"\W+", "_", name) for name in class_names(card, out_channels)]
    steps.append({"_target_": "SplitDimd", "keys": "pred", "dim": 0, "output_postfixes": names})
    return steps + [
        {"_target_": "SaveImaged", "keys": f"pred_{name}", "output_postfix": f"seg_{name}", **saved,
         "output_ext": ".png"} for name in names
    ]  # fmt: skip


def inference(
    card: BundleCard,
    network_def: Mapping[str, Any],
    preprocessing: Sequence[Config] | None,
    channels: tuple[int, int] = (1, 1),
) -> Config:
    """The content of `configs/inference.json`, with the ids that MONAI's properties name.

    Args:
        card: of the bundle.
        network_def: `_target_` and arguments, plain.
        preprocessing: transforms from a path under `image` to a tensor; generic ones if None, see `generic_steps`.
        channels: of the image and of the answer.
    """
    whole = card.whole
    loading = generic_steps(card) if preprocessing is None else exported_steps(list(preprocessing))
    window = {
        "_target_": "SlidingWindowInferer",
        "roi_size": list(card.spatial_shape),
        "sw_batch_size": 1,
        "overlap": 0.5,
    }
    answers = answer_steps(card, channels[1], preprocessing is not None)
    cases = "$sorted(glob.glob(@dataset_dir + '/*'))"
    if channels[0] > 1:
        # The channels of a case may be files of their own, in a folder.
        cases = (
            "$[sorted(glob.glob(case + '/*')) if os.path.isdir(case) else case "
            "for case in sorted(glob.glob(@dataset_dir + '/*'))]"
        )
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
        "imports": ["$import glob", "$import os", "$import numpy"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/input'",
        "output_dir": "$@bundle_root + '/output'",
        "datalist": cases,
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": dict(network_def),
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": loading,
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


def readme(card: BundleCard, sources: Sequence[Mapping[str, Any]], in_channels: int = 1) -> str:
    """The content of `docs/README.md`.

    Args:
        card: of the bundle.
        sources: what it was merged from: `name` and `sha256` each; may be empty.
        in_channels: of the image.
    """
    lines = [f"# {card.name}", "", card.description, "", f"Intended use: {card.intended_use}", ""]
    if sources:
        lines += ["## Merged from", "", "| source | SHA-256 of its weights |", "|---|---|"]
        lines += [f"| {source['name']} | `{source['sha256']}` |" for source in sources]
        lines += [
            "",
            "Method: MedMerge (arXiv:2403.11646), by the package monai_medmerge.",
            "",
        ]
    lines += ["## Answers", "", *answers_told(card, in_channels), ""]
    lines += [
        "## Inference",
        "",
        "```",
        "python -m monai.bundle run --config_file configs/inference.json --meta_file configs/metadata.json \\",
        "    --dataset_dir IMAGES --output_dir OUTPUT",
        "```",
        "",
    ]
    return "\n".join(lines)


def answers_told(card: BundleCard, in_channels: int) -> list[str]:
    """What goes in and what the answers mean, in sentences.

    Args:
        card: of the bundle.
        in_channels: of the image.
    """
    named = ", ".join(card.classes) or "each class"
    several = len(card.classes) != 1
    sense = {
        "softmax": "The classes exclude one another (softmax).",
        "sigmoid": "Each class is answered by itself (sigmoid): several may be there, or none.",
        "none": "The network's own answers are taken as they are (no activation).",
    }[card.activation]
    if card.whole:
        told = f"`OUTPUT/predictions.csv` has a row per image: its file, then the probability of {named}."
    elif card.overlapping or not several:
        told = f"`OUTPUT` has a map per image, 1 where the probability is {THRESHOLD} or more, of {named}"
        told += ", a picture for each." if len(card.spatial_shape) == 2 and several else ", a channel for each."
    else:
        told = f"`OUTPUT` has a label map per image, numbered from 0: {named}."
    files = f"An image of {in_channels} channels is one file, or a folder with a file for each, in the order of names."
    return [told, sense, *([files] if in_channels > 1 else [])]


def _packages(content: Any) -> dict[str, str]:
    text = json.dumps(content or {})
    needed = [name for name in PACKAGES if f'"{name}.' in text]
    return {name: version(name) for name in needed}
