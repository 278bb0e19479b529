"""Small bundles in the shapes that MONAI's conventions allow, each with its own data, ids and style.

Every function writes one into a folder: configs, an inference configuration and generated data. The texts are our
own; what they have in common with the model zoo's bundles is the ids, the nesting and the ways to refer.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

Config = dict[str, Any]
FROM_LOSS = "$monai.handlers.from_engine(['loss'], first=True)"
FROM_PAIR = "$monai.handlers.from_engine(['pred', 'label'])"
UNET = {
    "_target_": "UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 2, "channels": [4, 8], "strides": [2],
    "num_res_units": 1, "norm": "batch",
}  # fmt: skip


def write(folder: Path, **configs: Config) -> Path:
    """Configs as JSON files, or as YAML where the name ends in `_yaml`."""
    (folder / "configs").mkdir(parents=True, exist_ok=True)
    for name, content in configs.items():
        if name.endswith("_yaml"):
            text, file = yaml.safe_dump(content, sort_keys=False), f"{name.removesuffix('_yaml')}.yaml"
        else:
            text, file = json.dumps(content, indent=4), f"{name}.json"
        (folder / "configs" / file).write_text(text)
    return folder


def volumes(folder: Path, cases: int = 4, size: int = 16) -> None:
    """Cubes with a bright block, and the block as label."""
    rng = np.random.default_rng(5)
    for kind in ("imagesTr", "labelsTr"):
        (folder / "data" / kind).mkdir(parents=True, exist_ok=True)
    for case in range(cases):
        label = np.zeros((size,) * 3, np.float32)
        low = rng.integers(2, size // 2, 3)
        label[tuple(slice(a, a + 6) for a in low)] = 1
        image = label + rng.normal(0, 0.3, label.shape).astype(np.float32)
        np.save(folder / "data" / "imagesTr" / f"{case}.npy", image.astype(np.float32))
        np.save(folder / "data" / "labelsTr" / f"{case}.npy", label)


def pictures(folder: Path, cases: int = 12) -> None:
    """Grey squares, bright ones of class 1, listed in a JSON file."""
    rng = np.random.default_rng(6)
    (folder / "data").mkdir(parents=True, exist_ok=True)
    listed = []
    for case in range(cases):
        np.save(folder / "data" / f"{case}.npy", (rng.random((16, 16)) + case % 2).astype(np.float32))
        listed.append({"image": f"data/{case}.npy", "label": case % 2})
    (folder / "data" / "list.json").write_text(json.dumps(listed))


def inference(network: Config, checkpoint: str = "models/model.pt") -> Config:
    """An inference configuration as the zoo has them, as far as a checkpoint's loading goes."""
    return {
        "bundle_root": ".",
        "device": "$torch.device('cpu')",
        "network_def": network,
        "network": "$@network_def.to(@device)",
        "checkpoint": f"$@bundle_root + '/{checkpoint}'",
        "checkpointloader": {
            "_target_": "CheckpointLoader", "load_path": "@checkpoint", "load_dict": {"model": "@network"},
        },
        "inferer": {"_target_": "SimpleInferer"},
    }  # fmt: skip


