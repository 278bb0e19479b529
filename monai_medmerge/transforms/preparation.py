"""What images need before a network sees them and MONAI has no transform for: uptake, bias fields, low-pass."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.networks.layers import separable_filtering
from monai.transforms import MapTransform
from monai.utils import optional_import
from numpy.typing import NDArray
from torch import Tensor

from monai_medmerge.errors import DicomSeriesError, SettingError

itk, _ = optional_import("itk")

# Of a normal distribution, full width at half maximum over standard deviation.
_WIDTH = 2 * math.sqrt(2 * math.log(2))


class ToUptaked(MapTransform):
    """Turn the activity of a PET into standardised uptake by body weight (SUVbw, g/ml), by the reader's "suv_factor".

    Args:
        keys: MetaTensors from `DicomSeriesReader`.
        allow_missing_keys: skip keys that a dictionary lacks.

    Raises:
        DicomSeriesError: the image is no PET, or its file does not tell what uptake is computed from; says what.

    Example:
        >>> image = MetaTensor(torch.tensor([2000.0]), meta={"suv_factor": 0.001, "units": "BQML"})
        >>> uptake = ToUptaked("image")({"image": image})["image"]
        >>> float(uptake[0]), uptake.meta["units"]
        (2.0, 'SUVbw')
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with uptake in place of activity."""
        result = dict(data)
        for key in self.key_iterator(result):
            image = result[key]
            meta = image.meta if isinstance(image, MetaTensor) else {}
            factor = float(meta.get("suv_factor", math.nan))
            if not math.isfinite(factor):
                lacks = meta.get("suv_lacks") or "an image that is no PET of DicomSeriesReader"
                raise DicomSeriesError("what uptake is computed from", f"no {lacks}", str(key))
            uptake = image.to(torch.float32) * factor
            # What is uptake already is not scaled twice.
            uptake.meta = {**meta, "units": "SUVbw", "suv_factor": 1.0}
            result[key] = uptake
        return result


def correct_bias_field(
    image: NDArray[Any],
    mask: NDArray[Any] | None = None,
    shrink: int = 4,
    iterations: Sequence[int] = (50, 50, 50, 50),
) -> NDArray[np.float32]:
    """Return an MR image without its slowly varying bias field, by N4 (Tustison et al. 2010), as ITK has it.

    The field is estimated on every `shrink`-th voxel and removed from all of them: image / exp(log field).

    Args:
        image: (x, y, z) or (x, y); values above zero count as tissue where no mask is given.
        mask: of the same shape; the voxels that the estimate is made on.
        shrink: at least 1.
        iterations: of each level, from coarse to fine.

    Raises:
        SettingError: another number of axes, a mask of another shape or without voxels, or a setting out of range.
    """
    if image.ndim not in (2, 3) or shrink < 1 or not iterations or min(iterations) < 1:
        raise SettingError("two or three axes, a shrinking and iterations of at least one", "others", "N4")
    chosen = image > 0 if mask is None else np.asarray(mask) > 0
    if chosen.shape != image.shape or not chosen.any():
        raise SettingError(f"a mask of the image's shape {image.shape} with voxels in it", "another", "N4")
    if not np.isfinite(image).all():
        raise SettingError("finite values", "others", "N4")
    # The logarithm is of values above zero.
    values = np.ascontiguousarray(image, np.float32)
    every = tuple(slice(shrink // 2, None, min(shrink, size)) if size > shrink else slice(None) for size in image.shape)
    small = np.ascontiguousarray(values[every])
    few = np.ascontiguousarray(chosen[every].astype(np.uint8))
    if not few.any():
        raise SettingError("a mask with voxels at this shrinking", "none", "N4")
    full, coarse = itk.image_from_array(values), itk.image_from_array(small)
    region = itk.image_from_array(few)
    # ITK's axes are those of the array in reverse.
    spacing = [float(part.step or 1) for part in reversed(every)]
    origin = [float(part.start or 0) for part in reversed(every)]
    for picture in (coarse, region):
        picture.SetSpacing(spacing)
        picture.SetOrigin(origin)
    kind = type(coarse)
    n4 = itk.N4BiasFieldCorrectionImageFilter[kind, type(region), kind].New(coarse, MaskImage=region)
    n4.SetNumberOfFittingLevels(len(iterations))
    n4.SetMaximumNumberOfIterations([int(number) for number in iterations])
    n4.Update()
    field = _field(n4, full)
    return np.asarray(values / np.exp(field), np.float32)


def _field(n4: Any, full: Any) -> NDArray[np.float32]:
    """Return the logarithm of the field on all voxels, from the control points that were found on some."""
    lattice = n4.GetLogBiasFieldControlPointLattice()
    # The field is reconstructed on the grid of whatever is the filter's input.
    n4.SetInput(full)
    return np.asarray(itk.array_from_image(n4.ReconstructBiasField(lattice)), np.float32)


class CorrectBiasFieldd(MapTransform):
    """Remove the bias field of MR images by N4 (see `correct_bias_field`).

    Args:
        keys: images (channel, *spatial), each channel by itself.
        mask_key: the key of a mask (1, *spatial); without one, values above zero.
        shrink: the field is estimated on every so many voxels.
        iterations: of each level.
        allow_missing_keys: skip keys that a dictionary lacks.
    """

    def __init__(
        self,
        keys: KeysCollection,
        mask_key: str | None = None,
        shrink: int = 4,
        iterations: Sequence[int] = (50, 50, 50, 50),
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.mask_key = mask_key
        self.shrink = shrink
        self.iterations = tuple(iterations)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with the images corrected, as float32."""
        result = dict(data)
        mask = None if self.mask_key is None else np.asarray(result[self.mask_key])[0]
        for key in self.key_iterator(result):
            image = result[key]
            channels = [
                correct_bias_field(channel, mask, self.shrink, self.iterations)
                for channel in image.detach().cpu().numpy()
            ]
            corrected = image.to(torch.float32).clone()
            corrected[...] = torch.as_tensor(np.stack(channels))
            result[key] = corrected
        return result


