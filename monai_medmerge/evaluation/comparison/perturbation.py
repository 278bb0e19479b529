"""Small changes of an image that should change no answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.transforms import Rotate
from torch import Tensor

from monai_medmerge.evaluation.bootstrap import Paired, Resampling, paired_estimate
from monai_medmerge.evaluation.measures import mean

# From images (image, channel, *space) and a generator to images of the same shape.
Perturbation = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Stability:
    """How many answers stay the same under one small change of the images.

    Args:
        change: its name.
        kept: share of unchanged predictions of reference and candidate; for segmentations, mean Dice of the changed
            to the unchanged prediction.
    """

    change: str
    kept: Paired

    def as_dict(self) -> dict[str, Any]:
        """In plain types, for JSON."""
        return {"change": self.change, **self.kept.as_dict()}


def rotation(degrees: float) -> Perturbation:
    """Rotate about the centre, in the plane of the first two axes of space; what comes in from outside is the border.

    Args:
        degrees: angle.

    Example:
        >>> rotation(5)(torch.ones(1, 1, 8, 8), torch.Generator()).shape
        torch.Size([1, 1, 8, 8])
    """

    def rotate(images: Tensor, _: torch.Generator) -> Tensor:
        angle = np.deg2rad(degrees)
        # MONAI turns volumes about each axis; the third is normal to the first two.
        turned = Rotate(angle if images.ndim == 4 else (0.0, 0.0, angle), padding_mode="border")
        return torch.stack([torch.as_tensor(turned(image)).as_subclass(Tensor) for image in images])

    return rotate


def noise(strength: float) -> Perturbation:
    """Add Gaussian noise.

    Args:
        strength: standard deviation, as part of each image's own.
    """
    return lambda images, generator: (
        images + strength * _spread(images) * torch.randn(images.shape, generator=generator)
    )


def shift(strength: float) -> Perturbation:
    """Add a constant.

    Args:
        strength: as part of each image's standard deviation.
    """
    return lambda images, _: images + strength * _spread(images)


def scaling(factor: float) -> Perturbation:
    """Stretch intensities about each image's mean.

    Args:
        factor: by how much.
    """

    def stretch(images: Tensor, _: torch.Generator) -> Tensor:
        middle = images.mean(tuple(range(1, images.ndim)), keepdim=True)
        return middle + factor * (images - middle)

    return stretch


# Changes within what patient positioning, scanners and exposure do every day.
INTENSITY_CHANGES: Mapping[str, Perturbation] = {
    "noised by 5 % of the spread": noise(0.05),
    "brightened by 10 % of the spread": shift(0.1),
    "darkened by 10 % of the spread": shift(-0.1),
    "stretched to 110 % contrast": scaling(1.1),
    "shrunk to 90 % contrast": scaling(0.9),
}
CHANGES: Mapping[str, Perturbation] = {
    "rotated by 5 degrees": rotation(5),
    "rotated by -5 degrees": rotation(-5),
    **INTENSITY_CHANGES,
}


def stability(change: str, reference: np.ndarray, candidate: np.ndarray, resampling: Resampling) -> Stability:
    """Mean of what each case kept.

    Args:
        change: its name.
        reference: bool or float (case,): whether, or how much of, the reference's prediction stayed.
        candidate: the same of the candidate's.
        resampling: for the intervals.
    """
    return Stability(change, paired_estimate([(mean(reference), mean(candidate))], len(reference), resampling)[0])


def _spread(images: Tensor) -> Tensor:
    return images.std(tuple(range(1, images.ndim)), keepdim=True)
