"""Scanner differences, simulated: what one image would look like from another machine. Nobody measured these."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, conv2d, grid_sample, pad


@dataclass(frozen=True)
class Scanner:
    """Changes of contrast, sharpness, noise, shading and field of view, in this order of the beam's way back.

    Args:
        gamma: exponent of the grey values from 0 to 1.
        blur: standard deviation of a Gaussian, in pixels of 64.
        sharpen: weight of the difference from a blurred copy that is added.
        noise: standard deviation of Gaussian noise, of the range of grey values.
        shading: depth of a smooth gain from one side to the other.
        angle: of the shading's direction, in degrees.
        zoom: above 1 the object is larger.
    """

    gamma: float = 1.0
    blur: float = 0.0
    sharpen: float = 0.0
    noise: float = 0.0
    shading: float = 0.0
    angle: float = 0.0
    zoom: float = 1.0

    def __call__(self, images: Tensor, seed: int) -> Tensor:
        """The same images from this scanner, standardised one by one.

        Args:
            images: grey values from 0 to 1 (case, 1, height, width).
            seed: of the noise.
        """
        size = images.shape[-1]
        if self.zoom != 1:
            grid = affine_grid(torch.eye(2, 3)[None] / self.zoom, [1, 1, size, size], align_corners=False)
            images = grid_sample(images, grid.expand(len(images), -1, -1, -1), align_corners=False)
        axis = torch.linspace(-1, 1, size)
        turn = torch.deg2rad(torch.tensor(self.angle))
        gain = 1 + self.shading * (axis[:, None] * turn.sin() + axis[None] * turn.cos())
        images = (images.clamp(0, 1) ** self.gamma) * gain
        if self.blur:
            images = _blurred(images, self.blur)
        if self.sharpen:
            images = images + self.sharpen * (images - _blurred(images, 1.0))
        if self.noise:
            drawn = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
            images = images + self.noise * drawn
        deviation, mean = torch.std_mean(images, dim=(1, 2, 3), keepdim=True, correction=0)
        return (images - mean) / deviation.clamp(min=1e-6)


SITES = 5
"""Of a region: the sources' four, and the new one last."""


def region(number: int) -> list[Scanner]:
    """The scanners of a region, drawn from its number; none was looked at before it was taken.

    Args:
        number: of the region.
    """
    rng = np.random.default_rng(number)
    drawn = []
    for _ in range(SITES):
        soft = rng.random() < 0.5
        drawn.append(
            Scanner(
                gamma=float(2 ** rng.uniform(-1, 1)),
                blur=float(rng.uniform(0, 1.2)) if soft else 0.0,
                sharpen=0.0 if soft else float(rng.uniform(0, 0.8)),
                noise=float(rng.uniform(0, 0.08)),
                shading=float(rng.uniform(0, 0.5)),
                angle=float(rng.uniform(0, 360)),
                zoom=float(rng.uniform(0.85, 1.15)),
            )
        )
    return drawn


def _blurred(images: Tensor, deviation: float) -> Tensor:
    reach = int(3 * deviation) + 1
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / deviation) ** 2)
    kernel = kernel / kernel.sum()
    padded = pad(images, [reach] * 4, mode="replicate")
    return conv2d(conv2d(padded, kernel[None, None, :, None]), kernel[None, None, None])
