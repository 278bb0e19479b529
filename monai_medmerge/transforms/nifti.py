"""A MONAI reader for NIfTI that checks what the header says against itself."""

from __future__ import annotations

import gzip
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from monai_medmerge.errors import NiftiError
from monai_medmerge.transforms.foreign import guarded, is_file, quiet
from monai_medmerge.transforms.policies import check_finite, give_remarks, settle
from monai_medmerge.transforms.sidecar import describe_volumes
from monai_medmerge.transforms.spatial import choose_volume, spatial_meta
from monai_medmerge.transforms.volume_files import VolumeFileReader, VolumeRequest

_MILLIMETRES = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
_MAX_OFFSET = 2**24
_TRAILING = 2**16
_LARGEST_HEADER = 540


class CheckedNiftiReader(VolumeFileReader):
    """Read one NIfTI-1 or NIfTI-2 file, `.nii` or `.nii.gz`.

    The array has axes (x, y, z), with the colours of an RGB file or the volumes of a 4-D file as a last axis. Values
    are scaled by scl_slope and scl_inter; integers without scaling stay integers. The affine maps to RAS millimetres.
    "volumes" in the metadata says what tells volumes apart: b-values or times, of files beside the image or its header.

    Args:
        volume: which volume of a 4-D file to read, from zero; "all" keeps them as channels; None refuses such files.
        policies: for each check what a violation leads to, "error" unless given: "forms" (sform and qform disagree:
            "sform" or "qform" says which one holds), "no_form" (neither is set: "warn" takes nibabel's guess),
            "spacing" (pixdim and the affine disagree: "warn" takes the affine), "units" (not mm: "repair" converts),
            "nonfinite" (NaN or infinite voxels: "warn" keeps them).
        max_bytes: refuse images that would take more memory.

    Raises:
        NiftiError: from `get_data`, if the file is damaged, contradicts itself or leaves a choice open.
        SettingError: an argument is not one of those that are understood.

    Example:
        >>> import tempfile, nibabel, numpy
        >>> file = tempfile.NamedTemporaryFile(suffix=".nii.gz")
        >>> nibabel.save(nibabel.Nifti1Image(numpy.ones((4, 5, 6), "int16"), numpy.diag([1, 2, 3, 1])), file.name)
        >>> reader = CheckedNiftiReader()
        >>> array, meta = reader.get_data(reader.read(file.name))
        >>> array.shape, array.dtype.name, meta["spacing"].tolist()
        ((4, 5, 6), 'int16', [1.0, 2.0, 3.0])
    """

    suffixes = (".nii", ".nii.gz")

    def get_data(self, img: VolumeRequest) -> tuple[NDArray[Any], dict[str, Any]]:
        """Read the volume.

        Args:
            img: what `read` returned.

        Returns:
            The array and its metadata in MONAI's convention.
        """
        remarks: list[str] = []
        with quiet():
            array, affine, channels, volumes = guarded(
                NiftiError, "a readable NIfTI image", img.path.name, lambda: self._read(img.path, remarks)
            )
        give_remarks(remarks)
        return array, {**spatial_meta(array, affine, channels), "volumes": volumes}

    def _read(self, path: Path, remarks: list[str]) -> tuple[NDArray[Any], NDArray[np.float64], bool, str]:
        image = load_nifti(path, self.max_bytes)
        affine = check_affine(image, self.policies, path.name, remarks)
        array, channels = self._select(_scaled_voxels(image, path.name), path.name)
        check_finite(array, NiftiError, path.name, self.policies["nonfinite"], remarks)
        count = image.shape[3] if len(image.shape) == 4 else 1
        return array, affine, channels, describe_volumes(path, image.header, count, self.volume)

    def _select(self, array: NDArray[Any], where: str) -> tuple[NDArray[Any], bool]:
        """Return the volume that was asked for, and whether a last axis holds channels."""
        if array.dtype.names:
            if array.ndim > 3 and array.shape[3:] != (1,) * (array.ndim - 3):
                raise NiftiError("one volume in an RGB file", "several", where)
            array = array.reshape(array.shape[:3])
            # An alpha channel is dropped.
            return np.stack([array[name] for name in ("R", "G", "B")], axis=-1), True
        return choose_volume(array, self.volume, NiftiError, where)


