"""Small bundles of unusual training: an iteration of their own, a network inside a detector, data that streams once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bundle.overlay.zoo_bundles import inference, write

POINTS = {"_target_": "scripts.points.PointNet"}
SQUARES = {
    "_target_": "monai.networks.nets.BasicUNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 2,
    "features": [4, 4, 8, 8, 8, 4], "norm": "batch",
}  # fmt: skip


def mixed_precision(folder: Path) -> Path:
    """An iteration of its own: tuples of tensors, autocast to bfloat16 on the CPU, a scaler from the configuration."""
    network = {
        "_target_": "ResNet", "block": "basic", "layers": [1, 1, 1, 1], "block_inplanes": [4, 8, 8, 8],
        "spatial_dims": 2, "n_input_channels": 1, "num_classes": 2,
    }  # fmt: skip
    config = {
        "imports": ["$import functools", "$from scripts.steps import step"],
        "bundle_root": ".",
        "device": "$torch.device('cpu')",
        "network_def": network,
        "network": "$@network_def.to(@device)",
        "losses": [
            {"_target_": "torch.nn.CrossEntropyLoss"},
            {"_target_": "torch.nn.MultiMarginLoss"},
        ],
        "scaler": {"_target_": "torch.amp.GradScaler", "device": "cpu", "init_scale": 1024.0, "growth_interval": 2},
        "optimizer": {"_target_": "torch.optim.SGD", "params": "$@network.parameters()", "lr": 0.01},
        "train": {
            "dataset": {"_target_": "scripts.steps.Squares", "cases": 12},
            "dataloader": {
                "_target_": "torch.utils.data.DataLoader", "dataset": "@train#dataset", "batch_size": 4,
                "shuffle": True, "generator": "$torch.Generator().manual_seed(3)",
            },
            "handlers": [
                {
                    "_target_": "CheckpointSaver", "save_dir": "$@bundle_root + '/models'",
                    "save_dict": {"model": "@network"}, "save_final": True, "final_filename": "model.pt",
                },
            ],
            "trainer": {
                "_target_": "SupervisedTrainer", "max_epochs": 2, "device": "@device",
                "train_data_loader": "@train#dataloader", "network": "@network", "loss_function": "$@losses[0]",
                "optimizer": "@optimizer", "train_handlers": "@train#handlers", "decollate": False,
                "iteration_update": "$functools.partial(step, losses=@losses, scaler=@scaler)",
            },
        },
        "initialize": ["$monai.utils.set_determinism(seed=5)"],
        "run": ["$@train#trainer.run()"],
    }  # fmt: skip
    (folder / "scripts").mkdir(parents=True)
    (folder / "scripts" / "steps.py").write_text(STEPS)
    return write(folder, train=config, inference=inference(network))


STEPS = """
import numpy as np
import torch


class Squares(torch.utils.data.Dataset):
    def __init__(self, cases):
        self.cases, self.noise = cases, np.random.default_rng(1)

    def __len__(self):
        return self.cases

    def __getitem__(self, index):
        image = torch.full((1, 32, 32), float(index % 2))
        return image + torch.from_numpy(self.noise.normal(0, 0.1, image.shape)).float(), index % 2


def step(engine, batch, losses, scaler):
    images, labels = batch
    engine.network.train()
    engine.optimizer.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        answers = engine.network(images)
    loss = sum(function(answers.float(), labels) for function in losses)
    scaler.scale(loss).backward()
    scaler.step(engine.optimizer)
    scaler.update()
    return {"image": images, "label": labels, "pred": answers, "loss": loss.detach()}
