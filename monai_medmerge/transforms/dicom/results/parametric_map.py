"""Probabilities as a DICOM parametric map on the grid of the images that they were made from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.data.utils import orientation_ras_lps
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from monai_medmerge.errors import DicomSeriesError, SettingError
from monai_medmerge.files import whole_file
from monai_medmerge.transforms.dicom.geometry.stacks import Stack
from monai_medmerge.transforms.dicom.reader import DicomSeriesReader
from monai_medmerge.transforms.dicom.results.source import (
    as_volume,
    check_grid,
    highdicom,
    made_here,
    read_source,
    require_highdicom,
)
from monai_medmerge.transforms.foreign import guarded, quiet

Array = NDArray[Any]

SERIES_NUMBER = 301


def write_parametric_map(
    probabilities: Array,
    affine: Array,
    source: Sequence[str | Path] | str | Path,
    name: str,
    path: str | Path,
    reader: DicomSeriesReader | None = None,
) -> Path:
    """Write the probabilities of one class as a DICOM parametric map of 32-bit floats (PS3.3 A.75).

    Patient and study are those of the source. `DicomSeriesReader` reads it back, value for value. A file has one class,
    because a file of several has several values for each voxel, which few viewers show.

    Args:
        probabilities: (x, y, z), from 0 to 1, on the source's grid.
        affine: 4 x 4, from their voxels to RAS millimetres.
        source: the folder, file or files of the series.
        name: of the class.
        path: the file to write.
        reader: how the series was chosen and read, where it was not by a default `DicomSeriesReader`.

    Returns:
        The path; the file is there whole or not at all.

    Raises:
        SettingError: highdicom is not installed, values are no probabilities, or the name is none.
        DicomSeriesError: they are not on the series' grid, or the series lacks what is to be referenced.
    """
    require_highdicom("write_parametric_map")
    if not name or not name.isprintable() or len(name) > 64:
        raise SettingError("a name of 1 to 64 printable characters", f"{len(name)}", "name")
    values = np.asarray(probabilities, np.float32)
    if values.ndim != 3 or not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
        raise SettingError("probabilities (x, y, z) from 0 to 1", "others", "probabilities")
    with quiet():
        stack = (reader or DicomSeriesReader()).locate(source)
        check_grid(values.shape, orientation_ras_lps(affine), stack, "probabilities")
        where = stack.frames[0].header.where
        expected = "a series that a parametric map can reference"
        built = guarded(DicomSeriesError, expected, where, lambda: _build(values, stack, name))
        with whole_file(path) as part:
            built.save_as(part, enforce_file_format=True)
    return Path(path)


def _build(values: Array, stack: Stack, name: str) -> Dataset:
    paths = dict.fromkeys(frame.header.path for frame in stack.frames)
    sources = [read_source(path, name.isascii()) for path in paths]
    meaning = highdicom.pm.RealWorldValueMapping(
        lut_label=name[:16],
        lut_explanation=f"Probability of {name}"[:64],
        unit=codes.UCUM.NoUnits,
        value_range=(0.0, 1.0),
        slope=1.0,
        intercept=0.0,
    )
    built = highdicom.pm.ParametricMap(
        source_images=sources,
        pixel_array=as_volume(values, stack, sources[0].FrameOfReferenceUID),
        real_world_value_mappings=[meaning],
        contains_recognizable_visual_features=False,
        window_center=0.5,
        window_width=1.0,
        content_label="PROBABILITY",
        content_description=f"Probability of {name}"[:64],
        **made_here(SERIES_NUMBER, f"Probability of {name}"[:64]),
    )
    if "Laterality" not in built:
        # Of type 2C: empty where the source does not say whether the part is one of a pair.
        built.Laterality = ""
    return built
