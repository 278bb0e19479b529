"""Files of neuroimaging, through nibabel: FreeSurfer's MGH, Analyze and SPM, pairs of NIfTI, Philips' PAR/REC."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.parrec import PARRECImage
from numpy.typing import NDArray

from monai_medmerge.errors import VolumeError
from monai_medmerge.transforms.foreign import is_file
from monai_medmerge.transforms.formats.loaded import TRAILING, Last, Loaded, count_bytes
from monai_medmerge.transforms.nifti import check_affine

_MGH_HEADER = 284
_MGH_TYPES = {0: "uint8", 1: ">i4", 3: ">f4", 4: ">i2"}
_PAR_LONGEST = 2**24


def load_mgh(path: Path, max_bytes: int) -> Loaded:
    """Read a file of FreeSurfer, `.mgh` or `.mgz`.

    Args:
        path: the file.
        max_bytes: the most that the voxels may take.

    Raises:
        VolumeError: the file is damaged or too large.
    """
    where = path.name
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    with gzip.open(path) if packed else path.open("rb") as stream:
        head = stream.read(_MGH_HEADER)
        if len(head) < _MGH_HEADER:
            raise VolumeError("the header of an MGH file", "less", where)
        version, *sizes, kind = struct.unpack(">6i", head[:24])
        oriented = struct.unpack(">h", head[28:30])[0] == 1
        if version != 1 or kind not in _MGH_TYPES:
            raise VolumeError("an MGH file of version 1 with numbers", "another", where)
        needed = count_bytes(np.dtype(_MGH_TYPES[kind]), sizes, max_bytes, where)
        data = stream.read(needed)
        footer = stream.read(TRAILING + 1)
    if len(data) < needed or len(footer) > TRAILING:
        raise VolumeError(f"{needed} bytes of voxels, as the header says", f"{len(data)}, or many more after", where)
    # What follows the voxels are notes of the scan and of the programs that wrote the file.
    image = nib.MGHImage.from_bytes(head + data)
    array = np.asarray(image.dataobj)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if oriented and (np.asarray(image.header["delta"]) <= 0).any():
        raise VolumeError("voxel sizes above zero", "others", where)
    return Loaded(array, np.asarray(image.affine, float), oriented, last="volumes" if array.ndim == 4 else "")


def load_pair(path: Path, max_bytes: int, policies: Mapping[str, str], remarks: list[str]) -> Loaded:
    """Read a header and its voxels in two files, `.hdr` and `.img`: Analyze 7.5, SPM, or a pair of NIfTI.

    Args:
        path: the header.
        max_bytes: the most that the voxels may take.
        policies: of `CheckedNiftiReader`, for pairs of NIfTI.
        remarks: takes what they let pass.

    Raises:
        VolumeError: a file is absent, damaged, too large, or the header contradicts itself.
    """
    where = path.name
    voxels = next((p for p in map(path.with_suffix, (".img", ".IMG")) if is_file(p)), None)
    if voxels is None:
        raise VolumeError("a file .img beside the header", "nothing of that name", where)
    image = nib.load(path)
    if not isinstance(image, nib.AnalyzeImage | nib.Nifti1Pair):
        raise VolumeError("Analyze, SPM or NIfTI", "another format", where)
    header = image.header
    dtype = header.get_data_dtype()
    if dtype.names or dtype.kind not in "iuf":
        raise VolumeError("integer or real voxels", "others", where)
    offset = int(abs(float(header["vox_offset"])))
    needed = offset + count_bytes(dtype, image.shape, max_bytes, where)
    size = voxels.stat().st_size
    if not needed <= size <= needed + TRAILING:
        raise VolumeError(f"{needed} bytes of voxels, as the header says", str(size), where)
    array = _narrow(np.asanyarray(image.dataobj), dtype)
    if isinstance(image, nib.Nifti1Pair):
        # The checks of NIfTI settle what is open.
        return Loaded(array, check_affine(image, policies, where, remarks), last="volumes" if array.ndim > 3 else "")
    steps = np.asarray(header.get_zooms()[:3], float)
    if (steps <= 0).any():
        raise VolumeError("voxel sizes above zero", str(steps.tolist()), where)
    # Only SPM's matrix beside the header says where the voxels lie, and which side is left.
    oriented = isinstance(image, nib.Spm99AnalyzeImage) and is_file(path.with_suffix(".mat"))
    return Loaded(array, np.asarray(image.affine, float), oriented, last="volumes" if array.ndim > 3 else "")


def load_parrec(path: Path, max_bytes: int) -> Loaded:
    """Read a PAR file of Philips, of version 4 to 4.2, with its REC, as displayed values, volumes in a fourth axis.

    Args:
        path: the PAR file.
        max_bytes: the most that the voxels may take.

    Raises:
        VolumeError: the REC is absent or of another length, slices are missing, or too large.
    """
    where = path.name
    if path.stat().st_size > _PAR_LONGEST:
        raise VolumeError(f"a PAR file of at most {_PAR_LONGEST} bytes", "more", where)
    voxels = next((p for p in map(path.with_suffix, (".REC", ".rec", ".Rec")) if is_file(p)), None)
    if voxels is None:
        raise VolumeError("a REC file beside the PAR", "nothing of that name", where)
    file_map = {"header": nib.FileHolder(str(path)), "image": nib.FileHolder(str(voxels))}
    image = PARRECImage.from_file_map(file_map, mmap=False, permit_truncated=False, scaling="dv", strict_sort=True)
    shape, dtype = image.shape, image.header.get_data_dtype()
    needed = count_bytes(dtype, shape, max_bytes, where)
    if (size := voxels.stat().st_size) != needed:
        raise VolumeError(f"a REC file of {needed} bytes, as the PAR says", str(size), where)
    array = _narrow(np.asanyarray(image.dataobj), dtype)
    last: Last = "volumes" if array.ndim > 3 and array.shape[3] > 1 else ""
    labels = image.header.get_volume_labels() if last else {}
    return Loaded(array, np.asarray(image.affine, float), last=last, volumes=_describe(labels))


def _describe(labels: Mapping[str, Any]) -> str:
    if not labels:
        return "{}"
    values = [[float(value) for value in values] for values in zip(*labels.values(), strict=True)]
    plain = [value[0] if len(value) == 1 else value for value in values]
    return json.dumps({"dimension": " x ".join(labels), "unit": "", "values": plain, "also": {}, "of": len(plain)})


def _narrow(array: NDArray[Any], stored: np.dtype[Any]) -> NDArray[Any]:
    """Return voxels in native byte order, and scaled ones of at most 16 bits as float32."""
    if array.dtype == np.float64 and stored.kind in "iu" and stored.itemsize <= 2:
        return array.astype(np.float32)
    return array.astype(array.dtype.newbyteorder("="), copy=False)