"""


def detection(folder: Path) -> Path:
    """A trainer of the bundle's own that has `detector` and no `network`; a batch-norm layer that is never run."""
    config = {
        "imports": ["$import monai"],
        "bundle_root": ".",
        "device": "$torch.device('cpu')",
        "network_def": POINTS,
        "network": "$@network_def.to(@device)",
        "detector": {"_target_": "scripts.points.Detector", "network": "@network"},
        "detector_ops": ["$@detector.set_target_keys(point_key='point')"],
        "optimizer": {"_target_": "torch.optim.SGD", "params": "$@detector.network.parameters()", "lr": 0.01},
        "train": {
            "dataset": {"_target_": "scripts.points.Points", "cases": 8},
            "dataloader": {
                "_target_": "DataLoader", "dataset": "@train#dataset", "batch_size": 2, "shuffle": True,
                "collate_fn": "$monai.data.utils.no_collation",
            },
            "handlers": [
                {
                    "_target_": "CheckpointSaver", "save_dir": "$@bundle_root + '/models'",
                    "save_dict": {"model": "@network"}, "save_final": True, "final_filename": "model.pt",
                },
            ],
            "trainer": {
                "_target_": "scripts.points.DetectionTrainer", "_requires_": "@detector_ops", "max_epochs": 2,
                "device": "@device", "train_data_loader": "@train#dataloader", "detector": "@detector",
                "optimizer": "@optimizer", "train_handlers": "@train#handlers",
            },
        },
        "initialize": ["$monai.utils.set_determinism(seed=2)"],
        "run": ["$@train#trainer.run()"],
    }  # fmt: skip
    (folder / "scripts").mkdir()
    (folder / "scripts" / "points.py").write_text(DETECTOR)
    return write(folder, train=config, inference=inference(POINTS))


DETECTOR = """
import torch
from monai.engines import Trainer
from torch import nn


class Points(torch.utils.data.Dataset):
    def __init__(self, cases):
        self.cases = cases

    def __len__(self):
        return self.cases

    def __getitem__(self, index):
        image = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(index))
        image[0, index, 15 - index] += 5
        return {"image": image, "point": torch.tensor([index, 15 - index]) / 16}


class PointNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 3, 2))
        self.norm = nn.BatchNorm2d(8)
        self.classes = nn.BatchNorm2d(8)
        self.head = nn.Linear(8 * 9, 2)

    def forward(self, image):
        return {"points": self.head(self.norm(self.body(image)).flatten(1))}


class Detector(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def set_target_keys(self, point_key):
        self.point_key = point_key

    def forward(self, images, targets):
        found = self.network(torch.stack(images))["points"]
        return {"distance": (found - torch.stack([target[self.point_key] for target in targets])).square().mean()}


class DetectionTrainer(Trainer):
    def __init__(self, device, max_epochs, train_data_loader, detector, optimizer, train_handlers):
        super().__init__(device=device, max_epochs=max_epochs, data_loader=train_data_loader, handlers=train_handlers)
        self.detector = detector
        self.optimizer = optimizer

    def _iteration(self, engine, batch):
        engine.detector.train()
        engine.optimizer.zero_grad()
        loss = engine.detector([item["image"] for item in batch], batch)["distance"]
        loss.backward()
        engine.optimizer.step()
        return {"loss": loss.item()}
"""


def stream(folder: Path) -> Path:
    """An iterator as data, which can be gone through once; a handler writes down which samples it was given."""
    config = {
        "imports": ["$from scripts.stream import sample"],
        "bundle_root": ".",
        "device": "$torch.device('cpu')",
        "network_def": SQUARES,
        "network": "$@network_def.to(@device)",
        "numbers": "$iter(range(8))",
        "samples": "$map(sample, @numbers)",
        "optimizer": {"_target_": "torch.optim.Adam", "params": "$@network.parameters()", "lr": 0.01},
        "train": {
            "dataset": {
                "_target_": "IterableDataset", "data": "@samples",
                "transform": {"_target_": "RandGaussianNoised", "keys": "image", "prob": 0.5},
            },
            "dataloader": {"_target_": "DataLoader", "dataset": "@train#dataset", "batch_size": 2},
            "handlers": [
                {
                    "_target_": "CheckpointSaver", "save_dir": "$@bundle_root + '/models'",
                    "save_dict": {"model": "@network"}, "save_final": True, "final_filename": "model.pt",
                },
                {"_target_": "scripts.stream.Seen", "file": "$@bundle_root + '/seen.json'"},
            ],
            "trainer": {
                "_target_": "SupervisedTrainer", "max_epochs": 1, "device": "@device",
                "train_data_loader": "@train#dataloader", "network": "@network", "optimizer": "@optimizer",
                "loss_function": {"_target_": "DiceCELoss", "to_onehot_y": True, "softmax": True},
                "train_handlers": "@train#handlers",
            },
        },
        "initialize": ["$monai.utils.set_determinism(seed=3)"],
        "run": ["$@train#trainer.run()"],
    }  # fmt: skip
    (folder / "scripts").mkdir()
    (folder / "scripts" / "stream.py").write_text(STREAM)
    return write(folder, train=config, inference=inference(SQUARES))