def load_nifti(path: Path, max_bytes: int) -> nib.Nifti1Image:
    """Load a NIfTI file after checking that it is as long as its header says, and no longer than allowed.

    Args:
        path: the file, compressed with gzip or not.
        max_bytes: the most that the voxels may take.

    Raises:
        NiftiError: the file is absent, of another format, truncated, too large, or its checksum is wrong.
    """
    if not is_file(path):
        raise NiftiError("a file", "nothing of that name", path.name)
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    with gzip.open(path) if compressed else path.open("rb") as stream:
        head = stream.read(_LARGEST_HEADER)
        image_class = _find_class(head, path.name)
        size = image_class.header_class.template_dtype.itemsize
        header = image_class.header_class(head[:size], check=False)
        needed = _count_bytes(header, max_bytes, path.name)
        _check_stored(header, path.name)
        data = head + stream.read(max(needed - len(head), 0))
        # Reading on to the end makes gzip compare its checksum; the limit keeps a bomb from going off.
        trailing = len(stream.read(_TRAILING + 1))
    if len(data) < needed or trailing > _TRAILING:
        found = f"{len(data)}" if len(data) < needed else "many more"
        raise NiftiError(f"{needed} bytes, as the header says", found, path.name)
    # Extensions are notes of the program that wrote the file: nothing of them is needed, and some are malformed.
    return image_class.from_bytes(data[:size] + bytes(4) + data[size + 4 :])


def _find_class(head: bytes, where: str) -> type[nib.Nifti1Image]:
    if head[344:348] == b"n+1\x00":
        return nib.Nifti1Image
    if head[4:8] == b"n+2\x00":
        return nib.Nifti2Image
    if head[344:348] == b"ni1\x00" or head[4:8] == b"ni2\x00":
        raise NiftiError("header and voxels in one file (.nii)", "a pair of .hdr and .img", where)
    raise NiftiError("a NIfTI file", "another or a damaged format", where)


def _count_bytes(header: nib.Nifti1Header, max_bytes: int, where: str) -> int:
    """Return how many bytes header and voxels take, computed without trusting any size."""
    rank = int(header["dim"][0])
    shape = [int(size) for size in header["dim"][1 : rank + 1]]
    if not 1 <= rank <= 7 or min(shape) < 1:
        raise NiftiError("one to seven dimensions above zero", "others", f"{where}, dim")
    voxels = math.prod(shape) * header.get_data_dtype().itemsize
    if not 0 < voxels <= max_bytes:
        raise NiftiError(f"at most {max_bytes} bytes (max_bytes)", str(voxels), where)
    offset = float(header["vox_offset"])
    if not 352 <= offset <= _MAX_OFFSET or not offset.is_integer():
        raise NiftiError("voxels after the header and its extensions", "another offset", f"{where}, vox_offset")
    return int(offset) + voxels


def _check_stored(header: nib.Nifti1Header, where: str) -> None:
    """Refuse numbers that nibabel replaces by others as it loads a file."""
    sizes = np.asarray(header["pixdim"][1 : min(int(header["dim"][0]), 3) + 1], dtype=float)
    if int(header["sform_code"]) <= 0 and (sizes <= 0).any():
        # The qform takes voxel sizes from here, where NIfTI wants them positive.
        raise NiftiError("voxel sizes above zero", f"{sizes.round(4).tolist()}", f"{where}, pixdim")
    if np.isinf([float(header["scl_slope"]), float(header["scl_inter"])]).any():
        raise NiftiError("a finite scl_slope and scl_inter", "an infinite one", where)
    if int(header["sform_code"]) <= 0 and int(header["qform_code"]) > 0 and _find_qform(header) is None:
        raise NiftiError("a qform that can be computed", "another, and no sform", where)


def _find_qform(header: nib.Nifti1Header) -> NDArray[np.float64] | None:
    """Return the affine of the qform, None where there is none to compute, as of a quaternion longer than one."""
    try:
        qform = np.asarray(header.get_qform(), dtype=float)
    except (ValueError, HeaderDataError, np.linalg.LinAlgError):
        return None
    return qform if np.isfinite(qform).all() else None


