"""A MONAI reader for the volume files of research, with the checks of the reader for NIfTI."""

from __future__ import annotations

import gzip
import re
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from monai_medmerge.errors import VolumeError
from monai_medmerge.transforms.foreign import guarded, is_file, quiet
from monai_medmerge.transforms.formats.loaded import Loaded
from monai_medmerge.transforms.formats.metaimage import load_metaimage
from monai_medmerge.transforms.formats.neuro import load_mgh, load_pair, load_parrec
from monai_medmerge.transforms.formats.nrrd import load_nrrd
from monai_medmerge.transforms.policies import check_finite, give_remarks, settle
from monai_medmerge.transforms.spatial import choose_volume, spatial_meta
from monai_medmerge.transforms.volume_files import VolumeFileReader, VolumeRequest

Format = Literal["nrrd", "metaimage", "mgh", "pair", "parrec", ""]

_HEAD = 2048
_PAIR_SIZES = (b"\x5c\x01\x00\x00", b"\x00\x00\x01\x5c", b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c")


def format_of(path: Path) -> Format:
    """Return which of the formats a file is, by its first bytes, "" for none of them."""
    head = _first_bytes(path)
    if re.match(rb"NRRD000\d", head):
        return "nrrd"
    if re.match(rb"(ObjectType|NDims|Comment|ObjectSubType)[ \t]*=", head):
        return "metaimage"
    if b"DATA DESCRIPTION FILE" in head:
        return "parrec"
    if head[:4] in _PAIR_SIZES and head[344:348] != b"n+1\x00" and head[4:8] != b"n+2\x00":
        return "pair"
    return "mgh" if head[:4] == b"\x00\x00\x00\x01" and path.suffix.lower() in (".mgh", ".mgz") else ""


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head.startswith(b"\x1f\x8b"):
        return head
    try:
        with gzip.open(path) as stream:
            return stream.read(_HEAD)
    except (OSError, EOFError, zlib.error):
        return b""


class CheckedVolumeReader(VolumeFileReader):
    """Read one volume in NRRD, MetaImage, MGH, Analyze or PAR/REC, told apart by their first bytes.

    The array has axes (x, y, z), with colours or the volumes of the file as a last axis; the affine maps to RAS
    millimetres. Where voxels have a file of their own, the header is what is named: `.nhdr`, `.mhd`, `.hdr`, `.PAR`.

    Args:
        volume: which volume of several to read, from zero; "all" keeps them as channels; None refuses such files.
        policies: as those of `CheckedNiftiReader`, for each check "error" unless given: "no_form" (nothing says where
            the voxels lie: "warn" takes the axes for those of the patient), "units" (not mm: "repair" converts),
            "nonfinite" (NaN or infinite voxels: "warn" keeps them), and for pairs of NIfTI "forms" and "spacing".
        max_bytes: refuse images that would take more memory.

    Raises:
        VolumeError: from `get_data`, if the file is damaged, contradicts itself or leaves a choice open.
        SettingError: an argument is not one of those that are understood.

    Example:
        >>> import tempfile, itk
        >>> file = tempfile.NamedTemporaryFile(suffix=".nrrd")
        >>> itk.imwrite(itk.image_from_array(np.ones((6, 5, 4), "int16")), file.name)
        >>> reader = CheckedVolumeReader()
        >>> array, meta = reader.get_data(reader.read(file.name))
        >>> array.shape, array.dtype.name, meta["affine"].diagonal().tolist()
        ((4, 5, 6), 'int16', [-1.0, -1.0, 1.0, 1.0])
    """

    suffixes = (".nrrd", ".nhdr", ".mha", ".mhd", ".mgh", ".mgz", ".hdr", ".img", ".par")

    def get_data(self, img: VolumeRequest) -> tuple[NDArray[Any], dict[str, Any]]:
        """Read the volume.

        Args:
            img: what `read` returned.

        Returns:
            The array and its metadata in MONAI's convention.
        """
        remarks: list[str] = []
        where = img.path.name
        with quiet():
            loaded = guarded(VolumeError, "a readable volume", where, lambda: self._load(img.path, remarks))
            affine = self._check(loaded, where, remarks)
        if loaded.last == "colours":
            array, channels = loaded.array, True
        else:
            array, channels = choose_volume(loaded.array, self.volume, VolumeError, where)
        check_finite(array, VolumeError, where, self.policies["nonfinite"], remarks)
        give_remarks(remarks)
        return array, {**spatial_meta(array, affine, channels), "volumes": loaded.volumes}

    def _load(self, path: Path, remarks: list[str]) -> Loaded:
        if not is_file(path):
            raise VolumeError("a file", "nothing of that name", path.name)
        kind = format_of(path)
        if kind == "nrrd":
            return load_nrrd(path, self.max_bytes)
        if kind == "metaimage":
            return load_metaimage(path, self.max_bytes)
        if kind == "mgh":
            return load_mgh(path, self.max_bytes)
        if kind == "pair":
            return load_pair(path, self.max_bytes, self.policies, remarks)
        if kind == "parrec":
            return load_parrec(path, self.max_bytes)
        raise VolumeError("NRRD, MetaImage, MGH, Analyze or PAR", "another or a damaged format", path.name)

    def _check(self, loaded: Loaded, where: str, remarks: list[str]) -> NDArray[np.float64]:
        if not loaded.oriented:
            unplaced = VolumeError("a place and an orientation in the patient", "none in the file", where)
            settle(unplaced, self.policies["no_form"], remarks)
        affine = np.array(loaded.affine, dtype=float)
        if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
            raise VolumeError("an affine that can be inverted", "a singular one", where)
        if loaded.unit != 1:
            found = f"units of {loaded.unit:g} mm"
            settle(VolumeError("millimetres", found, where), self.policies["units"], remarks)
            affine[:3] *= loaded.unit
        return affine
