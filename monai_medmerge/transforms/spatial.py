"""What the readers of volumes share: the choice of one volume among several, and the metadata of a place in space."""

from __future__ import annotations

from typing import Any

import numpy as np
from monai.data.utils import affine_to_spacing
from monai.utils import MetaKeys, SpaceKeys
from numpy.typing import NDArray

from monai_medmerge.errors import MedMergeError, SettingError

Array = NDArray[Any]


def check_volume_choice(volume: object) -> None:
    """Refuse what says no volume.

    Args:
        volume: a number from zero, "all" or None.

    Raises:
        SettingError: something else.
    """
    whole = isinstance(volume, int) and not isinstance(volume, bool) and volume >= 0
    if not (volume is None or volume == "all" or whole):
        raise SettingError("a number from zero, 'all' or None", repr(volume), "volume")


def choose_volume(array: Array, volume: int | str | None, error: type[MedMergeError], where: str) -> tuple[Array, bool]:
    """Return the volume that is meant, and whether the last axis holds channels.

    Args:
        array: (x, y, z), or more axes, of which the fourth tells volumes apart.
        volume: as `check_volume_choice` takes it.
        error: the class to raise.
        where: the file's base name.

    Raises:
        MedMergeError: an `error`: there are several and none is chosen, or not as many.

    Example:
        >>> choose_volume(np.zeros((2, 3, 4, 5)), 1, MedMergeError, "a.nii")[0].shape
        (2, 3, 4)
    """
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim <= 3:
        return array, False
    if array.ndim > 4 or volume is None:
        found = f"{'x'.join(map(str, array.shape))}: choose with volume=0 to {array.shape[3] - 1}, or 'all'"
        raise error("one volume", found if array.ndim == 4 else "more than four dimensions", where)
    if volume == "all":
        return array, True
    if int(volume) >= array.shape[3]:
        raise error(f"a volume below {array.shape[3]}", str(volume), where)
    return array[..., int(volume)], False


def spatial_meta(array: Array, affine: NDArray[np.float64], channels: bool) -> dict[str, Any]:
    """Return the metadata, in MONAI's convention, of an image with a place in space.

    Args:
        array: (x, y, z), or with channels as a last axis.
        affine: 4 x 4, to RAS millimetres.
        channels: whether the last axis holds them.
    """
    return {
        MetaKeys.AFFINE: affine,
        MetaKeys.ORIGINAL_AFFINE: affine.copy(),
        MetaKeys.SPACE: SpaceKeys.RAS,
        MetaKeys.SPATIAL_SHAPE: np.asarray(array.shape[:-1] if channels else array.shape),
        MetaKeys.ORIGINAL_CHANNEL_DIM: -1 if channels else float("nan"),
        "spacing": affine_to_spacing(affine),
    }
