"""The distance of pixels, and how far it can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydicom.dataset import Dataset

from monai_medmerge.errors import DicomSeriesError
from monai_medmerge.transforms.dicom.headers import Header, items, numbers

# "patient": in the patient; "calibrated": of a projection, in the patient after a calibration; "detector": of a
# projection, at the detector, where things are larger than they are; "stated": of a projection, which of the two is
# not said; "film": of a scanned film; "region": of an ultrasound region; "ratio": only the ratio is known; "": unknown.
Source = Literal["patient", "calibrated", "detector", "stated", "film", "region", "ratio", ""]

_PROJECTIONS = ("CR", "DX", "MG", "RG", "XA", "RF", "IO", "PX", "RTIMAGE")
_CENTIMETRES = 3


@dataclass(frozen=True, slots=True)
class Spacing:
    """(between rows, between columns) in millimetres, 1 where unknown, and its source."""

    values: tuple[float, float] = (1.0, 1.0)
    source: Source = ""

    @property
    def is_metric(self) -> bool:
        """Whether these are millimetres."""
        return self.source not in ("", "ratio")


def measured_spacing(dataset: Dataset, where: str) -> Spacing | None:
    """Return PixelSpacing, None where there is none."""
    found = _positive(dataset, "PixelSpacing", where)
    return None if found is None else Spacing(found, "patient")


def find_spacing(header: Header, regions: bool = False) -> Spacing:
    """Return the pixel spacing of an object without functional groups (PS3.3 10.7).

    PixelSpacing of a projection is calibrated if it differs from ImagerPixelSpacing or says how it was calibrated; if
    both are equal it is that of the detector (PS3.3 10.7.1.3).

    Args:
        header: of the file.
        regions: whether the spacing of ultrasound regions, which may not be that of the whole picture, counts.

    Raises:
        DicomSeriesError: a spacing is damaged or not positive.
    """
    dataset, where = header.dataset, header.where
    spacing = _positive(dataset, "PixelSpacing", where)
    imager = _positive(dataset, "ImagerPixelSpacing", where)
    if spacing is not None:
        return Spacing(spacing, _trust(header, spacing, imager))
    if imager is not None:
        return Spacing(imager, "detector")
    if (film := _positive(dataset, "NominalScannedPixelSpacing", where)) is not None:
        return Spacing(film, "film")
    if regions and (region := _region_spacing(dataset, where)) is not None:
        return Spacing(region, "region")
    ratio = numbers(dataset, "PixelAspectRatio", where)
    if ratio is not None and len(ratio) == 2 and min(ratio) > 0:
        # Vertical to horizontal (PS3.3 C.7.6.3.1.7).
        return Spacing((ratio[0] / ratio[1], 1.0), "ratio")
    return Spacing()


def _trust(header: Header, spacing: tuple[float, float], imager: tuple[float, float] | None) -> Source:
    if header.text("Modality") not in _PROJECTIONS:
        return "patient"
    if header.text("PixelSpacingCalibrationType"):
        return "calibrated"
    if imager is None:
        return "stated"
    return "detector" if np.allclose(spacing, imager, rtol=1e-4) else "calibrated"


def _positive(dataset: Dataset, keyword: str, where: str) -> tuple[float, float] | None:
    values = numbers(dataset, keyword, where, count=2)
    if values is None:
        return None
    if min(values) <= 0:
        raise DicomSeriesError("a positive spacing", str(min(values)), f"{where}, {keyword}")
    return values[0], values[1]


def _region_spacing(dataset: Dataset, where: str) -> tuple[float, float] | None:
    """Return the spacing that all ultrasound regions in centimetres share (PS3.3 C.8.5.5), None where they do not."""
    found = []
    for region in items(dataset, "SequenceOfUltrasoundRegions", where):
        units = [numbers(region, f"PhysicalUnits{axis}Direction", where) for axis in "YX"]
        steps = [numbers(region, f"PhysicalDelta{axis}", where) for axis in "YX"]
        if all(unit == (_CENTIMETRES,) for unit in units) and all(step and step[0] for step in steps):
            found.append(tuple(10 * abs(step[0]) for step in steps if step))
    if not found or not np.allclose(found, found[0], rtol=1e-3):
        return None
    return found[0][0], found[0][1]
