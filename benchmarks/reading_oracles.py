"""What a volume must be, by readers that share no code with ours: pydicom frame by frame, dcm2niix, nibabel."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut

_TOLERANCE = 0.05


@dataclass(frozen=True)
class Plane:
    """A frame as its file describes it: values (row, column[, RGB]), first voxel and axes in LPS where it has them."""

    values: np.ndarray
    origin: np.ndarray | None
    axes: np.ndarray | None


def planes_of(path: Path) -> Iterator[Plane]:
    """Yield the frames of one file with pydicom alone."""
    dataset = pydicom.dcmread(path)
    pixels = _decoded(dataset, path)
    count = int(dataset.get("NumberOfFrames") or 1)
    frames = pixels if count > 1 or (pixels.shape[0] == 1 and pixels.ndim > 2) else pixels[None]
    for index, values in enumerate(frames):
        groups = _groups(dataset, index)
        scaled = _modality_values(values, dataset, groups)
        origin = _first(
            groups,
            ("PlanePositionSequence", "PlanePositionVolumeSequence"),
            ("ImagePositionPatient", "ImagePositionVolume"),
        )
        axes = _first(
            groups,
            ("PlaneOrientationSequence", "PlaneOrientationVolumeSequence"),
            ("ImageOrientationPatient", "ImageOrientationVolume"),
        )
        if count == 1 or "GridFrameOffsetVector" in dataset:
            origin = dataset.get("ImagePositionPatient") if origin is None else origin
            axes = dataset.get("ImageOrientationPatient") if axes is None else axes
        place = None if origin is None else np.array(origin, float)
        turned = None if axes is None else np.array(axes, float)
        if place is not None and "GridFrameOffsetVector" in dataset and count > 1 and turned is not None:
            offsets = [float(offset) for offset in dataset.GridFrameOffsetVector]
            place = place + np.cross(turned[:3], turned[3:]) * (offsets[index] - offsets[0])
        yield Plane(scaled, place, turned)


def _decoded(dataset: Dataset, path: Path) -> np.ndarray:
    if dataset.file_meta.TransferSyntaxUID in ("1.2.840.10008.1.2.4.51",):
        # pydicom has no decoder for JPEG of 12 bits that is free of the GPL; ITK has.
        import itk

        return np.asarray(itk.GetArrayFromImage(itk.imread(str(path))))
    return np.asarray(dataset.pixel_array)


def _groups(dataset: Dataset, index: int) -> list[Dataset]:
    own = dataset.get("PerFrameFunctionalGroupsSequence") or []
    return [*own[index : index + 1], *(dataset.get("SharedFunctionalGroupsSequence") or [])[:1]]


def _first(groups: Sequence[Dataset], macros: Sequence[str], keywords: Sequence[str]) -> Any:
    for macro, keyword in zip(macros, keywords, strict=True):
        for group in groups:
            for item in group.get(macro) or []:
                if item.get(keyword) is not None:
                    return item[keyword].value
    return None


def _modality_values(values: np.ndarray, dataset: Dataset, groups: Sequence[Dataset]) -> np.ndarray:
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        return apply_color_lut(values, dataset)
    if dataset.SamplesPerPixel != 1:
        return values
    if dataset.get("SOPClassUID") == "1.2.840.10008.5.1.4.1.1.30":
        slope = _first(groups, ("RealWorldValueMappingSequence",), ("RealWorldValueSlope",))
        intercept = _first(groups, ("RealWorldValueMappingSequence",), ("RealWorldValueIntercept",))
        return values.astype(float) * float(slope) + float(intercept)
    slope = _first(groups, ("PixelValueTransformationSequence",), ("RescaleSlope",))
    if slope is not None:
        intercept = _first(groups, ("PixelValueTransformationSequence",), ("RescaleIntercept",))
        return values.astype(float) * float(slope) + float(intercept)
    return np.asarray(apply_modality_lut(values, dataset)) * float(dataset.get("DoseGridScaling") or 1)


def compare_frames(array: np.ndarray, meta: Mapping[str, Any], files: Sequence[Path]) -> str:
    """Return "right" where each slice of each volume is a frame of the files that lies where the affine says.

    Returns:
        "right", or what is wrong.
    """
    planes = [plane for path in files for plane in planes_of(path)]
    color = meta["photometric_interpretation"] == "RGB"
    affine = np.diag([-1.0, -1, 1, 1]) @ np.asarray(meta["affine"], float)
    volume = array if array.ndim > (3 if color else 2) else array[:, :, None]
    slices = np.moveaxis(volume, (0, 1, 2), (2, 1, 0)) if color or volume.ndim == 3 else None
    if slices is not None:
        parts = [(k, values) for k, values in enumerate(slices)]
    else:
        parts = [(k, volume[:, :, k, t].T) for k in range(volume.shape[2]) for t in range(volume.shape[3])]
    if len(parts) > len(planes):
        return f"{len(parts)} slices of {len(planes)} frames"
    used: set[int] = set()
    for k, values in parts:
        corner = affine[:3, 3] + k * affine[:3, 2]
        fits = [n for n, plane in enumerate(planes) if n not in used and _same(values, plane, corner, affine, meta)]
        if not fits:
            return "a slice that is no frame at its place"
        used.add(fits[0])
    return "right"


def _same(values: np.ndarray, plane: Plane, corner: np.ndarray, affine: np.ndarray, meta: Mapping[str, Any]) -> bool:
    if plane.origin is not None and plane.axes is not None:
        if np.linalg.norm(plane.origin - corner) > _TOLERANCE * np.linalg.norm(affine[:3, 2]) + 1e-3:
            return False
        steps = affine[:3, :2] / np.linalg.norm(affine[:3, :2], axis=0)
        if abs(steps.T.reshape(-1) - plane.axes).max() > 1e-2:
            return False
    if values.shape != plane.values.shape:
        return False
    if np.allclose(values, plane.values, rtol=1e-4, atol=1e-4):
        return True
    # MONOCHROME1 that was inverted: the sum with what is stored is one number.
    total = values.astype(float) + plane.values
    return meta["photometric_interpretation"] == "MONOCHROME2" and bool(np.ptp(total) < 1e-6 * max(abs(total).max(), 1))


def compare_volumes(array: np.ndarray, affine: np.ndarray, reference: nib.Nifti1Image) -> str:
    """Compare with an image whose voxels lie at the same places: "right", "wrong values", or "other grid"."""
    if reference.ndim not in (3, 4) or array.ndim not in (3, 4):
        return "other grid"
    shape = np.array(array.shape[:3])
    change = np.linalg.inv(reference.affine) @ affine
    corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)]) * [*(shape - 1), 1]
    places = (corners @ change.T)[:, :3]
    outside = (np.rint(places) < 0).any() or (np.rint(places) >= reference.shape[:3]).any()
    if outside or abs(places - np.rint(places)).max() > _TOLERANCE or sorted(shape) != sorted(reference.shape[:3]):
        return "other grid"
    indices = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).reshape(3, -1)
    index = tuple(np.rint(change[:3, :3] @ indices + change[:3, 3:]).astype(int))
    values = np.asarray(reference.dataobj, dtype=float)[index]
    mine = array.reshape(-1, *array.shape[3:]).astype(float)
    if values.shape != mine.shape:
        return "other grid"
    scale = max(float(abs(mine).max()), 1.0)
    return "right" if np.allclose(values, mine, rtol=1e-4, atol=1e-5 * scale) else "wrong values"


def convert(files: Sequence[Path]) -> list[nib.Nifti1Image]:
    """Return what dcm2niix makes of files, empty where it is not installed, fails, or takes over a minute."""
    program = shutil.which("dcm2niix") or shutil.which("dcm2niix", path=str(Path(sys.executable).parent))
    if program is None:
        return []
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "in", Path(folder) / "out"
        source.mkdir()
        out.mkdir()
        for number, path in enumerate(files):
            (source / f"{number:05d}.dcm").symlink_to(path.resolve())
        command = [program, "-o", str(out), "-f", "%s_%d_x", "-b", "n", "-m", "n", str(source)]
        try:
            subprocess.run(command, capture_output=True, timeout=60, check=False)
        except subprocess.TimeoutExpired:
            return []
        images = []
        for path in sorted(out.glob("*.nii")):
            image = nib.load(path)
            images.append(nib.Nifti1Image(np.asarray(image.dataobj), image.affine))
        return images


def compare_mosaic(array: np.ndarray, meta: Mapping[str, Any], files: Sequence[Path]) -> str:
    """Compare unpacked Siemens mosaics, one volume a file, with nibabel's unpacking."""
    parts = [array] if array.ndim == 3 else list(np.moveaxis(array, -1, 0))
    references = [_unpack(path) for path in files]
    for part in parts:
        found = [compare_volumes(part, np.asarray(meta["affine"]), reference) for reference in references]
        if "right" not in found:
            return found[0]
        references.pop(found.index("right"))
    return "right"


