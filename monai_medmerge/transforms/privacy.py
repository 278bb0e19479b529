"""Removal of what identifies a patient from the metadata that travels with an image."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import ImageMetaKey, MetaKeys

from monai_medmerge.errors import SettingError

# Geometry, and the coded facts that this package's readers add. All else goes: a list of what is safe cannot miss a
# vendor's private tag, as a list of what is dangerous can.
SAFE_META: tuple[str, ...] = (
    *(MetaKeys.AFFINE, MetaKeys.ORIGINAL_AFFINE, MetaKeys.SPACE, MetaKeys.SPATIAL_SHAPE),
    *(MetaKeys.ORIGINAL_CHANNEL_DIM, "spacing", "modality", "photometric_interpretation", "units", "voi"),
    *("volumes", "spacing_source", "frame_time", "suv_factor", "suv_lacks", "series_hash", "study_hash"),
)


def strip_identity(meta: Mapping[str, Any], salt: str, keep: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return metadata without what is not known to be safe, and with the file's name hashed.

    Args:
        meta: the metadata of a MetaTensor, from any reader.
        salt: a secret of the site; without it a hash of a guessable path gives the path away.
        keep: more keys that are known to be safe.

    Returns:
        The safe entries, and "filename_or_obj" as 16 hexadecimal digits of the salted SHA-256 where there was one.

    Raises:
        SettingError: the salt is empty.

    Example:
        >>> strip_identity({"filename_or_obj": "/ward/doe.dcm", "0010|0010": "Doe", "units": "HU"}, salt="secret")
        {'units': 'HU', 'filename_or_obj': 'da9d9d6f4aa3cef0'}
    """
    if not salt:
        raise SettingError("a salt that is not empty", repr(salt), "salt")
    safe = {str(key): value for key, value in meta.items() if key in SAFE_META or key in keep}
    if ImageMetaKey.FILENAME_OR_OBJ in meta:
        name = f"{salt}:{meta[ImageMetaKey.FILENAME_OR_OBJ]}"
        safe[str(ImageMetaKey.FILENAME_OR_OBJ)] = hashlib.sha256(name.encode()).hexdigest()[:16]
    return safe


class StripIdentityd(MapTransform):
    """Keep only metadata that is known to be safe, and hash the file's name that MONAI's `LoadImage` adds.

    `SaveImage` and the handlers then name their files by the hash. What is needed by the original name, as a DICOM
    SEG is that references its source, must come before.

    Args:
        keys: MetaTensors; entries "<key>_meta_dict" of the dictionary, and entries of `paths`, are treated as well.
        salt: a secret of the site.
        paths: keys of file paths in the dictionary, to be removed.
        keep: more metadata keys that are known to be safe.
        allow_missing_keys: skip keys that a dictionary lacks.

    Example:
        >>> import torch
        >>> image = MetaTensor(torch.ones(1), meta={"PatientName": "Doe", "modality": "CT"})
        >>> sorted(StripIdentityd(keys="image", salt="secret")({"image": image})["image"].meta)
        ['affine', 'modality', 'space']
    """

    def __init__(
        self,
        keys: KeysCollection,
        salt: str,
        paths: tuple[str, ...] = (),
        keep: tuple[str, ...] = (),
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if not salt:
            raise SettingError("a salt that is not empty", repr(salt), "salt")
        self.salt = salt
        self.paths = paths
        self.keep = keep

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with the metadata stripped."""
        result = {key: value for key, value in data.items() if key not in self.paths}
        for key in self.key_iterator(result):
            image = result[key]
            if isinstance(image, MetaTensor):
                image = image.clone()
                image.meta = strip_identity(image.meta, self.salt, self.keep)
                result[key] = image
            if f"{key}_meta_dict" in result:
                result[f"{key}_meta_dict"] = strip_identity(result[f"{key}_meta_dict"], self.salt, self.keep)
        return result