STREAM = """
import json
from pathlib import Path

import torch
from ignite.engine import Events


def sample(number):
    label = torch.zeros(1, 32, 32)
    label[:, number : number + 8, 4:16] = 1
    return {"image": label + torch.rand(1, 32, 32), "label": label, "number": number}


class Seen:
    def __init__(self, file):
        self.file, self.numbers = Path(file), []

    def attach(self, engine):
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def __call__(self, engine):
        self.numbers += [int(item["number"]) for item in engine.state.batch]

    def write(self):
        self.file.write_text(json.dumps(self.numbers))
"""


def two_optimizers(folder: Path) -> Path:
    """YAML, no usual id but `model`, a trainer with a list of optimizers, a scaler for both, no validation."""
    model = {
        "_target_": "DenseNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 3, "init_features": 8,
        "growth_rate": 4, "block_config": [2, 2],
    }  # fmt: skip
    config = {
        "imports": ["$import functools", "$from scripts.pairs import step"],
        "root": ".",
        "model": model,
        "scaler": {"_target_": "torch.amp.GradScaler", "device": "cpu", "init_scale": 64.0},
        "optimizers": [
            {"_target_": "torch.optim.AdamW", "params": "$@model.features.parameters()", "lr": 0.001},
            {"_target_": "torch.optim.SGD", "params": "$@model.class_layers.parameters()", "lr": 0.01},
        ],
        "fit": {
            "pairs": {"_target_": "scripts.pairs.Pairs"},
            "loader": {
                "_target_": "torch.utils.data.DataLoader", "dataset": "@fit#pairs", "batch_size": 4, "shuffle": True,
            },
            "engine": {
                "_target_": "SupervisedTrainer", "device": "$torch.device('cpu')", "max_epochs": 1,
                "train_data_loader": "@fit#loader", "network": "@model", "optimizer": "@optimizers",
                "loss_function": {"_target_": "torch.nn.CrossEntropyLoss"}, "decollate": False,
                "iteration_update": "$functools.partial(step, scaler=@scaler)",
                "train_handlers": [
                    {
                        "_target_": "CheckpointSaver", "save_dir": "$@root + '/models'",
                        "save_dict": {"model": "@model"}, "save_final": True, "final_filename": "model.pt",
                    },
                ],
            },
        },
        "go": ["$monai.utils.set_determinism(seed=1)", "$@fit#engine.run()"],
    }  # fmt: skip
    (folder / "scripts").mkdir()
    (folder / "scripts" / "pairs.py").write_text(PAIRS)
    return write(folder, train_yaml=config, inference_yaml=inference(model))


PAIRS = """
import torch


class Pairs(torch.utils.data.Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, index):
        return torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(index)) + index % 3, index % 3


def step(engine, batch, scaler, optimizers=None):
    images, labels = batch
    optimizers = engine.optimizer if optimizers is None else optimizers
    engine.network.train()
    for optimizer in optimizers:
        optimizer.zero_grad()
    loss = engine.loss_function(engine.network(images), labels)
    scaler.scale(loss).backward()
    for optimizer in optimizers:
        scaler.step(optimizer)
    scaler.update()
    return {"loss": loss}
"""

BUNDLES: dict[str, Callable[[Path], Path]] = {
    "mixed_precision": mixed_precision,
    "detection": detection,
    "stream": stream,
    "two_optimizers": two_optimizers,
}