def _unpack(path: Path) -> nib.Nifti1Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from nibabel.nicom.dicomwrappers import wrapper_from_file

        wrapper = wrapper_from_file(path)
        data, affine = np.swapaxes(wrapper.get_data(), 0, 1), wrapper.affine @ np.eye(4)[[1, 0, 2, 3]]
    return nib.Nifti1Image(np.asarray(data, float), np.diag([-1.0, -1, 1, 1]) @ affine)


def compare_nifti(array: np.ndarray, meta: Mapping[str, Any], path: Path) -> str:
    """Compare with nibabel's reading of the file: values, and places in space."""
    image = nib.load(path)
    values = np.asarray(image.dataobj)
    if values.dtype.names:
        values = np.stack([values[name] for name in ("R", "G", "B")], axis=-1).reshape(array.shape)
    if values.size != array.size or not np.allclose(values.reshape(array.shape), array, rtol=1e-4, equal_nan=True):
        return "wrong values"
    affines = [image.affine, image.get_sform(), image.get_qform()] if _computable(image) else [image.affine]
    unit = {1: 1000.0, 3: 0.001}.get(int(image.header["xyzt_units"]) & 7, 1.0)
    scale = np.diag([unit, unit, unit, 1.0])
    right = any(np.allclose(meta["affine"], scale @ affine, atol=1e-3) for affine in affines)
    return "right" if right else "wrong place"