def low_pass(image: Tensor, spacing: Sequence[float], target: Sequence[float]) -> Tensor:
    """Return an image without what larger voxels cannot hold, so that shrinking makes no patterns of its own.

    Along each axis a Gaussian of standard deviation sqrt(k^2 - 1) / (2 sqrt(2 ln 2)) voxels, where k is the factor by
    which voxels grow; axes that do not are left alone (Cardoso et al., Scale factor point spread function matching,
    2015).

    Args:
        image: (channel, *spatial).
        spacing: of its voxels along each spatial axis.
        target: of the voxels that it is to be sampled at.

    Raises:
        SettingError: not a positive spacing for each spatial axis.

    Example:
        >>> low_pass(torch.tensor([[0.0, 0.0, 1.0, 0.0, 0.0]]), [1.0], [1.0])
        tensor([[0., 0., 1., 0., 0.]])
    """
    axes = image.ndim - 1
    if len(spacing) != axes or len(target) != axes or min(*spacing, *target) <= 0:
        raise SettingError(f"{axes} spacings above zero", f"{len(spacing)} and {len(target)}", "low_pass")
    factors = [max(after / before, 1.0) for before, after in zip(spacing, target, strict=True)]
    sigmas = [math.sqrt(factor**2 - 1) / _WIDTH for factor in factors]
    values = image.to(torch.float32)
    if not any(sigmas):
        return values
    smooth = values.as_tensor() if isinstance(values, MetaTensor) else values
    # Edges are repeated, as outside is not dark.
    filtered = separable_filtering(smooth[None], [_kernel(sigma) for sigma in sigmas], mode="replicate")[0]
    if isinstance(image, MetaTensor):
        return MetaTensor(filtered, meta=image.meta, applied_operations=image.applied_operations)
    return filtered


def _kernel(sigma: float) -> Tensor:
    """Return a normal distribution over four standard deviations to each side, with a sum of one."""
    steps = torch.arange(-math.ceil(4 * sigma), math.ceil(4 * sigma) + 1, dtype=torch.float32)
    weights = torch.exp(-(steps**2) / (2 * sigma**2)) if sigma > 0 else torch.ones(1)
    return weights / weights.sum()


class LowPassd(MapTransform):
    """Smooth images as far as larger voxels need it (see `low_pass`): before MONAI's `Spacingd`, with its `pixdim`.

    Args:
        keys: MetaTensors (channel, *spatial).
        pixdim: the voxel sizes to come, along each spatial axis; one that is not above zero leaves its axis alone, as
            for `Spacingd`.
        allow_missing_keys: skip keys that a dictionary lacks.

    Raises:
        SettingError: an image without a place in space, or of other axes.
    """

    def __init__(self, keys: KeysCollection, pixdim: Sequence[float], allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.pixdim = tuple(map(float, pixdim))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with the images smoothed, as float32."""
        result = dict(data)
        for key in self.key_iterator(result):
            image = result[key]
            if not isinstance(image, MetaTensor):
                raise SettingError("a MetaTensor (channel, *spatial)", type(image).__name__, str(key))
            spacing = affine_to_spacing(image.affine.cpu().numpy(), image.ndim - 1).tolist()
            target = [wanted if wanted > 0 else now for wanted, now in zip(self.pixdim, spacing, strict=False)]
            result[key] = low_pass(image, spacing, target)
        return result
