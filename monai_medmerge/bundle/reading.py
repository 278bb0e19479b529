"""Sources and codes as a configuration's settings have them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from monai_medmerge.errors import SettingError
from monai_medmerge.sources import Source, adapt, load_sources
from monai_medmerge.sources.loading import Paths

CODES = "configs/codes.json"


def read_sources(
    network: nn.Module, paths: Paths, key_map: str | Mapping[str, str] | None = None, adapting: bool = False
) -> list[Source]:
    """Sources as they are merged: names mapped, and fitted to the network where that is wanted.

    Args:
        network: to be merged into.
        paths: as of `load_sources`.
        key_map: of `Source.from_file`, for every source; found from the names if None.
        adapting: fit other input channels, dimensions and precision, see `adapt`.

    Raises:
        SettingError: a setting is of another type.
        UnsafeCheckpointError: a source cannot be read.
    """
    if not isinstance(adapting, bool):
        raise SettingError("true or false", repr(adapting), "adapt")
    if key_map is not None and not isinstance(key_map, str | Mapping):
        raise SettingError("the name of a key map, or patterns with replacements", repr(key_map), "key_map")
    sources = load_sources(paths, key_map)
    return [adapt(network, source) for source in sources] if adapting else sources


def class_codes(bundle_root: str | os.PathLike[str], class_names: Sequence[str]) -> dict[str, Any]:
    """The codes of a segmentation's classes: those of the bundle where its classes are meant, else general ones.

    Args:
        bundle_root: folder with `configs/codes.json`, whose labels are in the order of `class_names`.
        class_names: the background first.

    Returns:
        The content that dcmqi's JSON would have.

    Example:
        >>> [item["SegmentLabel"] for item in class_codes("nowhere", ["background", "liver"])["segmentAttributes"][0]]
        ['liver']
    """
    file = Path(bundle_root, CODES)
    if file.is_file():
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        labels = [item["SegmentLabel"] for group in content["segmentAttributes"] for item in group]
        if len(labels) == len(class_names) - 1 and all(
            name in label for name, label in zip(class_names[1:], labels, strict=True)
        ):
            return content
    anatomy = {"CodeValue": "123037004", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Anatomical Structure"}
    tissue = {"CodeValue": "85756007", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Tissue"}
    segments = [
        {
            "labelID": number,
            "SegmentLabel": name,
            "SegmentAlgorithmName": "monai_medmerge",
            "SegmentedPropertyCategoryCodeSequence": anatomy,
            "SegmentedPropertyTypeCodeSequence": tissue,
        }
        for number, name in enumerate(class_names[1:], start=1)
    ]
    return {"SeriesDescription": "Segmentation", "SeriesNumber": 300, "segmentAttributes": [segments]}
