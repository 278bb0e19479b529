"""Batches that all methods train on: the same images, augmentation and number of steps."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

BATCH = 16


class Batches:
    """Shuffled, augmented batches; every pass over them is `steps` long, however many images there are.

    Args:
        images: standardised, (case, channel, height, width).
        labels: class numbers.
        steps: batches of a pass.
        seed: of order and augmentation; each pass draws anew.
    """

    def __init__(self, images: Tensor, labels: Tensor, steps: int, seed: int) -> None:
        self.images, self.labels, self.steps = images, labels, steps
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        count = len(self.labels)
        wanted = self.steps * BATCH
        orders = [torch.randperm(count, generator=self.generator) for _ in range(math.ceil(wanted / count))]
        for index in torch.cat(orders)[:wanted].split(BATCH):
            yield {"image": augmented(self.images[index], self.generator), "label": self.labels[index]}


def plain(images: Tensor, labels: Tensor, size: int = 64) -> list[dict[str, Tensor]]:
    """All images once, as they are."""
    parts = zip(images.split(size), labels.split(size), strict=True)
    return [{"image": image, "label": label} for image, label in parts]


def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Flip, rotate by up to 10 degrees, scale by 10 %, shift by 4 pixels; contrast and brightness by 20 %.

    Args:
        images: (case, channel, height, width), standardised.
        generator: of everything random.
    """
    count = len(images)

    def uniform(width: float) -> Tensor:
        return (2 * torch.rand(count, generator=generator) - 1) * width

    def sometimes(values: Tensor, chance: float, otherwise: float) -> Tensor:
        return torch.where(torch.rand(count, generator=generator) < chance, values, torch.tensor(otherwise))

    angle, scale = sometimes(uniform(math.radians(10)), 0.8, 0.0), 1 + sometimes(uniform(0.1), 0.8, 0.0)
    flip = sometimes(-torch.ones(count), 0.5, 1.0)
    shift = [sometimes(uniform(2 * 4 / images.shape[-1]), 0.8, 0.0) for _ in range(2)]
    rows = [
        torch.stack([flip * scale * angle.cos(), -scale * angle.sin(), shift[0]], 1),
        torch.stack([flip * scale * angle.sin(), scale * angle.cos(), shift[1]], 1),
    ]
    grid = affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    moved = grid_sample(images, grid, padding_mode="border", align_corners=False)
    contrast, brightness = 1 + sometimes(uniform(0.2), 0.5, 0.0), sometimes(uniform(0.2), 0.5, 0.0)
    return moved * contrast[:, None, None, None] + brightness[:, None, None, None]
