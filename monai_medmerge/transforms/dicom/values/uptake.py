"""Standardised uptake of PET: what activity becomes relative to the injected dose and the body's weight."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.valuerep import DA, DT, TM

from monai_medmerge.errors import DicomSeriesError
from monai_medmerge.transforms.dicom.headers import Header, items, numbers, open_dicom
from monai_medmerge.transforms.foreign import guarded

# Read for this alone, and only the factor leaves: weight and times are the patient's.
_TAGS = [
    *("Modality", "Units", "SUVType", "CorrectedImage", "DecayCorrection", "PatientWeight"),
    *("SeriesDate", "SeriesTime", "AcquisitionDate", "AcquisitionTime", "FrameReferenceTime", "ActualFrameDuration"),
    "RadiopharmaceuticalInformationSequence",
]
_DOSE = ("RadionuclideTotalDose", "RadionuclideHalfLife")
# Philips' factors from counts to uptake and to Bq/ml.
_PHILIPS = [0x70531000, 0x70531009, 0x70530010]
_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class Uptake:
    """The factor from the values of a PET to uptake by body weight (g/ml), NaN if `lacks` names what is not told."""

    factor: float = math.nan
    lacks: str = ""


def find_uptake(headers: Sequence[Header]) -> Uptake:
    """Return the factor of a PET series, after QIBA's vendor-neutral computation of SUV by body weight.

    factor = weight / (dose * 2^(-t / half-life)), where t is the time from injection to the time that the scanner
    corrected the decay to: the start of the scan, or none if that was the injection.

    Args:
        headers: of the files of one series.
    """
    if headers[0].text("Modality") != "PT":
        return Uptake()
    datasets = [guarded(DicomSeriesError, "a PET image", header.where, partial(_read, header)) for header in headers]
    where = headers[0].where
    try:
        factor = guarded(DicomSeriesError, "attributes of uptake", where, lambda: _factor(datasets, where))
    except _LackError as lack:
        return Uptake(lacks=lack.found)
    except DicomSeriesError as error:
        # Of the place, the keyword alone: a file's name may be a patient's.
        keyword = error.where.split(", ")[-1]
        return Uptake(lacks=f"{keyword if keyword in (*_TAGS, *_DOSE) else 'attributes'} that can be read")
    return Uptake(factor)


class _LackError(DicomSeriesError):
    """An attribute that is not there, or does not say what is needed."""

    def __init__(self, lacks: str) -> None:
        super().__init__("what uptake is computed from", lacks, "PET")


def _read(header: Header) -> Dataset:
    with open_dicom(header.path) as file:
        return pydicom.dcmread(file, stop_before_pixels=True, specific_tags=[*_TAGS, *_PHILIPS])


def _factor(datasets: Sequence[Dataset], where: str) -> float:
    first = datasets[0]
    units = {str(dataset.get("Units") or "") for dataset in datasets}
    if units == {"GML"}:
        if str(first.get("SUVType") or "BW") != "BW":
            raise _LackError("uptake by body weight (SUVType)")
        return 1.0
    if units == {"CNTS"}:
        scale = _philips(first, 0x00)
        if scale is not None:
            return scale
        activity = _philips(first, 0x09)
        if activity is None:
            raise _LackError("Units of Bq/ml")
        return activity * _per_activity(datasets, where)
    if units != {"BQML"}:
        raise _LackError("Units of Bq/ml")
    return _per_activity(datasets, where)


def _philips(dataset: Dataset, element: int) -> float | None:
    creator = dataset.get(0x70530010)
    tag = 0x70531000 + element
    if creator is None or "Philips PET Private Group" not in str(creator.value) or tag not in dataset:
        return None
    value = float(np.atleast_1d(dataset[tag].value)[0])
    return value if math.isfinite(value) and value > 0 else None


def _per_activity(datasets: Sequence[Dataset], where: str) -> float:
    first = datasets[0]
    for dataset in datasets:
        corrected = dataset.get("CorrectedImage") or ()
        if isinstance(corrected, str) or not {"ATTN", "DECY"} <= set(corrected):
            raise _LackError("CorrectedImage of attenuation and decay")
    weight = _positive(first, "PatientWeight", where)
    injected = items(first, "RadiopharmaceuticalInformationSequence", where)[:1]
    if not injected:
        raise _LackError("RadiopharmaceuticalInformationSequence")
    dose, half_life = (_positive(injected[0], keyword, where) for keyword in _DOSE)
    correction = str(first.get("DecayCorrection") or "")
    if correction == "ADMIN":
        return weight * 1000 / dose
    if correction != "START":
        raise _LackError("DecayCorrection")
    start = _start(datasets, half_life)
    elapsed = (start - _injection(injected[0], start)).total_seconds()
    if not 0 <= elapsed < _SECONDS:
        raise _LackError("an injection in the day before the scan")
    return float(weight * 1000 / (dose * 2 ** (-elapsed / half_life)))


def _positive(dataset: Dataset, keyword: str, where: str) -> float:
    found = numbers(dataset, keyword, where, count=1)
    if found is None or found[0] <= 0:
        raise _LackError(keyword)
    return found[0]


def _start(datasets: Sequence[Dataset], half_life: float) -> datetime.datetime:
    """Return the time that decay was corrected to: the series' own, unless that is of a later reconstruction."""
    acquired = [_moment(dataset, "Acquisition") for dataset in datasets]
    series = _moment(datasets[0], "Series")
    if series <= min(acquired):
        return series
    # The mean time of decay of a frame lies FrameReferenceTime after the start, and within its duration.
    rate = math.log(2) / half_life
    starts = []
    for dataset, moment in zip(datasets, acquired, strict=True):
        reference, duration = dataset.get("FrameReferenceTime"), dataset.get("ActualFrameDuration")
        if reference is None or not duration:
            raise _LackError("the time that decay was corrected to")
        length = float(duration) / 1000
        mean = math.log(rate * length / -math.expm1(-rate * length)) / rate
        starts.append(moment + datetime.timedelta(seconds=mean - float(reference) / 1000))
    return min(starts)


def _moment(dataset: Dataset, word: str) -> datetime.datetime:
    date, time = dataset.get(f"{word}Date"), dataset.get(f"{word}Time")
    if not date or not time:
        raise _LackError(f"{word}Date and {word}Time")
    return datetime.datetime.combine(_plain(DA(date)), _plain(TM(time)))


def _injection(item: Dataset, start: datetime.datetime) -> datetime.datetime:
    if stated := item.get("RadiopharmaceuticalStartDateTime"):
        return _plain(DT(stated)).replace(tzinfo=None)
    time = item.get("RadiopharmaceuticalStartTime")
    if not time:
        raise _LackError("RadiopharmaceuticalStartTime")
    moment = datetime.datetime.combine(start.date(), _plain(TM(time)))
    return moment if moment <= start else moment - datetime.timedelta(days=1)


def _plain(value: Any) -> Any:
    if value is None:
        raise _LackError("times that can be read")
    return value