def segmentation(folder: Path) -> Path:
    """Nested under `train` and `validate`, `#` in ids, macros, cached volumes, random crops, a sliding window."""
    volumes(folder, cases=6)
    keys = ["image", "label"]
    train = {
        "deterministic_transforms": [
            {"_target_": "LoadImaged", "keys": keys},
            {"_target_": "EnsureChannelFirstd", "keys": keys, "channel_dim": "no_channel"},
            {"_target_": "EnsureTyped", "keys": keys},
        ],
        "random_transforms": [
            {
                "_target_": "RandCropByPosNegLabeld", "keys": keys, "label_key": "label", "spatial_size": [8, 8, 8],
                "pos": 1, "neg": 1, "num_samples": 2,
            },
            {"_target_": "RandFlipd", "keys": keys, "prob": 0.5, "spatial_axis": 0},
        ],
        "preprocessing": {
            "_target_": "Compose", "transforms": "$@train#deterministic_transforms + @train#random_transforms",
        },
        "dataset": {
            "_target_": "CacheDataset",
            "data": "$[{'image': i, 'label': l} for i, l in zip(@images[:-2], @labels[:-2])]",
            "transform": "@train#preprocessing", "cache_rate": 1.0, "num_workers": 0, "progress": False,
        },
        "dataloader": {
            "_target_": "DataLoader", "dataset": "@train#dataset", "batch_size": 2, "shuffle": True, "num_workers": 0,
        },
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", "softmax": True},
                {"_target_": "AsDiscreted", "keys": ["pred", "label"], "argmax": [True, False], "to_onehot": 2},
            ],
        },
        "handlers": [
            {"_target_": "ValidationHandler", "validator": "@validate#evaluator", "epoch_level": True, "interval": 1},
            {"_target_": "StatsHandler", "tag_name": "train_loss", "output_transform": FROM_LOSS},
        ],
        "key_metric": {"train_accuracy": {"_target_": "ignite.metrics.Accuracy", "output_transform": FROM_PAIR}},
        "trainer": {
            "_target_": "SupervisedTrainer", "max_epochs": 2, "device": "@device",
            "train_data_loader": "@train#dataloader", "network": "@network", "loss_function": "@loss",
            "optimizer": "@optimizer", "inferer": "@train#inferer", "postprocessing": "@train#postprocessing",
            "key_train_metric": "@train#key_metric", "train_handlers": "@train#handlers", "amp": True,
        },
    }  # fmt: skip
    validate = {
        "preprocessing": {"_target_": "Compose", "transforms": "%train#deterministic_transforms"},
        "dataset": {
            "_target_": "Dataset", "data": "$[{'image': i, 'label': l} for i, l in zip(@images[-2:], @labels[-2:])]",
            "transform": "@validate#preprocessing",
        },
        "dataloader": {"_target_": "DataLoader", "dataset": "@validate#dataset", "batch_size": 1, "shuffle": False},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [8, 8, 8], "sw_batch_size": 4, "overlap": 0.25},
        "postprocessing": "%train#postprocessing",
        "handlers": [
            {"_target_": "StatsHandler", "iteration_log": False},
            {
                "_target_": "CheckpointSaver", "save_dir": "@ckpt_dir", "save_dict": {"model": "@network"},
                "save_key_metric": True, "key_metric_filename": "model.pt",
            },
        ],
        "key_metric": {
            "val_mean_dice": {"_target_": "MeanDice", "include_background": False, "output_transform": FROM_PAIR},
        },
        "evaluator": {
            "_target_": "SupervisedEvaluator", "device": "@device", "val_data_loader": "@validate#dataloader",
            "network": "@network", "inferer": "@validate#inferer", "postprocessing": "@validate#postprocessing",
            "key_val_metric": "@validate#key_metric", "val_handlers": "@validate#handlers", "amp": True,
        },
    }  # fmt: skip
    config = {
        "imports": ["$import glob", "$import os", "$import ignite"],
        "bundle_root": ".",
        "ckpt_dir": "$@bundle_root + '/models'",
        "dataset_dir": "$@bundle_root + '/data'",
        "images": "$list(sorted(glob.glob(@dataset_dir + '/imagesTr/*.npy')))",
        "labels": "$list(sorted(glob.glob(@dataset_dir + '/labelsTr/*.npy')))",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": UNET,
        "network": "$@network_def.to(@device)",
        "loss": {"_target_": "DiceCELoss", "to_onehot_y": True, "softmax": True},
        "optimizer": {"_target_": "torch.optim.Adam", "params": "$@network.parameters()", "lr": 0.01},
        "train": train,
        "validate": validate,
        "initialize": ["$monai.utils.set_determinism(seed=123)"],
        "run": ["$@train#trainer.run()"],
    }
    multi_gpu = {
        "device": "$torch.device('cpu')",
        "network": {
            "_target_": "torch.nn.parallel.DistributedDataParallel", "module": "$@network_def.to(@device)",
            "find_unused_parameters": True,
        },
        "train#sampler": {
            "_target_": "DistributedSampler", "dataset": "@train#dataset", "even_divisible": True, "shuffle": True,
        },
        "train#dataloader#sampler": "@train#sampler",
        "train#dataloader#shuffle": False,
        "train#trainer#train_handlers": "$@train#handlers[: -1 if dist.get_rank() > 0 else None]",
        "validate#sampler": {
            "_target_": "DistributedSampler", "dataset": "@validate#dataset", "even_divisible": False,
            "shuffle": False,
        },
        "validate#dataloader#sampler": "@validate#sampler",
        "validate#evaluator#val_handlers": "$None if dist.get_rank() > 0 else @validate#handlers",
        "initialize": [
            "$import torch.distributed as dist",
            "$dist.is_initialized() or dist.init_process_group(backend='gloo')",
            "$monai.utils.set_determinism(seed=123)",
            "$import logging",
            "$@train#trainer.logger.setLevel(logging.WARNING if dist.get_rank() > 0 else logging.INFO)",
        ],
        "run": ["$@train#trainer.run()"],
        "finalize": ["$dist.is_initialized() and dist.destroy_process_group()"],
    }  # fmt: skip
    return write(folder, train=config, multi_gpu_train=multi_gpu, inference=inference(UNET))


