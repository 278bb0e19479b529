"""What tells the volumes of a NIfTI file apart: its b-values, its BIDS sidecar, or its own header."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_medmerge.errors import NiftiError
from monai_medmerge.transforms.foreign import guarded, is_file

_LONGEST = 2**20
_SUFFIXES = (".nii.gz", ".nii")
# NIfTI's codes of units of time, in seconds.
_SECONDS = {8: 1.0, 16: 1e-3, 24: 1e-6}


def describe_volumes(path: Path, header: Any, count: int, chosen: int | str | None) -> str:
    """Return dimension, unit and values of the volumes that are read, as JSON like that of `DicomSeriesReader`.

    Only b-values and times are read of the files beside the image, which are `.bval` (FSL) and `.json` (BIDS), named as
    it is; "{}" where nothing tells the volumes apart, or there is one.

    Args:
        path: the image.
        header: of it, as nibabel has it.
        count: of its volumes.
        chosen: the number of one, or "all".

    Raises:
        NiftiError: a file beside it is damaged, or has another number of values than the image of volumes.

    Example:
        >>> import nibabel
        >>> header = nibabel.Nifti1Header()
        >>> header.set_data_shape((4, 4, 4, 3))
        >>> header.set_zooms((1, 1, 1, 2))
        >>> header.set_xyzt_units("mm", "sec")
        >>> describe_volumes(Path("none.nii"), header, 3, "all")
        '{"dimension": "time", "unit": "s", "values": [0.0, 2.0, 4.0], "also": {}, "of": 3}'
    """
    if count < 2 or chosen is None:
        return "{}"
    suffix = next((end for end in _SUFFIXES if path.name.lower().endswith(end)), path.suffix)
    stem = path.name[: len(path.name) - len(suffix)]
    dimension, unit = "time", "s"
    if is_file(weights := path.with_name(f"{stem}.bval")):
        dimension, unit = "DiffusionBValue", "s/mm2"
        values = guarded(NiftiError, "b-values", weights.name, lambda: [float(b) for b in _text(weights).split()])
        _check(values, count, weights.name)
    elif not (values := _from_sidecar(path.with_name(f"{stem}.json"), count)):
        values = _from_header(header, count)
    if not values:
        return "{}"
    kept = values if chosen == "all" else [values[int(chosen)]]
    return json.dumps({"dimension": dimension, "unit": unit, "values": kept, "also": {}, "of": count})


def _text(path: Path) -> str:
    if path.stat().st_size > _LONGEST:
        raise NiftiError(f"at most {_LONGEST} bytes", "more", path.name)
    return path.read_text(encoding="utf-8")


def _check(values: Sequence[float], count: int, where: str) -> None:
    if len(values) != count or not all(map(math.isfinite, values)):
        raise NiftiError(f"{count} finite numbers, one for each volume", f"{len(values)}", where)


def _from_sidecar(path: Path, count: int) -> list[float]:
    """Return when each volume begins, in seconds, none where the sidecar does not say."""
    if not is_file(path):
        return []

    def times() -> list[float]:
        content = json.loads(_text(path))
        if not isinstance(content, dict):
            raise TypeError
        if "VolumeTiming" in content:
            return [float(time) for time in content["VolumeTiming"]]
        period = content.get("RepetitionTime")
        return [] if period is None else [i * float(period) for i in range(count)]

    values = guarded(NiftiError, "a sidecar of BIDS", path.name, times)
    if values:
        _check(values, count, path.name)
    return values


def _from_header(header: Any, count: int) -> list[float]:
    seconds = _SECONDS.get(int(header["xyzt_units"]) & 0x38)
    period = float(header["pixdim"][4])
    if seconds is None or not math.isfinite(period) or period <= 0:
        return []
    return [i * period * seconds for i in range(count)]