def compare_other(array: np.ndarray, meta: Mapping[str, Any], path: Path) -> str:
    """Compare with ITK's reading of an NRRD or MetaImage, and nibabel's of other volumes."""
    if path.suffix.lower() in (".nrrd", ".nhdr", ".mha", ".mhd"):
        import itk

        picture = itk.imread(str(path))
        values = np.asarray(itk.array_from_image(picture))
        values = np.moveaxis(values, (0, 1, 2), (2, 1, 0)) if values.ndim > 3 else values.T
        affine = np.eye(4)
        affine[:3, :3] = itk.array_from_matrix(picture.GetDirection())[:3, :3] * list(picture.GetSpacing())[:3]
        affine[:3, 3] = list(picture.GetOrigin())[:3]
        affine = np.diag([-1.0, -1, 1, 1]) @ affine
    else:
        image = nib.load(path, strict_sort=True) if path.suffix.lower() == ".par" else nib.load(path)
        values, affine = np.asarray(image.dataobj), image.affine
    if values.size != array.size or not np.allclose(values.reshape(array.shape), array, rtol=1e-4, equal_nan=True):
        return "wrong values"
    return "right" if np.allclose(meta["affine"], affine, atol=1e-3) else "wrong place"


def _computable(image: nib.Nifti1Image) -> bool:
    try:
        return bool(math.isfinite(float(np.sum(image.get_qform()))))
    except (ValueError, nib.spatialimages.HeaderDataError):
        return False