def classification(folder: Path) -> Path:
    """YAML, everything at the top level, a loader of the bundle's own checkpoint, its own run id, a loss that sums."""
    pictures(folder)
    network = {
        "_target_": "DenseNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 2, "init_features": 8,
        "growth_rate": 4, "block_config": [2, 2],
    }  # fmt: skip
    config = {
        "imports": ["$import os", "$import json", "$import torch"],
        "image": "$monai.utils.CommonKeys.IMAGE",
        "label": "$monai.utils.CommonKeys.LABEL",
        "pred": "$monai.utils.CommonKeys.PRED",
        "rank": 0,
        "is_not_rank0": "$@rank > 0",
        "num_epochs": 2,
        "device": "$torch.device('cpu')",
        "bundle_root": ".",
        "ckpt_path": "$@bundle_root + '/models/model.pt'",
        "output_dir": "$@bundle_root + '/results'",
        "network_def": network,
        "network": "$@network_def.to(@device)",
        "data_fp": "$open(@bundle_root + '/data/list.json', encoding='utf8')",
        "data_dict": "$json.load(@data_fp)",
        "partitions": "$monai.data.partition_dataset(@data_dict, (4, 1), shuffle=True, seed=0)",
        "base_transforms": [
            {"_target_": "LoadImaged", "keys": "@image"},
            {"_target_": "EnsureChannelFirstd", "keys": "@image", "channel_dim": "no_channel"},
        ],
        "train_transforms": [
            {"_target_": "RandRotate90d", "keys": "@image", "prob": 0.5},
            {"_target_": "RandGaussianNoised", "keys": "@image", "prob": 0.5, "std": 0.05},
            {"_target_": "ScaleIntensityd", "keys": "@image"},
        ],
        "preprocessing": {"_target_": "Compose", "transforms": "$@base_transforms + @train_transforms"},
        "val_preprocessing": {"_target_": "Compose", "transforms": "$@base_transforms"},
        "train_dataset": {"_target_": "Dataset", "data": "$@partitions[0]", "transform": "@preprocessing"},
        "val_dataset": {"_target_": "Dataset", "data": "$@partitions[1]", "transform": "@val_preprocessing"},
        "train_dataloader": {
            "_target_": "ThreadDataLoader", "dataset": "@train_dataset", "batch_size": 4, "repeats": 2,
            "num_workers": 0, "shuffle": True,
        },
        "val_dataloader": {"_target_": "DataLoader", "dataset": "@val_dataset", "batch_size": 4, "num_workers": 0},
        "lossfn": {"_target_": "torch.nn.CrossEntropyLoss", "reduction": "sum"},
        "optimizer": {"_target_": "torch.optim.SGD", "params": "$@network.parameters()", "lr": 0.001, "momentum": 0.9},
        "scheduler": {"_target_": "torch.optim.lr_scheduler.StepLR", "optimizer": "@optimizer", "step_size": 1},
        "inferer": {"_target_": "SimpleInferer"},
        "evaluator": {
            "_target_": "SupervisedEvaluator", "device": "@device", "val_data_loader": "@val_dataloader",
            "network": "@network",
            "key_val_metric": {
                "val_accuracy": {
                    "_target_": "ignite.metrics.Accuracy",
                    "output_transform": "$monai.handlers.from_engine([@pred, @label])",
                },
            },
            "val_handlers": [{"_target_": "StatsHandler", "name": None, "output_transform": "$lambda x: None"}],
        },
        "handlers": [
            {
                "_target_": "CheckpointLoader", "_disabled_": "$not os.path.exists(@ckpt_path)",
                "load_path": "@ckpt_path", "load_dict": {"model": "@network"},
            },
            {"_target_": "LrScheduleHandler", "lr_scheduler": "@scheduler", "print_lr": False},
            {"_target_": "ValidationHandler", "validator": "@evaluator", "epoch_level": True, "interval": 1},
            {
                "_target_": "CheckpointSaver", "_disabled_": "@is_not_rank0", "save_dir": "@output_dir",
                "save_dict": {"model": "@network", "optimizer": "@optimizer"}, "save_interval": 1,
                "save_final": True, "epoch_level": True,
            },
        ],
        "trainer": {
            "_target_": "SupervisedTrainer", "max_epochs": "@num_epochs", "device": "@device",
            "train_data_loader": "@train_dataloader", "network": "@network", "inferer": "@inferer",
            "loss_function": "@lossfn", "optimizer": "@optimizer", "key_train_metric": None,
            "train_handlers": "@handlers",
        },
        "training": ["$monai.utils.set_determinism(seed=7)", "$@trainer.run()"],
        "finalize": ["$@data_fp.close()"],
    }  # fmt: skip
    return write(folder, train_yaml=config, inference_yaml=inference(network))


