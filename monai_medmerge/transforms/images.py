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
from PIL import Image, ImageOps

from monai_medmerge.errors import DatasetError, SettingError
from monai_medmerge.transforms.dicom.reader import DicomSeriesReader
from monai_medmerge.transforms.foreign import guarded, is_file, is_folder, quiet
from monai_medmerge.transforms.formats.reader import CheckedVolumeReader, format_of
from monai_medmerge.transforms.nifti import CheckedNiftiReader
from monai_medmerge.transforms.policies import check_finite, complete_policies, give_remarks

# What the check of a picture's values can do about a violation.
PICTURE_POLICIES: Mapping[str, tuple[str, ...]] = {"nonfinite": ("error", "warn")}
# A quarter of a gigabyte of RGB, from where Pillow warns.
MAX_PIXELS = 89_478_485
_NIFTI = (b"n+1\x00", b"n+2\x00")
_NO_SERIES = {
    "volumes": "{}",
    "spacing_source": "",
    "frame_time": float("nan"),
    "suv_factor": float("nan"),
    "suv_lacks": "",
}
_PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\x00", b"MM\x00*")


@dataclass(frozen=True)
class ImageRequest:
    """What `MedicalImageReader.read` returns: the paths to read, nothing yet read (see `DicomRequest`)."""

    paths: tuple[Path, ...]


class MedicalImageReader(ImageReader):
    """Read DICOM, NIfTI, the formats of `CheckedVolumeReader`, PNG, JPEG, TIFF and BMP, told apart by first bytes.

    A picture or a single DICOM frame comes as (x, y), with RGB as a last axis; a series, folder or NIfTI file as
    (x, y, z). Palette pictures come as RGB and alpha channels are dropped, so that a batch has one kind of image.
    Pictures stand upright, as their EXIF orientation says. Those with several pages, and colours of 16 bits, of which
    Pillow would give the first and the upper 8 bits, are refused.

    Args:
        dicom: arguments of `DicomSeriesReader`; `squeeze` is True unless given.
        nifti: arguments of `CheckedNiftiReader`.
        picture: arguments of `read_picture`.
        volume: arguments of `CheckedVolumeReader`.

    Raises:
        MedMergeError: from `get_data`, one that names the file: `DicomSeriesError`, `NiftiError`, `VolumeError` or
            `DatasetError`.

    Example:
        >>> from monai.transforms import LoadImaged
        >>> from pydicom.data import get_testdata_file
        >>> load = LoadImaged(keys="image", reader="monai_medmerge.transforms.MedicalImageReader")
        >>> load({"image": get_testdata_file("MR_small.dcm")})["image"].shape
        torch.Size([64, 64])
    """

    def __init__(
        self,
        dicom: Mapping[str, Any] | None = None,
        nifti: Mapping[str, Any] | None = None,
        picture: Mapping[str, Any] | None = None,
        volume: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.dicom = DicomSeriesReader(**{"squeeze": True, **(dicom or {})})
        self.nifti = CheckedNiftiReader(**(nifti or {}))
        self.volume = CheckedVolumeReader(**(volume or {}))
        self.picture = dict(picture or {})
        complete_policies(PICTURE_POLICIES, self.picture.get("policies"))

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
        if is_folder(first) or len(img.paths) > 1:
            return self.dicom.get_data(self.dicom.read(img.paths))
        if not is_file(first):
            raise DatasetError("a file or a folder", "nothing of that name", first.name)
        with first.open("rb") as file:
            head = file.read(352)
        if head[128:132] == b"DICM" or head.startswith(b"PK\x03\x04"):
            return self.dicom.get_data(self.dicom.read(first))
        if head.startswith(_PICTURES):
            return read_picture(first, **self.picture)
        if format_of(first):
            return _with_facts(*self.volume.get_data(self.volume.read(first)))
        if head[344:348] in _NIFTI or head[4:8] in _NIFTI or head[:2] == b"\x1f\x8b":
            return _with_facts(*self.nifti.get_data(self.nifti.read(first)))
        expected = "DICOM, NIfTI, NRRD, MetaImage, MGH, Analyze, PAR, PNG, JPEG, TIFF or BMP"
        raise DatasetError(expected, "another or a damaged format", first.name)


def _with_facts(array: NDArray[Any], meta: Mapping[str, Any]) -> tuple[NDArray[Any], dict[str, Any]]:
    return array, {**_no_dicom(array.ndim > len(meta[MetaKeys.SPATIAL_SHAPE])), **meta}


def _no_dicom(colored: bool) -> dict[str, Any]:
    """Return the facts that DICOM images have in their metadata, empty, so that all kinds collate in a batch."""
    photometric = "RGB" if colored else "MONOCHROME2"
    return {"modality": "", "photometric_interpretation": photometric, "units": "", "voi": "{}", **_NO_SERIES}


def read_picture(
    path: Path, policies: Mapping[str, str] | None = None, max_pixels: int = MAX_PIXELS
) -> tuple[NDArray[Any], dict[str, Any]]:
    """Read a picture through MONAI's `PILReader`, with the metadata that DICOM images have, so that both collate.

    Args:
        path: a PNG, JPEG, TIFF or BMP file.
        policies: for each check what a violation leads to, "error" unless given: "nonfinite" (NaN or infinite pixels:
            "warn" keeps them).
        max_pixels: refuse pictures that claim more, before they are decoded: a file of half a megabyte can hold
            gigabytes. Pillow itself refuses above 178,956,970.

    Returns:
        (x, y) for gray or (x, y, 3) for colour, and metadata with an identity affine.

    Raises:
        DatasetError: the file is damaged, too large, has several pages or colours of 16 bits, or pixels that are not
            finite.
        SettingError: an unknown policy.
    """
    chosen, remarks = complete_policies(PICTURE_POLICIES, policies), list[str]()
    with quiet():
        array = guarded(DatasetError, "an intact picture", path.name, lambda: _pixels(path, max_pixels))
    check_finite(array, DatasetError, path.name, chosen["nonfinite"], remarks)
    give_remarks(remarks)
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


def _pixels(path: Path, max_pixels: int) -> NDArray[Any]:
    reader = PILReader(converter=lambda image: _plain(image, path.name, max_pixels))
    try:
        image = reader.read(path)
    except Image.DecompressionBombError:
        raise DatasetError(f"at most {max_pixels} pixels (max_pixels)", "many more", path.name) from None
    array: NDArray[Any] = reader.get_data(image)[0]
    return array


def _plain(image: Any, where: str, max_pixels: int) -> Any:
    """Return a picture, upright, as gray or RGB: palettes resolved, alpha dropped, bits as bytes."""
    if image.width * image.height > max_pixels:
        expected = f"at most {max_pixels} pixels (max_pixels)"
        raise DatasetError(expected, f"{image.width} x {image.height}", where)
    # Cameras write a JPEG with a preview as MPO, whose first page is the picture.
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise DatasetError("a picture of one page", f"{image.n_frames}", where)
    gray = image.mode in ("L", "I", "F") or image.mode.startswith("I;16")
    # How the samples are stored, such as "RGB;16B", is told only by Pillow's description of what it will decode.
    if not gray and any(";16" in str(tile.args) for tile in image.tile):
        raise DatasetError("colours of 8 bits", "16 bits, of which only the upper 8 could be read", where)
    if not gray and image.mode != "RGB":
        image = image.convert("L" if image.mode in ("1", "LA", "La") else "RGB")
    image.load()
    return ImageOps.exif_transpose(image)