def _scaled_voxels(image: nib.Nifti1Image, where: str) -> NDArray[Any]:
    """Return the voxels in native byte order: scaled as floats, integers where nothing is to be scaled."""
    raw = np.asanyarray(image.dataobj.get_unscaled())
    raw = raw.astype(raw.dtype.newbyteorder("="), copy=False)
    if raw.dtype.names:
        return raw
    if raw.dtype.kind not in "iuf":
        raise NiftiError("integer, real or RGB voxels", f"{raw.dtype.name}", f"{where}, datatype")
    slope, intercept = (float(image.dataobj.slope), float(image.dataobj.inter))
    # nibabel reads a slope of zero or NaN as "no scaling", as the standard says.
    if not math.isfinite(slope) or not math.isfinite(intercept):
        raise NiftiError("a finite scl_slope and scl_inter", "others", where)
    if (slope, intercept) == (1.0, 0.0):
        return raw
    dtype = np.result_type(raw.dtype, np.float32)
    return raw.astype(dtype) * dtype.type(slope) + dtype.type(intercept)


def check_affine(
    image: nib.Nifti1Image, policies: Mapping[str, str], where: str, remarks: list[str]
) -> NDArray[np.float64]:
    """Return the affine to RAS millimetres, after comparing what the header says about it in several places.

    Args:
        image: the loaded image.
        policies: one for each of `VOLUME_POLICIES`.
        where: the file's base name.
        remarks: takes what the policies let pass.

    Raises:
        NiftiError: sform, qform, pixdim or units contradict one another and the policy is not to go on, or the
            affine is singular.
    """
    header = image.header
    sform = header.get_sform(coded=True)[0]
    states_qform = int(header["qform_code"]) > 0
    qform = _find_qform(header) if states_qform else None
    spacing = np.asarray(header.get_zooms()[:3], dtype=float)
    affine = np.asarray(image.affine, dtype=float)
    if sform is not None and states_qform and qform is None:
        expected, found = "sform and qform to agree", "a qform that cannot be computed"
        settle(
            NiftiError(expected, found, where), "error" if policies["forms"] == "qform" else policies["forms"], remarks
        )
    elif sform is None and qform is None:
        found = "neither qform_code nor sform_code"
        settle(NiftiError("an orientation", found, where), policies["no_form"], remarks)
    elif sform is not None and qform is not None and _corner_distance(sform, qform, image.shape) > 0.1 * spacing.min():
        distance = f"corners up to {_corner_distance(sform, qform, image.shape):.3g} apart"
        settle(NiftiError("sform and qform to agree", distance, where), policies["forms"], remarks)
        affine = np.asarray(qform if policies["forms"] == "qform" else sform, dtype=float)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise NiftiError("an affine that can be inverted", "a singular one", where)
    steps = np.linalg.norm(affine[:3, :3], axis=0)[: len(spacing)]
    if not np.allclose(steps, spacing, rtol=1e-2):
        found = f"pixdim {spacing.round(4).tolist()}, affine {steps.round(4).tolist()}"
        settle(NiftiError("voxel sizes that agree", found, where), policies["spacing"], remarks)
    unit = int(header["xyzt_units"]) & 0x07
    if unit not in _MILLIMETRES:
        raise NiftiError("metres, millimetres or micrometres", f"code {unit}", f"{where}, xyzt_units")
    if (factor := _MILLIMETRES[unit]) != 1:
        settle(NiftiError("millimetres", "metres" if unit == 1 else "micrometres", where), policies["units"], remarks)
        affine[:3] *= factor
    return affine


def _corner_distance(one: NDArray[np.float64], other: NDArray[np.float64], shape: Sequence[int]) -> float:
    """Return how far two affines put a corner of the grid apart, at most."""
    sizes = (*shape[:3], 1, 1, 1)[:3]
    corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)]) * [*(np.array(sizes) - 1), 1]
    return float(np.linalg.norm(corners @ (np.asarray(one) - np.asarray(other)).T, axis=1).max())
