"""Real world values: what the stored values of a parametric map mean, and in which unit (PS3.3 C.7.6.16.2.11)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ParametricMapStorage

from monai_medmerge.errors import DicomSeriesError
from monai_medmerge.transforms.dicom.geometry.frames import Frame
from monai_medmerge.transforms.dicom.headers import items, numbers

Array = NDArray[Any]
_SEQUENCE = "RealWorldValueMappingSequence"
# Units with exponents, their products and quotients, percentages, ratios, uptake and Hounsfield units.
_UNIT = r"[a-zA-Z]{1,4}-?\d?"
_UCUM = rf"1|%|\{{ratio\}}|\[hnsf'U\]|\{{SUV\w{{2,3}}\}}g/ml|(10\*-?\d+\.?|1/)?{_UNIT}([./]{_UNIT}){{0,3}}"


@dataclass(frozen=True, slots=True)
class Mapping:
    """What a range of stored values means.

    Args:
        first: the least stored value that it is for.
        last: the greatest.
        slope: factor.
        intercept: summand.
        table: a value for each stored one from first to last, instead of slope and intercept.
        unit: in UCUM, such as "mm2/s"; empty where it is not coded so.
    """

    first: float
    last: float
    slope: float
    intercept: float
    table: tuple[float, ...] | None
    unit: str

    def apply(self, values: Array, out: Array) -> None:
        """Write what the stored values in range mean into `out`, and leave the others."""
        inside = (values >= self.first) & (values <= self.last)
        if self.table is None:
            out[inside] = values[inside].astype(out.dtype) * self.slope + self.intercept
        else:
            out[inside] = np.asarray(self.table, out.dtype)[values[inside].astype(np.int64) - int(self.first)]


def is_parametric_map(frame: Frame) -> bool:
    """Whether stored values mean nothing without their mapping."""
    return frame.header.sop_class == ParametricMapStorage


def find_mappings(frame: Frame) -> tuple[Mapping, ...]:
    """Return the mappings of a frame of a parametric map: its own, the shared ones, or the object's.

    Raises:
        DicomSeriesError: there are none, ranges overlap, units differ, or an attribute is damaged.
    """
    where = frame.where
    found: list[Dataset] = []
    for place in (*frame.groups, frame.header.dataset):
        if found := items(place, _SEQUENCE, where):
            break
    if not found:
        raise DicomSeriesError(f"a {_SEQUENCE} of a parametric map", "none", where)
    mappings = sorted((_parse(item, where) for item in found), key=lambda mapping: mapping.first)
    for one, other in pairwise(mappings):
        if one.last >= other.first:
            raise DicomSeriesError("one real world value for each stored one", f"{len(found)} mappings", where)
        if one.unit != other.unit:
            raise DicomSeriesError("real world values of one unit", "several", where)
    return tuple(mappings)


def apply_mappings(mappings: Sequence[Mapping], values: Array, out: Array) -> None:
    """Write real world values into a floating array; what no mapping is for becomes NaN."""
    out[...] = np.nan
    for mapping in mappings:
        mapping.apply(values, out)


def _parse(item: Dataset, where: str) -> Mapping:
    first, last = (_one(item, where, f"RealWorldValue{end}ValueMapped") for end in ("First", "Last"))
    if first is None or last is None:
        first, last = (_one(item, where, f"DoubleFloatRealWorldValue{end}ValueMapped") for end in ("First", "Last"))
    if first is None or last is None or first > last:
        raise DicomSeriesError("a range of stored values with a meaning", "none", f"{where}, {_SEQUENCE}")
    table = numbers(item, "RealWorldValueLUTData", where)
    slope, intercept = _one(item, where, "RealWorldValueSlope"), _one(item, where, "RealWorldValueIntercept")
    if table is not None and len(table) != int(last) - int(first) + 1:
        raise DicomSeriesError("a value for each stored one", f"{len(table)}", f"{where}, RealWorldValueLUTData")
    if table is None and (slope is None or intercept is None or slope == 0):
        raise DicomSeriesError("slope and intercept, or a table", "neither", f"{where}, {_SEQUENCE}")
    return Mapping(first, last, slope or 1.0, intercept or 0.0, table, _unit(item, where))


def _one(item: Dataset, where: str, keyword: str) -> float | None:
    found = numbers(item, keyword, where, count=1)
    return None if found is None else found[0]


def _unit(item: Dataset, where: str) -> str:
    for code in items(item, "MeasurementUnitsCodeSequence", where)[:1]:
        value = str(code.get("CodeValue") or "").strip()
        if str(code.get("CodingSchemeDesignator") or "").strip() == "UCUM" and re.fullmatch(_UCUM, value):
            return value
    return ""
