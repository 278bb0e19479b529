"""What merging brings to a new task with few labels: one JSON line per run, resumable and safe to kill.

    python -m benchmarks.transfer --output transfer.jsonl --targets breastmnist brain_mri chest_xray \
        --methods merged merged_aligned_by_weights merged_aligned_by_activations --labels 120 --seeds 0 1 2 3 4

The data is found through MEDMERGE_DATA. A source that was trained on a target's images takes no part there. All methods
of one target, budget and seed see the same labelled images and take the same number of optimisation steps; the test
images are read once, at the end of a run. Cases whose line is in the file already are not run again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import CacheDataset, DataLoader
from monai.networks.nets import ResNet
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    NormalizeIntensityd,
    RandAffined,
    RandFlipd,
    RandScaleIntensityd,
    RandShiftIntensityd,
    Resized,
)
from torch import nn

from monai_medmerge import Source, fold, merge, recalibrate
from monai_medmerge.bundle import align_sources, label_budget
from monai_medmerge.engines import CoefficientTrainer, FineTuner, LinearProbeTrainer
from monai_medmerge.evaluation import macro_f1, predict
from monai_medmerge.handlers import EpochSeedHandler

MODELS = Path(__file__).parent.parent / "bundles" / "medmerge_classification" / "models"
SOURCES = ("natural", "chest_xray", "brain_mri")
HEAD = ["fc.*"]
EPOCHS = {"probe": 10, "coefficients": 20, "finetune": 20}

Items = list[dict[str, Any]]


@dataclass(frozen=True)
class Target:
    """A task: where its images are, and which source must not be used."""

    file: str
    excluded: str = ""

    @property
    def sources(self) -> list[Source]:
        """Those that have not seen its images."""
        return [Source.from_file(MODELS / f"{name}.safetensors") for name in SOURCES if name != self.excluded]


TARGETS = {
    "breastmnist": Target("medmnist/breastmnist.npz"),
    "brain_mri": Target("classification_64/brain_tumor_mri_64.npz", "brain_mri"),
    "chest_xray": Target("classification_64/kermany_chest_xray_64.npz", "chest_xray"),
}


@dataclass(frozen=True)
class Method:
    """How a run begins: what is aligned and how coefficients are learned; one source makes it LP-FT."""

    alignment: str = "none"
    learns: bool = True
    source: int | None = None


METHODS = {
    "merged": Method(),
    "merged_aligned_by_weights": Method("weights"),
    "merged_aligned_by_activations": Method("activations"),
    "uniform": Method(learns=False),
    "uniform_aligned_by_weights": Method("weights", learns=False),
    "uniform_aligned_by_activations": Method("activations", learns=False),
    **{f"lp_ft_source_{n}": Method(learns=False, source=n) for n in range(len(SOURCES))},
}


def build(classes: int) -> nn.Module:
    """The network of the shipped sources."""
    return ResNet("basic", [2, 2, 2, 2], [16, 32, 64, 128], 2, 1, conv1_t_size=7, conv1_t_stride=2, num_classes=classes)


def read(target: Target) -> tuple[Items, Items, int]:
    """Training and test items of a target, and its number of classes."""
    with np.load(Path(os.environ["MEDMERGE_DATA"], target.file), allow_pickle=False) as data:
        if "split" in data:
            images, labels, test = data["images"], data["labels"], data["split"] == "test"
            parts = [(images[~test], labels[~test]), (images[test], labels[test])]
        else:
            parts = [(data[f"{split}_images"], data[f"{split}_labels"].ravel()) for split in ("train", "test")]
    # MONAI reads image files as (column, row), and the sources were trained on them so.
    training, test_items = (
        [{"image": image.T.astype(np.float32), "label": int(label)} for image, label in zip(*part, strict=True)]
        for part in parts
    )
    return training, test_items, len(np.unique(parts[0][1]))


def loaders(target: Target, labels: int, seed: int) -> tuple[DataLoader, DataLoader, DataLoader, int]:
    """Training, calibration and test batches, and the number of classes."""
    training, test, classes = read(target)
    chosen = label_budget(training, labels or None, seed)
    fixed = [
        EnsureChannelFirstd(keys="image", channel_dim="no_channel"),
        Resized(keys="image", spatial_size=(64, 64), mode="bilinear", anti_aliasing=True),
        NormalizeIntensityd(keys="image"),
    ]
    random = [
        RandFlipd(keys="image", prob=0.5, spatial_axis=0),
        RandAffined(
            keys="image", prob=0.8, rotate_range=0.175, scale_range=(0.1, 0.1), translate_range=4.0,
            padding_mode="border",
        ),
        RandScaleIntensityd(keys="image", factors=0.2, prob=0.5),
        RandShiftIntensityd(keys="image", offsets=0.2, prob=0.5),
    ]  # fmt: skip

    def loader(items: Items, transforms: list[Callable[..., Any]], size: int, shuffle: bool = False) -> DataLoader:
        dataset = CacheDataset(items, transform=Compose(transforms), num_workers=1, progress=False)
        return DataLoader(dataset, batch_size=size, shuffle=shuffle, num_workers=0)

    return loader(chosen, fixed + random, 16, True), loader(chosen, fixed, 64), loader(test, fixed, 64), classes


def run(target_name: str, labels: int, seed: int, method_name: str) -> dict[str, Any]:
    """One case: merge, probe, learn, fold, fine-tune; macro F1 on the test images before and after fine-tuning."""
    target, method = TARGETS[target_name], METHODS[method_name]
    training, calibration, test, classes = loaders(target, labels, seed)
    start = time.monotonic()
    torch.manual_seed(seed)
    network, sources = build(classes), target.sources
    sources = sources if method.source is None else [sources[method.source]]
    sources = align_sources(network, sources, method.alignment, calibration)
    merged = recalibrate(merge(network, sources, constraint="free", exclude=HEAD), calibration)
    # What is not spent on coefficients goes into fine-tuning.
    learning = EPOCHS["coefficients"] if method.learns else 0
    common: dict[str, Any] = {"train_data_loader": training, "loss_function": nn.CrossEntropyLoss()}

    def seeds(phase: int) -> list[EpochSeedHandler]:
        return [EpochSeedHandler(10 * seed + phase, training.dataset)]

    LinearProbeTrainer(merged, max_epochs=EPOCHS["probe"], head=HEAD, train_handlers=seeds(0), **common).run()
    CoefficientTrainer(merged, max_epochs=learning, train_handlers=seeds(1), **common).run()
    folded = recalibrate(fold(merged), calibration)
    before = predict(folded, test)
    epochs = EPOCHS["finetune"] + EPOCHS["coefficients"] - learning
    FineTuner(folded, max_epochs=epochs, train_handlers=seeds(2), **common).run()
    after = predict(folded, test)
    scores = [macro_f1(found.argmax(1).numpy(), truth.numpy(), classes) for found, truth in (before, after)]
    return {
        "target": target_name, "labels": labels, "seed": seed, "method": method_name,
        "sources": [source.name for source in sources], "not_fine_tuned": round(scores[0], 5),
        "fine_tuned": round(scores[1], 5), "seconds": round(time.monotonic() - start, 1),
    }  # fmt: skip


def main() -> None:
    """Run what is asked for and not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("transfer.jsonl"))
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["merged", "uniform"])
    parser.add_argument("--labels", type=int, nargs="+", default=[120])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    arguments = parser.parse_args()
    # A small network is as fast on one thread, and the result does not depend on how many there are.
    torch.set_num_threads(1)
    lines = arguments.output.read_text().splitlines() if arguments.output.exists() else []
    done = {tuple(json.loads(line)[key] for key in ("target", "labels", "seed", "method")) for line in lines if line}
    # Seeds turn slowest, so that a run cut short has every method at the same seeds.
    cases = itertools.product(arguments.seeds, arguments.labels, arguments.targets, arguments.methods)
    for seed, labels, target, method in cases:
        if (target, labels, seed, method) not in done:
            line = json.dumps(run(target, labels, seed, method))
            with arguments.output.open("a") as file:
                file.write(line + "\n")
            print(line, flush=True)


if __name__ == "__main__":
    main()
