"""Resampling of a stack onto a regular, rectangular grid: what the policy "repair" does about gaps and tilt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from monai_medmerge.errors import DicomSeriesError
from monai_medmerge.transforms.dicom.geometry.stacks import Stack

Array = NDArray[Any]


def fill_gaps(array: Array, stack: Stack, max_bytes: int) -> tuple[Array, Stack]:
    """Interpolate slices linearly at even distances, the median one as nearly as the extent allows.

    Args:
        array: (z, y, x), slices at `stack.heights`.
        stack: the geometry.
        max_bytes: the most that the result may take.

    Returns:
        The new array, floating, and its geometry.

    Raises:
        DicomSeriesError: more slices would be interpolated than there are, or the result is too large.
    """
    heights = stack.heights
    count = round(float(heights[-1] / np.median(np.diff(heights)))) + 1
    where = stack.frames[0].header.where
    if count > 2 * len(heights):
        raise DicomSeriesError("gaps that can be filled from as many slices", f"{count - len(heights)} missing", where)
    _check_size(count * array[0].size, max_bytes, where)
    targets = np.linspace(0, heights[-1], count)
    above = np.clip(np.searchsorted(heights, targets), 1, len(heights) - 1)
    weights = (targets - heights[above - 1]) / (heights[above] - heights[above - 1])
    result = np.empty((count, *array.shape[1:]), np.result_type(array.dtype, np.float32))
    for i, (upper, weight) in enumerate(zip(above, weights, strict=True)):
        result[i] = (1 - weight) * array[upper - 1] + weight * array[upper]
    affine = stack.affine.copy()
    affine[:3, 2] *= heights[-1] / (count - 1)
    return result, replace(stack, affine=affine, heights=np.arange(float(count)))


def straighten(array: Array, stack: Stack, max_bytes: int) -> tuple[Array, Stack]:
    """Shift the slices of a tilted stack within their planes, so that they lie above one another.

    Interpolation is bilinear within a slice. The grid grows so that nothing is cut off, and what no slice covers
    takes the least value of the volume.

    Args:
        array: (z, y, x), evenly spaced.
        stack: the geometry, with a step that is not along the normal.
        max_bytes: the most that the result may take.

    Returns:
        The new array, floating, and its geometry.

    Raises:
        DicomSeriesError: the result is too large.
    """
    affine = stack.affine.copy()
    # In voxels: how far along x and y a slice lies from the one before.
    drift = np.linalg.lstsq(affine[:3, :2], affine[:3, 2], rcond=None)[0]
    ends = drift * (len(array) - 1)
    low, high = np.floor(np.minimum(ends, 0)), np.ceil(np.maximum(ends, 0))
    columns, rows = (np.array([array.shape[2], array.shape[1]]) + high - low).astype(int).tolist()
    _check_size(len(array) * rows * columns, max_bytes, stack.frames[0].header.where)
    result = np.empty((len(array), rows, columns), np.result_type(array.dtype, np.float32))
    least = float(array.min())
    for i, image in enumerate(array):
        x, y = low - i * drift
        ndimage.affine_transform(
            image.astype(result.dtype), np.ones(2), (y, x), (rows, columns), result[i], order=1, cval=least
        )
    affine[:3, 3] += affine[:3, :2] @ low
    affine[:3, 2] -= affine[:3, :2] @ drift
    return result, replace(stack, affine=affine, slant=0.0)


def _check_size(voxels: int, max_bytes: int, where: str) -> None:
    if voxels * 8 > max_bytes:
        raise DicomSeriesError(f"at most {max_bytes} bytes after repair (max_bytes)", str(voxels * 8), where)
