"""Windows and VOI tables of a DICOM image, as plain data that travels in a MetaTensor."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from monai_medmerge.errors import DicomSeriesError
from monai_medmerge.transforms.dicom.geometry.frames import Frame, group_item
from monai_medmerge.transforms.dicom.headers import items, numbers
from monai_medmerge.transforms.foreign import guarded

# What scanners call their windows.
_WORDS = """
    WINDOW ALGO NORMAL HARDER SOFTER DEFAULT USER PRESET LUNG BONE BRAIN LIVER ABDOMEN MEDIASTINUM SOFT TISSUE HEAD
    SPINE SINUS ORBIT CHEST PELVIS ANGIO CTA STROKE SUBDURAL POSTERIOR FOSSA NECK KIDNEY CARDIAC HEART
"""
_NAMES = frozenset(_WORDS.split())
_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


def describe_voi(frame: Frame, mirror: float | None = None, signed: bool = False) -> dict[str, Any]:
    """Return the VOI transformations of a frame: its own functional group's, the shared one, or the object's.

    Args:
        frame: the frame that stands for the volume.
        mirror: what the values were inverted about, None where they were not; windows refer to values before that.
        signed: whether values of the modality may be negative.

    Returns:
        {"windows": [[center, width], ...], "names": [name, ...], "function": name,
        "luts": [{"first": int, "bits": int, "data": [...]}], "mirror": mirror}.

    Raises:
        DicomSeriesError: centres and widths differ in number, or a table is damaged.
    """
    header, where = frame.header, frame.header.where
    place = header.dataset
    if frame.groups and (group := group_item(frame.groups, "FrameVOILUTSequence", where)) is not None:
        place = group
    centers = numbers(place, "WindowCenter", where) or ()
    widths = numbers(place, "WindowWidth", where) or ()
    if len(centers) != len(widths):
        raise DicomSeriesError(
            "as many widths as centres", f"{len(widths)} and {len(centers)}", f"{where}, WindowWidth"
        )
    function = str(place.get("VOILUTFunction") or "LINEAR").strip().upper()
    if function not in _FUNCTIONS:
        raise DicomSeriesError(f"one of {', '.join(_FUNCTIONS)}", "another", f"{where}, VOILUTFunction")
    tables = [
        guarded(DicomSeriesError, "a lookup table", f"{where}, VOILUTSequence", partial(_table, item, signed))
        for item in items(place, "VOILUTSequence", where)
        # An empty item, which some writers leave, is no table.
        if "LUTDescriptor" in item or "LUTData" in item
    ]
    windows = [list(pair) for pair in zip(centers, widths, strict=True)]
    names = [_known_name(text) for text in _explanations(place)][: len(windows)]
    names += [""] * (len(windows) - len(names))
    return {"windows": windows, "names": names, "function": function, "luts": tables, "mirror": mirror}


def _explanations(place: Dataset) -> list[str]:
    found = place.get("WindowCenterWidthExplanation") or []
    return [str(text) for text in ([found] if isinstance(found, str) else found)]


def _known_name(text: str) -> str:
    """Return what a window is called, in capitals, if all of its words are names of windows: it is free text."""
    words = re.findall(r"[A-Z]+|[0-9]{1,2}", text.upper())
    return " ".join(words) if words and all(word in _NAMES or word.isdigit() for word in words) else ""


def _table(item: Any, signed: bool) -> dict[str, Any]:
    count, first, bits = (int(value) for value in item.LUTDescriptor)
    # Signed exactly where values may be (PS3.3 C.11.2.1.1), under whichever VR a file has it.
    first %= 2**16
    if signed and first >= 2**15:
        first -= 2**16
    data = item.LUTData
    if isinstance(data, bytes):
        data = np.frombuffer(data, "<u2" if len(data) >= 2 * (count or 2**16) else "u1")
    values = [int(value) for value in np.atleast_1d(data)][: count or 2**16]
    if len(values) != (count or 2**16) or not 1 <= bits <= 16:
        raise ValueError
    return {"first": first, "bits": bits, "data": values}
