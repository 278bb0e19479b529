"""Frames without a place in the patient: cine loops, pages, pictures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from pydicom.uid import UID

from monai_medmerge.errors import DicomSeriesError
from monai_medmerge.transforms.dicom.geometry.frames import Frame
from monai_medmerge.transforms.dicom.headers import Header, numbers

# FrameTime, FrameTimeVector: what FrameIncrementPointer names where frames are times (PS3.3 C.7.6.6).
_TIME_POINTERS = (0x00181063, 0x00181065)
_TIME_WORDS = ("FrameTime", "FrameTimeVector", "CineRate", "RecommendedDisplayFrameRate")
_TIME_CLASSES = ("Ultrasound Multi-frame", "X-Ray Angiographic Image", "Radiofluoroscopic", "Video", "Enhanced XA")


def frame_time(header: Header) -> float:
    """Return milliseconds from frame to frame, NaN where the file does not say or they differ."""
    if (stated := header.numbers("FrameTime")) is not None and stated[0] > 0:
        return stated[0]
    if (vector := header.numbers("FrameTimeVector")) is not None and len(vector) > 1:
        steps = np.array(vector[1:])
        return float(steps.mean()) if np.allclose(steps, steps.mean(), rtol=0.05) and steps.mean() > 0 else math.nan
    for keyword in ("CineRate", "RecommendedDisplayFrameRate"):
        if (rate := header.numbers(keyword)) is not None and rate[0] > 0:
            return 1000 / rate[0]
    return math.nan


def is_cine(header: Header) -> bool:
    """Whether the frames of a file are known to be times, in their order."""
    pointer = header.dataset.get("FrameIncrementPointer")
    if pointer is not None:
        tags = [pointer] if isinstance(pointer, int) else list(pointer)
        if any(int(tag) in _TIME_POINTERS for tag in tags):
            return True
    if any(word in header.dataset for word in _TIME_WORDS):
        return True
    name = UID(header.sop_class).name
    return any(word in name for word in _TIME_CLASSES)


def order_pictures(frames: Sequence[Frame]) -> list[Frame]:
    """Return frames in the order of their files' InstanceNumber, and in a file in their own.

    Raises:
        DicomSeriesError: several files have one InstanceNumber, or none.
    """
    headers = list({id(frame.header): frame.header for frame in frames}.values())
    if len(headers) == 1:
        return list(frames)
    order: dict[int, float] = {}
    for header in headers:
        found = numbers(header.dataset, "InstanceNumber", header.where, count=1)
        if found is None:
            raise DicomSeriesError("an InstanceNumber to order pictures by", "none", header.where)
        order[id(header)] = found[0]
    if (twice := Counter(order.values()).most_common(1)[0])[1] > 1:
        found_twice = f"{twice[1]} pictures of one"
        raise DicomSeriesError("InstanceNumbers to order pictures by", found_twice, headers[0].where)
    return sorted(frames, key=lambda frame: order[id(frame.header)])