def deep_supervision(folder: Path) -> Path:
    """A network that answers with a list, keys of its own, a `prepare_batch`, no id `network`."""
    volumes(folder)
    network = {
        "_target_": "SegResNetDS", "spatial_dims": 3, "in_channels": 1, "out_channels": 2, "init_filters": 8,
        "blocks_down": [1, 1], "dsdepth": 2,
    }  # fmt: skip
    config = {
        "imports": ["$import glob", "$from scripts.batches import scan_and_mask"],
        "bundle_root": ".",
        "device": "$torch.device('cpu')",
        "network_def": network,
        "cases": "$sorted(glob.glob(@bundle_root + '/data/imagesTr/*.npy'))",
        "items": "$[{'scan': c, 'mask': c.replace('imagesTr', 'labelsTr')} for c in @cases]",
        "optimizer": {"_target_": "torch.optim.AdamW", "params": "$@network_def.parameters()", "lr": 0.002},
        "loss": {
            "_target_": "DeepSupervisionLoss",
            "loss": {"_target_": "DiceFocalLoss", "to_onehot_y": True, "softmax": True},
        },
        "train": {
            "preprocessing": {
                "_target_": "Compose",
                "transforms": [
                    {"_target_": "LoadImaged", "keys": ["scan", "mask"]},
                    {"_target_": "EnsureChannelFirstd", "keys": ["scan", "mask"], "channel_dim": "no_channel"},
                    {"_target_": "RandGaussianNoised", "keys": "scan", "prob": 0.5},
                ],
            },
            "dataset": {"_target_": "Dataset", "data": "@items", "transform": "@train::preprocessing"},
            "dataloader": {"_target_": "DataLoader", "dataset": "@train::dataset", "batch_size": 2, "shuffle": True},
            "handlers": [
                {
                    "_target_": "CheckpointSaver", "save_dir": "$@bundle_root + '/models'",
                    "save_dict": {"model": "@network_def"}, "save_final": True, "final_filename": "model.pt",
                },
            ],
            "trainer": {
                "_target_": "SupervisedTrainer", "max_epochs": 1, "device": "@device",
                "train_data_loader": "@train::dataloader", "network": "@network_def", "loss_function": "@loss",
                "optimizer": "@optimizer", "prepare_batch": "$scan_and_mask", "train_handlers": "@train::handlers",
            },
        },
        "initialize": ["$monai.utils.set_determinism(seed=11)"],
        "run": ["$@train::trainer.run()"],
    }  # fmt: skip
    (folder / "scripts").mkdir()
    (folder / "scripts" / "batches.py").write_text(
        "def scan_and_mask(batch, device=None, non_blocking=False, **kwargs):\n"
        "    return batch['scan'].to(device), batch['mask'].to(device)\n"
    )
    return write(folder, train=config, inference=inference(network))


BUNDLES: dict[str, Callable[[Path], Path]] = {
    "segmentation": segmentation,
    "classification": classification,
    "deep_supervision": deep_supervision,
}
