"""A MONAI reader for DICOM that returns the right volume or says why it cannot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from monai.config import PathLike
from monai.data import ImageReader
from monai.data.utils import affine_to_spacing, orientation_ras_lps
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple
from numpy.typing import NDArray

from monai_medmerge.errors import DicomSeriesError, SettingError
from monai_medmerge.transforms.dicom.archives import is_one_image, is_zip, unzipped
from monai_medmerge.transforms.dicom.arrangement import Arrangement, Choice, arrange
from monai_medmerge.transforms.dicom.geometry.frames import Frame
from monai_medmerge.transforms.dicom.geometry.stacks import POLICIES, Stack
from monai_medmerge.transforms.dicom.geometry.unlocated import frame_time
from monai_medmerge.transforms.dicom.headers import is_dicom
from monai_medmerge.transforms.dicom.names import code, hash_uid
from monai_medmerge.transforms.dicom.series import Series, choose_series, list_unzipped
from monai_medmerge.transforms.dicom.tiles import is_tiled, read_tiles
from monai_medmerge.transforms.dicom.values.modality import Volume, find_transformation, find_units, read_volume
from monai_medmerge.transforms.dicom.values.pixels import Layout, read_layout
from monai_medmerge.transforms.dicom.values.repair import fill_gaps, straighten
from monai_medmerge.transforms.dicom.values.uptake import find_uptake
from monai_medmerge.transforms.dicom.values.voi import describe_voi
from monai_medmerge.transforms.foreign import guarded, is_folder, quiet
from monai_medmerge.transforms.policies import check_finite, complete_policies, give_remarks


@dataclass(frozen=True)
class DicomRequest:
    """What `DicomSeriesReader.read` returns: the paths to read, nothing yet read.

    MONAI's `LoadImage` tries its other readers, silently, when `read` raises, so the work is left to `get_data`.
    """

    paths: tuple[Path, ...]


class DicomSeriesReader(ImageReader):
    """Read one DICOM image or series: a file, a list of files, a folder, a DICOMDIR or a zip of a study.

    The array has axes (x, y, z), as MONAI's `ITKReader` gives them, with RGB or the volumes of a series as a last axis;
    a single frame has one slice. Values are those after the modality LUT, rescaling or real world value mapping. The
    affine maps voxel indices to RAS millimetres. Slices are ordered by position, mosaics unpacked, tiles of a slide put
    together. The metadata holds geometry and a few coded facts, and nothing of the patient.

    Args:
        series_uid: the SeriesInstanceUID to read, or its digest as error messages show it.
        description: a regular expression that the SeriesDescription must contain, whatever the case.
        modality: the Modality to read, such as "CT".
        policies: for each check ("gap", "duplicate", "tilt", "localizer", "unlocated", "acquisition", "nonfinite")
            what a violation leads to: "error" (the default of all), "warn" or "repair"; docs/dicom.md says which check
            offers which.
        monochrome1: "invert" so that high values are bright, except for measurements (CT, PET, dose); "keep" to leave
            them as stored.
        squeeze: leave out the slice axis of a single file with a single frame: (x, y) as for a PNG.
        salt: where given, "series_hash" and "study_hash" are put in the metadata, hashed with it.
        max_bytes: refuse images that would take more memory.
        volume: which volume of a series of several (times, echoes, b-values, ...) to read, from zero; "all" keeps them
            as a last axis; None refuses such series. What tells them apart is in the metadata under "volumes".
        stack: which of several stacks (StackID or orientation) of a series to read, from zero; None refuses them.
        level: which resolution of a whole-slide image to read, from the largest, 0; None where there is only one.
        geometry: "patient", or "none" to read frames as pictures or times, in the order of InstanceNumber and frame.

    Raises:
        DicomSeriesError: from `get_data`, if there is no single, unambiguous, intact volume.
        SettingError: an argument is not one of those that are understood.

    Example:
        >>> from pydicom.data import get_testdata_file
        >>> reader = DicomSeriesReader()
        >>> array, meta = reader.get_data(reader.read(get_testdata_file("CT_small.dcm")))
        >>> array.shape, meta["modality"], meta["units"], array.min()
        ((128, 128, 1), 'CT', 'HU', np.int32(-896))
    """

    def __init__(
        self,
        series_uid: str | None = None,
        description: str | None = None,
        modality: str | None = None,
        policies: Mapping[str, str] | None = None,
        monochrome1: str = "invert",
        squeeze: bool = False,
        salt: str | None = None,
        max_bytes: int = 2**32,
        volume: int | Literal["all"] | None = None,
        stack: int | None = None,
        level: int | None = None,
        geometry: Literal["patient", "none"] = "patient",
    ) -> None:
        super().__init__()
        if not (volume is None or volume == "all" or _is_index(volume)):
            raise SettingError("a number from zero, 'all' or None", repr(volume), "volume")
        for name, number in (("stack", stack), ("level", level)):
            if number is not None and not _is_index(number):
                raise SettingError("a number from zero or None", repr(number), name)
        if geometry not in ("patient", "none"):
            raise SettingError("'patient' or 'none'", repr(geometry), "geometry")
        if monochrome1 not in ("invert", "keep"):
            raise SettingError("'invert' or 'keep'", repr(monochrome1), "monochrome1")
        self.choice = {"uid": series_uid, "description": description, "modality": modality}
        self.policies = complete_policies(POLICIES, policies)
        self.monochrome1 = monochrome1
        self.squeeze = squeeze
        self.salt = salt
        self.max_bytes = max_bytes
        self.part = Choice(volume, stack, geometry == "none")
        self.level = level

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Return whether all are folders or DICOM files, by content rather than by suffix."""
        paths = [Path(name) for name in ensure_tuple(filename)]
        return bool(paths) and all(is_folder(path) or is_dicom(path) for path in paths)

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> DicomRequest:
        """Note what to read; `get_data` reads it."""
        if kwargs:
            raise SettingError("no keyword arguments", ", ".join(kwargs), "DicomSeriesReader.read")
        return DicomRequest(tuple(Path(name) for name in ensure_tuple(data)))

    def get_data(self, img: DicomRequest) -> tuple[NDArray[Any], dict[str, Any]]:
        """Read the volume.

        Args:
            img: what `read` returned.

        Returns:
            The array and its metadata in MONAI's convention.
        """
        names = ", ".join(path.name for path in img.paths[:3])
        with quiet():
            arrangement, volume, meta = guarded(
                DicomSeriesError, "a readable DICOM image", names, lambda: self._read(img.paths)
            )
        give_remarks(arrangement.remarks)
        colored = volume.photometric == "RGB"
        array = volume.array.T if arrangement.several else np.moveaxis(volume.array, (0, 1, 2), (2, 1, 0))
        spatial_shape = array.shape[:3]
        if self.squeeze and len(img.paths) == 1 and spatial_shape[2] == 1 and is_one_image(img.paths[0]):
            array, spatial_shape = array[:, :, 0], spatial_shape[:2]
        affine = orientation_ras_lps(arrangement.stacks[0].affine)
        meta[MetaKeys.AFFINE] = affine
        meta[MetaKeys.ORIGINAL_AFFINE] = affine.copy()
        meta[MetaKeys.SPACE] = SpaceKeys.RAS
        meta[MetaKeys.SPATIAL_SHAPE] = np.asarray(spatial_shape)
        meta[MetaKeys.ORIGINAL_CHANNEL_DIM] = -1 if colored or arrangement.several else float("nan")
        meta["spacing"] = affine_to_spacing(affine)
        return array, meta

    def _read(self, paths: Sequence[Path]) -> tuple[Arrangement, Volume, dict[str, Any]]:
        with unzipped(paths, self.max_bytes) as found:
            return self._read_series(choose_series(list_unzipped(found), **self.choice))

    def _read_series(self, series: Series) -> tuple[Arrangement, Volume, dict[str, Any]]:
        if any(is_tiled(header) for header in series.headers):
            return self._read_slide(series)
        layouts, arrangement = self._arrange(series)
        frames = arrangement.frames
        volume = read_volume(frames, layouts, self.max_bytes, self.monochrome1)
        meta = self._describe(series, arrangement, volume, layouts[frames[0].header.path])
        remarks = list(arrangement.remarks)
        check_finite(volume.array, DicomSeriesError, frames[0].header.where, self.policies["nonfinite"], remarks)
        if arrangement.several:
            if volume.photometric == "RGB":
                raise DicomSeriesError("one volume of colours (volume=0, 1, ...)", "several", frames[0].header.where)
            parts = np.split(volume.array, len(arrangement.stacks))
            done = [self._repair(part, stack) for part, stack in zip(parts, arrangement.stacks, strict=True)]
            array, stacks = np.stack([part for part, _ in done]), tuple(stack for _, stack in done)
        else:
            array, stack = self._repair(volume.array, arrangement.stacks[0])
            stacks = (stack,)
        arrangement = replace(arrangement, stacks=stacks, remarks=tuple(remarks))
        return arrangement, replace(volume, array=array), meta

    def _read_slide(self, series: Series) -> tuple[Arrangement, Volume, dict[str, Any]]:
        stack, volume = read_tiles(series.headers, self.level, self.part.volume, self.policies, self.max_bytes)
        arrangement = Arrangement((stack,), remarks=stack.remarks)
        layout = read_layout(stack.frames[0].header, self.max_bytes)
        return arrangement, volume, self._describe(series, arrangement, volume, layout)

    def locate(self, paths: Sequence[PathLike] | PathLike) -> Stack:
        """Return the files and the geometry of the series that the reader would read, in the order of its slices.

        Args:
            paths: a file, a folder or files, as `read` takes them.

        Raises:
            DicomSeriesError: there is no single, unambiguous series of slices.
        """
        named = tuple(Path(name) for name in ensure_tuple(paths))
        names = ", ".join(path.name for path in named[:3])

        def arranged() -> Stack:
            if any(is_zip(path) for path in named):
                raise DicomSeriesError("files that stay, as results reference them", "a zip file", names)
            series = choose_series(list_unzipped(named), **self.choice)
            if any(is_tiled(header) for header in series.headers):
                raise DicomSeriesError("a series of slices", "tiles of a slide", series.headers[0].where)
            return self._arrange(series)[1].stacks[0]

        with quiet():
            return guarded(DicomSeriesError, "a readable DICOM series", names, arranged)

    def _arrange(self, series: Series) -> tuple[dict[Path, Layout], Arrangement]:
        # Before anything is allocated for frames that a damaged header may count in billions.
        layouts = {header.path: read_layout(header, self.max_bytes) for header in series.headers}
        return layouts, arrange(series.headers, self.policies, self.part)

    def _repair(self, array: NDArray[Any], stack: Stack) -> tuple[NDArray[Any], Stack]:
        """Resample what the policies want repaired."""
        fills = stack.is_uneven and self.policies["gap"] == "repair"
        straightens = stack.is_tilted and self.policies["tilt"] == "repair"
        if array.ndim == 4 and (fills or straightens):
            raise DicomSeriesError("gray values to interpolate", "colours", stack.frames[0].header.where)
        if fills:
            array, stack = fill_gaps(array, stack, self.max_bytes)
        if straightens:
            array, stack = straighten(array, stack, self.max_bytes)
        return array, stack

    def _describe(self, series: Series, arrangement: Arrangement, volume: Volume, layout: Layout) -> dict[str, Any]:
        """Return the facts that are worth keeping: codes and numbers of a fixed shape, so that batches collate."""
        frame: Frame = arrangement.stacks[0].frames[0]
        uptake = find_uptake(series.headers)
        signed = find_transformation(frame).extremes(layout)[0] < 0
        meta: dict[str, Any] = {
            "modality": code(series.modality),
            "photometric_interpretation": volume.photometric,
            "units": find_units(frame) if volume.mirror is None else "",
            "voi": json.dumps(describe_voi(frame, volume.mirror, signed)),
            "volumes": arrangement.volumes,
            "spacing_source": frame.measure.source,
            "frame_time": frame_time(frame.header),
            "suv_factor": uptake.factor,
            "suv_lacks": uptake.lacks,
        }
        if self.salt is not None:
            meta["series_hash"] = hash_uid(series.uid, self.salt)
            meta["study_hash"] = hash_uid(series.headers[0].text("StudyInstanceUID"), self.salt)
        return meta


def _is_index(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= 0
