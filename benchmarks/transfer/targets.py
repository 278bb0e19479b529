"""Targets: images of a new task, split once, and the sources that have not seen them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from monai.networks.nets import ResNet
from torch import Tensor, nn
from torch.nn.functional import interpolate

from benchmarks.transfer.related import related_source
from monai_medmerge import Source
from monai_medmerge.bundle import label_budget
from monai_medmerge.sources import adapt

MODELS = Path(__file__).parents[2] / "bundles" / "medmerge_classification" / "models"
SOURCES = ("natural", "chest_xray", "brain_mri")
HEAD = ["fc.*"]
SIZE = 64
HELD_OUT = 300
"""Training images that choose learning rates, where a set has no validation part of its own."""


class Images(NamedTuple):
    """Standardised images (case, channel, 64, 64) and their labels (case,)."""

    images: Tensor
    labels: Tensor


class Parts(NamedTuple):
    """A target's images, split."""

    training: Images
    validation: Images
    test: Images
    test_patients: np.ndarray
    """Number of the patient of every test image; of the image itself where patients are not known."""
    shared: tuple[Images, ...] = ()
    """Of the target's own sources."""


@dataclass(frozen=True)
class Target:
    """A task.

    Args:
        name: of the target.
        file: under MEDMERGE_DATA.
        channels: of its images.
        excluded: a source trained on the same images, which must not take part.
        related: classes that each of its own sources tells apart, if it has such; they take the shipped sources' place,
            and each is trained on a share of the training patients that then are no part of the target.
        ancestor: the shipped source that training of its own sources starts from; random weights of a seed each if
            empty.
    """

    name: str
    file: str
    channels: int = 1
    excluded: str = ""
    related: tuple[tuple[int, ...], ...] = ()
    ancestor: str = ""

    @property
    def source_names(self) -> tuple[str, ...]:
        """Those that have not seen its images."""
        if self.related:
            return tuple(f"{self.name}_{''.join(map(str, classes))}" for classes in self.related)
        return tuple(name for name in SOURCES if name != self.excluded)

    @property
    def sources(self) -> list[Source]:
        """The same, loaded and adapted to its channels."""
        if self.related:
            return [self._related(n) for n in range(len(self.related))]
        return [adapt(self.network(), shipped(name)) for name in self.source_names]

    def _related(self, number: int) -> Source:
        classes, part = self.related[number], load(self).shared[number]
        labels = torch.tensor([classes.index(label) for label in part.labels.tolist()])
        torch.manual_seed(number)
        network = build(len(classes), self.channels)
        ancestor = shipped(self.ancestor) if self.ancestor else None
        return related_source(self.source_names[number], network, part.images, labels, ancestor, number)

    @property
    def classes(self) -> int:
        """How many there are."""
        return len(torch.unique(load(self).training.labels))

    def network(self) -> nn.Module:
        """The network of the shipped sources, with this target's channels and classes, at random."""
        return build(self.classes, self.channels)

    def labelled(self, labels: int, seed: int) -> Images:
        """The training images of a budget, classes in proportion; 0 labels means all."""
        training = load(self).training
        items = [{"label": int(label), "index": n} for n, label in enumerate(training.labels)]
        chosen = torch.tensor([item["index"] for item in label_budget(items, labels or None, seed)])
        return Images(training.images[chosen], training.labels[chosen])


def build(classes: int, channels: int = 1) -> nn.Module:
    """The network of the shipped sources, at random."""
    return ResNet(
        "basic", [2, 2, 2, 2], [16, 32, 64, 128], 2, channels,
        conv1_t_size=7, conv1_t_stride=2, num_classes=classes,
    )  # fmt: skip


TARGETS = {
    target.name: target
    for target in (
        Target("breastmnist", "medmnist/breastmnist.npz"),
        Target("retinamnist", "medmnist/retinamnist.npz", channels=3),
        Target("brain_mri", "classification_64/brain_tumor_mri_64.npz", excluded="brain_mri"),
        Target("kermany", "classification_64/kermany_chest_xray_64.npz", excluded="chest_xray"),
    )
}
"""Targets for the shipped sources."""
KERMANY, BRAIN = TARGETS["kermany"].file, TARGETS["brain_mri"].file
RELATED = {
    target.name: target
    for target in (
        Target("kermany_kin", KERMANY, related=((0, 1), (0, 2)), ancestor="natural"),
        Target("brain_kin", BRAIN, related=((0, 1), (2, 3)), ancestor="natural"),
        Target("kermany_strangers", KERMANY, related=((0, 1), (0, 2))),
        Target("brain_strangers", BRAIN, related=((0, 1), (2, 3))),
    )
}
"""Targets with sources that each know part of them: kin grew from one ancestor, strangers from seeds of their own."""


def all_source_names() -> tuple[str, ...]:
    """Of every target."""
    return (*SOURCES, *(name for target in RELATED.values() for name in target.source_names))


def shipped(name: str) -> Source:
    """A source of the classification bundle."""
    return Source.from_file(MODELS / f"{name}.safetensors")


@lru_cache(maxsize=1)
def load(target: Target) -> Parts:
    """Read and split a target."""
    with np.load(Path(os.environ["MEDMERGE_DATA"], target.file), allow_pickle=False) as data:
        if "split" not in data:
            training, validation, test = (
                _prepared(data[f"{split}_images"], data[f"{split}_labels"].ravel())
                for split in ("train", "val", "test")
            )
            return Parts(training, validation, test, np.arange(len(test.labels)))
        images, labels, test = data["images"], data["labels"], data["split"] == "test"
        groups = data["group"] if "group" in data else np.arange(len(labels))
        held_out = ~test & np.isin(groups, _first_groups(groups[~test]))
        training, shared = ~test & ~held_out, []
        if target.related:
            share = _shares(groups, training, len(target.related))
            shared = [(share == n) & np.isin(labels, classes) for n, classes in enumerate(target.related)]
            training &= share == len(target.related)
        patients = np.unique(groups[test], return_inverse=True)[1]
        training, validation, test, *own = (
            _prepared(images[mask], labels[mask]) for mask in (training, held_out, test, *shared)
        )
        return Parts(training, validation, test, patients, tuple(own))


def _shares(groups: np.ndarray, training: np.ndarray, sources: int) -> np.ndarray:
    """For every training image the number of the source whose patients it is of, or one more: the target's; else -1."""
    names, inverse = np.unique(groups[training], return_inverse=True)
    share = np.full(len(groups), -1)
    share[training] = (np.random.default_rng(1).permutation(len(names)) % (sources + 1))[inverse]
    return share


def _first_groups(groups: np.ndarray) -> np.ndarray:
    """Groups (patients, where they are known) of about HELD_OUT images, drawn once and for all."""
    names, counts = np.unique(groups, return_counts=True)
    order = np.random.default_rng(0).permutation(len(names))
    return names[order[: np.searchsorted(counts[order].cumsum(), HELD_OUT) + 1]]


def _prepared(images: np.ndarray, labels: np.ndarray) -> Images:
    found = torch.from_numpy(images.astype(np.float32))
    found = found[:, None] if found.ndim == 3 else found.movedim(3, 1)
    # MONAI reads image files as (column, row), and the sources were trained on them so.
    found = found.transpose(2, 3)
    if found.shape[2:] != (SIZE, SIZE):
        found = interpolate(found, (SIZE, SIZE), mode="bilinear", antialias=True)
    deviation, mean = torch.std_mean(found, dim=(1, 2, 3), keepdim=True, correction=0)
    return Images((found - mean) / deviation.clamp(min=1e-6), torch.from_numpy(labels.astype(np.int64)))
