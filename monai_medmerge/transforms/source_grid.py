"""Labels on whatever grid a network works on, back onto the voxels of the image that they were made from."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import orientation_ras_lps
from monai.transforms import MapTransform
from monai.utils import ImageMetaKey, MetaKeys
from numpy.typing import NDArray

from monai_medmerge.errors import SettingError
from monai_medmerge.transforms.dicom.reader import DicomSeriesReader
from monai_medmerge.transforms.foreign import is_file
from monai_medmerge.transforms.images import MedicalImageReader
from monai_medmerge.transforms.writing import check_label_map

Array = NDArray[Any]

# Voxels that differ by less than this are the same, whatever the arithmetic left.
_SAME = 1e-4


def labels_onto_grid(labels: Array, affine: Array, shape: Sequence[int], target: Array, background: int = 0) -> Array:
    """Return labels on another grid: for each of its voxels that of the nearest voxel, and nothing in between.

    No label is interpolated or rounded, so that none arises that was not there. Where both grids agree, or one is the
    other flipped, permuted, cropped or padded, every label comes back as it was.

    Args:
        labels: (x, y, z), of any type.
        affine: 4 x 4, from their voxels to millimetres.
        shape: (x, y, z) of the other grid.
        target: 4 x 4, from its voxels to the same millimetres; oblique, anisotropic or sheared.
        background: of voxels outside of the labels' grid.

    Raises:
        SettingError: an affine cannot be inverted, or labels have not three axes.

    Example:
        >>> labels = np.array([0, 1, 2, 3]).reshape(4, 1, 1)
        >>> labels_onto_grid(labels, np.eye(4), (2, 1, 1), np.diag([2, 1, 1, 1])).ravel().tolist()
        [0, 2]
    """
    if labels.ndim != 3 or len(shape) != 3:
        raise SettingError("labels and a grid (x, y, z)", f"{labels.ndim} and {len(shape)} axes", "labels")
    for matrix in (affine, target):
        if np.shape(matrix) != (4, 4) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-12:
            raise SettingError("affines that can be inverted", "another", "labels_onto_grid")
    change = np.linalg.inv(np.asarray(affine, float)) @ np.asarray(target, float)
    result = np.full(tuple(shape), background, labels.dtype)
    plane = np.stack(np.meshgrid(*map(np.arange, shape[:2]), indexing="ij")).reshape(2, -1)
    limits = np.array(labels.shape)[:, None]
    # Slice by slice, so that indices of one are held at a time.
    for z in range(shape[2]):
        places = change[:3, :2] @ plane + change[:3, 2:3] * z + change[:3, 3:]
        # A voxel halfway between two takes that of the lower index, whatever the last bit says.
        nearest = np.ceil(places - 0.5 - _SAME).astype(np.int64)
        inside = ((nearest >= 0) & (nearest < limits)).all(0)
        values = np.full(plane.shape[1], background, labels.dtype)
        values[inside] = labels[tuple(nearest[:, inside])]
        result[:, :, z] = values.reshape(shape[0], shape[1])
    return result


class LabelsToSourced(MapTransform):
    """Put label maps onto the grid of the image that they were made from, DICOM series or volume, without loss.

    For what follows a network that works on resampled or reoriented images, in place of `Invertd`: only the affines
    count, and neither the order nor the kind of the transforms between.

    Args:
        keys: label maps, MetaTensors (1, x, y, z).
        source: the key of the source's path; where the dictionary lacks it, the label map's own "filename_or_obj".
        reader: arguments of the `DicomSeriesReader` that read the series.
        volume: arguments of `MedicalImageReader` for other sources.
        background: of voxels outside of the labels' grid.
        allow_missing_keys: skip keys that a dictionary lacks.

    Raises:
        SettingError: a label map has another shape, or nothing says what its source is.
        MedMergeError: the source cannot be read.
    """

    def __init__(
        self,
        keys: KeysCollection,
        source: str = "source",
        reader: Mapping[str, Any] | None = None,
        volume: Mapping[str, Any] | None = None,
        background: int = 0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.source = source
        self.dicom = DicomSeriesReader(**(reader or {}))
        self.volume = MedicalImageReader(**{"dicom": reader, **(volume or {})})
        self.background = background

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with the label maps on the grids of their sources."""
        result = dict(data)
        for key in self.key_iterator(result):
            labels = check_label_map(result[key], str(key))
            source = result.get(self.source, labels.meta.get(ImageMetaKey.FILENAME_OR_OBJ))
            if source is None:
                raise SettingError("the path of the source", "none", self.source)
            shape, affine = self._grid(source)
            values = labels.detach().cpu().numpy()[0]
            moved = labels_onto_grid(values, labels.affine.cpu().numpy(), shape, affine, self.background)
            meta = {**labels.meta, MetaKeys.SPATIAL_SHAPE: np.asarray(shape)}
            result[key] = MetaTensor(torch.as_tensor(moved)[None], affine=torch.as_tensor(affine), meta=meta)
        return result

    def _grid(self, source: Any) -> tuple[tuple[int, ...], Array]:
        first = Path(source if isinstance(source, (str, Path)) else source[0])
        if is_file(first) and not self.dicom.verify_suffix(first):
            _, meta = self.volume.get_data(self.volume.read(source))
            return tuple(int(size) for size in meta[MetaKeys.SPATIAL_SHAPE]), np.asarray(meta[MetaKeys.AFFINE])
        stack = self.dicom.locate(source)
        return (*stack.frames[0].size, len(stack.heights)), orientation_ras_lps(stack.affine)
