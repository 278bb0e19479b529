"""Two small bundles as their teams might have written them, with data; nothing in them knows of MONAI Label."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from monai.bundle import ConfigParser
from PIL import Image
from safetensors.torch import save_file

Config = dict[str, Any]
CLASSES = ["background", "anterior", "posterior"]
KINDS = ["dark", "bright"]
UNET = {
    "_target_": "UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 3, "channels": [4, 8], "strides": [2],
    "num_res_units": 1,
}  # fmt: skip
SPACING = {"_target_": "Spacingd", "keys": "image", "pixdim": [1.5, 1.5, 1.5], "mode": "bilinear"}
FROM_LOSS = "$monai.handlers.from_engine(['loss'], first=True)"
FROM_PAIR = "$monai.handlers.from_engine(['pred', 'label'])"
ONE_HOT = [{"_target_": "AsDiscreted", "keys": ["pred", "label"], "argmax": [True, False], "to_onehot": 3}]


def _prepared(keys: list[str], spacing: Config) -> list[Config]:
    return [
        {"_target_": "LoadImaged", "keys": keys, "reader": "monai_medmerge.transforms.MedicalImageReader"},
        {"_target_": "EnsureChannelFirstd", "keys": keys},
        {"_target_": "Orientationd", "keys": keys, "axcodes": "RAS", "labels": None},
        spacing,
        {"_target_": "NormalizeIntensityd", "keys": "image"},
        {"_target_": "EnsureTyped", "keys": keys},
    ]


def segmentation(folder: Path, path_safe: bool = False) -> Path:
    """Volumes resampled, segmented in a sliding window and brought back; two sources and a network.

    Args:
        folder: to be made.
        path_safe: resample as a stock server needs it.
    """
    safe = {"_target_": "monai_medmerge.label.texts_aside.PathSafe", "transform": SPACING}
    inference = {
        "bundle_root": ".",
        "image": "",
        "output_dir": "$@bundle_root + '/output'",
        "device": "$torch.device('cpu')",
        "network_def": UNET,
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": _prepared(["image"], safe if path_safe else SPACING)},
        "dataset": {"_target_": "Dataset", "data": "$[{'image': @image}]", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset"},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [24, 24, 24], "overlap": 0.25},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
                {
                    "_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image",
                    "nearest_interp": True,
                },
                {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir", "separate_folder": False},
            ],
        },
        "checkpoint": {
            "_target_": "CheckpointLoader", "load_path": "$@bundle_root + '/models/model.pt'",
            "load_dict": {"model": "@network"},
        },
        "evaluator": {
            "_target_": "SupervisedEvaluator", "device": "@device", "val_data_loader": "@dataloader",
            "network": "@network", "inferer": "@inferer", "postprocessing": "@postprocessing",
            "val_handlers": ["@checkpoint"],
        },
        "run": ["$@evaluator.run()"],
    }  # fmt: skip
    keys = ["image", "label"]
    spacing = {**SPACING, "keys": keys, "mode": ["bilinear", "nearest"]}
    crop = {"_target_": "ResizeWithPadOrCropd", "keys": keys, "spatial_size": [24, 32, 24]}
    train = _training(
        [*_prepared(keys, spacing), crop], UNET, {"_target_": "DiceCELoss", "to_onehot_y": True, "softmax": True}
    )
    train["validate"]["postprocessing"] = {"_target_": "Compose", "transforms": ONE_HOT}
    train["validate"]["key_metric"] = {"dice": {"_target_": "MeanDice", "output_transform": FROM_PAIR}}
    shape = {"spatial_shape": [24, 24, 24], "format": "magnitude"}
    answer = {"format": "segmentation", "channel_def": {str(n): name for n, name in enumerate(CLASSES)}}
    return _write(folder, inference, train, shape, answer, UNET)


def classification(folder: Path) -> Path:
    """Pictures, dark and bright, told apart; logits as answer."""
    net = {"_target_": "DenseNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 2, "init_features": 4,
           "growth_rate": 4, "block_config": [1, 1]}  # fmt: skip
    prepared = [
        {"_target_": "LoadImaged", "keys": "image", "reader": "monai_medmerge.transforms.MedicalImageReader"},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": 0, "a_max": 255, "b_min": 0, "b_max": 1},
        {"_target_": "EnsureTyped", "keys": "image", "track_meta": False},
    ]
    inference = {
        "bundle_root": ".", "device": "$torch.device('cpu')", "network_def": net,
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": prepared},
        "inferer": {"_target_": "SimpleInferer"},
    }  # fmt: skip
    train = _training(prepared, net, {"_target_": "torch.nn.CrossEntropyLoss"})
    train["validate"]["key_metric"] = {
        "accuracy": {"_target_": "ignite.metrics.Accuracy", "output_transform": FROM_PAIR}
    }
    for part in ("train::trainer", "validate::evaluator"):
        outer, inner = part.split("::")
        train[outer][inner]["decollate"] = False
    shape = {"spatial_shape": [16, 16], "format": "magnitude"}
    answer = {"format": "classification", "channel_def": {str(n): name for n, name in enumerate(KINDS)}}
    return _write(folder, inference, train, shape, answer, net)


def _training(prepared: list[Config], network: Config, loss: Config) -> Config:
    def dataset(data: str) -> Config:
        return {"_target_": "Dataset", "data": data, "transform": "@preprocessing"}

    return {
        "imports": ["$import json", "$from pathlib import Path"],
        "bundle_root": ".",
        "class_names": "$json.loads(Path(@bundle_root, 'dataset.json').read_text())['class_names']",
        "initialization": "$@bundle_root + '/models/model.pt'",
        "device": "$torch.device('cpu')",
        "epochs": 3,
        "network_def": network,
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": prepared},
        "optimizer": {"_target_": "torch.optim.Adam", "params": "$@network.parameters()", "lr": 0.01},
        "lr_scheduler": {
            "_target_": "torch.optim.lr_scheduler.CosineAnnealingLR", "optimizer": "@optimizer", "T_max": "@epochs",
        },
        "train": {
            "dataset": dataset("$json.loads(Path(@bundle_root, 'dataset.json').read_text())['training']"),
            "dataloader": {"_target_": "DataLoader", "dataset": "@train::dataset", "batch_size": 2, "shuffle": True},
            "handlers": [
                {"_target_": "LrScheduleHandler", "lr_scheduler": "@lr_scheduler", "print_lr": False},
                {
                    "_target_": "ValidationHandler", "validator": "@validate::evaluator", "interval": 2,
                    "epoch_level": True,
                },
                {"_target_": "StatsHandler", "tag_name": "train_loss", "output_transform": FROM_LOSS},
            ],
            "trainer": {
                "_target_": "SupervisedTrainer", "max_epochs": "@epochs", "device": "@device",
                "train_data_loader": "@train::dataloader", "network": "@network", "optimizer": "@optimizer",
                "loss_function": loss, "train_handlers": "@train::handlers",
            },
        },
        "validate": {
            "dataset": dataset("$json.loads(Path(@bundle_root, 'dataset.json').read_text())['validation']"),
            "dataloader": {"_target_": "DataLoader", "dataset": "@validate::dataset"},
            "handlers": [
                {
                    "_target_": "CheckpointSaver", "save_dir": "$@bundle_root + '/models'",
                    "save_dict": {"model": "@network"}, "save_key_metric": True,
                    "key_metric_filename": "model_finetuned.pt",
                },
            ],
            "evaluator": {
                "_target_": "SupervisedEvaluator", "device": "@device", "val_data_loader": "@validate::dataloader",
                "network": "@network", "key_val_metric": "@validate::key_metric",
                "postprocessing": "@validate::postprocessing", "val_handlers": "@validate::handlers",
            },
            "postprocessing": None,
        },
        "initialize": [
            "$monai.utils.set_determinism(seed=0)",
            "$print('classes', len(@class_names))",
            "$@network.load_state_dict(torch.load(@initialization))",
        ],
        "run": ["$@train::trainer.run()"],
    }  # fmt: skip


def _write(folder: Path, inference: Config, train: Config, image: Config, answer: Config, network: Config) -> Path:
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    ends = {"inputs": {"image": image}, "outputs": {"pred": answer}}
    metadata = {"version": "0.1.0", "description": "A small bundle", "network_data_format": ends}
    for name, content in {"inference": inference, "train": train, "metadata": metadata}.items():
        (folder / "configs" / f"{name}.json").write_text(json.dumps(content, indent=4))
    for seed, name in enumerate(("first.safetensors", "second.safetensors")):
        save_file(_weights(network, seed), folder / "models" / name)
    torch.save(_weights(network, 2), folder / "models" / "model.pt")
    return folder


def _weights(network: Config, seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    made = ConfigParser({"network": network}).get_parsed_content("network")
    return {name: tensor.contiguous() for name, tensor in made.state_dict().items()}


def volumes(folder: Path, cases: int) -> Path:
    """Oblique volumes of unlike sizes with two bright blocks, and the blocks as label, in `images` and `labels`."""
    rng = np.random.default_rng(5)
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    turn = np.array([[0.96, -0.28, 0, 4], [0.28, 0.96, 0, -9], [0, 0, -1, 30], [0, 0, 0, 1.0]])
    for case in range(cases):
        label = np.zeros((30 + case, 36, 20), np.uint8)
        low = rng.integers(3, 8, 3)
        label[tuple(slice(a, a + 6) for a in low)] = 1
        label[tuple(slice(a + 8, a + 13) for a in low)] = 2
        image = 400 * (label > 0) + 300 * (label == 2) + rng.normal(0, 60, label.shape)
        affine = turn @ np.diag([1.0, 1.2, 2.0, 1.0])
        nibabel.save(nibabel.Nifti1Image(image.astype(np.float32), affine), folder / "images" / f"case{case}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(label, affine), folder / "labels" / f"case{case}.nii.gz")
    return folder


def pictures(folder: Path, cases: int) -> Path:
    """Grey pictures; those of odd number are bright. A JSON file names the class of each, in `images` and `labels`."""
    rng = np.random.default_rng(6)
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for case in range(cases):
        grey = rng.integers(0, 120, (16, 16)) + 120 * (case % 2)
        Image.fromarray(grey.astype(np.uint8)).save(folder / "images" / f"picture{case}.png")
        (folder / "labels" / f"picture{case}.json").write_text(json.dumps({"label": KINDS[case % 2]}))
    return folder
