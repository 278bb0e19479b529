"""One reader for whatever a radiology folder holds, which decides by content and never falls back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import PathLike
from monai.data import ImageReader, PILReader
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple
from numpy.typing import NDArray

from monai_medmerge.errors import DatasetError, SettingError
from monai_medmerge.transforms.dicom import DicomSeriesReader
from monai_medmerge.transforms.foreign import guarded, quiet
from monai_medmerge.transforms.nifti import CheckedNiftiReader

_NIFTI = (b"n+1\x00", b"n+2\x00", b"ni1\x00", b"ni2\x00")
_PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\x00", b"MM\x00*")


@dataclass(frozen=True)
class ImageRequest:
    """What `MedicalImageReader.read` returns: the paths to read, nothing yet read (see `DicomRequest`)."""

    paths: tuple[Path, ...]


class MedicalImageReader(ImageReader):
    """Read DICOM, NIfTI, PNG, JPEG, TIFF and BMP, told apart by their first bytes.

    A picture or a single DICOM frame comes as (x, y), with RGB as a last axis; a series, folder or NIfTI file as
    (x, y, z). Palette pictures come as RGB and alpha channels are dropped, so that a batch has one kind of image.

    Args:
        dicom: arguments of `DicomSeriesReader`; `squeeze` is True unless given.
        nifti: arguments of `CheckedNiftiReader`.

    Raises:
        MedMergeError: from `get_data`, one that names the file: `DicomSeriesError`, `NiftiError` or `DatasetError`.

    Example:
        >>> from monai.transforms import LoadImaged
        >>> from pydicom.data import get_testdata_file
        >>> load = LoadImaged(keys="image", reader="monai_medmerge.transforms.MedicalImageReader")
        >>> load({"image": get_testdata_file("MR_small.dcm")})["image"].shape
        torch.Size([64, 64])
    """

    def __init__(self, dicom: Mapping[str, Any] | None = None, nifti: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.dicom = DicomSeriesReader(**{"squeeze": True, **(dicom or {})})
        self.nifti = CheckedNiftiReader(**(nifti or {}))

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Return True: what a file is shows when it is read, and another reader must not be tried."""
        return True

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> ImageRequest:
        """Note what to read; `get_data` reads it, so that `LoadImage` cannot fall back to another reader."""
        if kwargs:
            raise SettingError("no keyword arguments", ", ".join(kwargs), "MedicalImageReader.read")
        return ImageRequest(tuple(Path(name) for name in ensure_tuple(data)))

    def get_data(self, img: ImageRequest) -> tuple[NDArray[Any], dict[str, Any]]:
        """Read the image.

        Args:
            img: what `read` returned.

        Returns:
            The array and its metadata in MONAI's convention.
        """
        first = img.paths[0]
        if first.is_dir() or len(img.paths) > 1:
            return self.dicom.get_data(self.dicom.read(img.paths))
        if not first.is_file():
            raise DatasetError("a file or a folder", "nothing of that name", first.name)
        with first.open("rb") as file:
            head = file.read(352)
        if head[128:132] == b"DICM":
            return self.dicom.get_data(self.dicom.read(first))
        if head.startswith(_PICTURES):
            with quiet():
                return guarded(DatasetError, "an intact picture", first.name, lambda: read_picture(first))
        if head[344:348] in _NIFTI or head[4:8] in _NIFTI or head[:2] == b"\x1f\x8b":
            return self._read_nifti(first)
        raise DatasetError("DICOM, NIfTI, PNG, JPEG, TIFF or BMP", "another or a damaged format", first.name)

    def _read_nifti(self, path: Path) -> tuple[NDArray[Any], dict[str, Any]]:
        array, meta = self.nifti.get_data(self.nifti.read(path))
        return array, {**meta, **_no_dicom(array.ndim > len(meta[MetaKeys.SPATIAL_SHAPE]))}


def _no_dicom(colored: bool) -> dict[str, Any]:
    """Return the facts that DICOM images have in their metadata, empty, so that all kinds collate in a batch."""
    photometric = "RGB" if colored else "MONOCHROME2"
    return {"modality": "", "photometric_interpretation": photometric, "units": "", "voi": "{}"}


def read_picture(path: Path) -> tuple[NDArray[Any], dict[str, Any]]:
    """Read a picture through MONAI's `PILReader`, with the metadata that DICOM images have, so that both collate.

    Args:
        path: a PNG, JPEG, TIFF or BMP file.

    Returns:
        (x, y) for gray or (x, y, 3) for colour, and metadata with an identity affine.
    """
    reader = PILReader(converter=_plain)
    array, _ = reader.get_data(reader.read(path))
    meta: dict[str, Any] = {
        MetaKeys.AFFINE: np.eye(4),
        MetaKeys.ORIGINAL_AFFINE: np.eye(4),
        MetaKeys.SPACE: SpaceKeys.RAS,
        MetaKeys.SPATIAL_SHAPE: np.asarray(array.shape[:2]),
        MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan") if array.ndim == 2 else -1,
        "spacing": np.ones(3),
        **_no_dicom(array.ndim == 3),
    }
    return array, meta


def _plain(image: Any) -> Any:
    """Return a picture as gray or RGB: palettes resolved, alpha dropped, bits as bytes."""
    if image.mode in ("L", "RGB", "I", "F") or image.mode.startswith("I;16"):
        image.load()
        return image
    return image.convert("L" if image.mode in ("1", "LA", "La") else "RGB")
