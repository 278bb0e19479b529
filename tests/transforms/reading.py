"""Shorthands: read with this package's reader, and with ITK's through MONAI."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import ITKReader

from monai_medmerge.transforms import DicomSeriesReader


def read(path: Path, **arguments: Any) -> tuple[np.ndarray, dict[str, Any]]:
    """Read with `DicomSeriesReader`."""
    reader = DicomSeriesReader(**arguments)
    return reader.get_data(reader.read(path))


def read_with_itk(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """Read with MONAI's `ITKReader`, the oracle for geometry, and for values where ITK is right."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader = ITKReader()
        return reader.get_data(reader.read(path))
