"""Values of attributes, parsed once for all files that store them alike: most of what the slices of a series say."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

_SHORT = 64
# Texts whose meaning depends on the character set of their file.
_IN_CHARACTER_SET = ("LO", "LT", "PN", "SH", "ST", "UC", "UN", "UT")


def element_value(dataset: Dataset, keyword: str) -> Any:
    """Return an attribute's value as pydicom parses it, None where it is absent.

    Args:
        dataset: a dataset or an item of a sequence.
        keyword: the attribute's DICOM keyword.
    """
    tag = tag_for_keyword(keyword)
    if tag is None or tag not in dataset.keys():  # noqa: SIM118, membership of a dataset parses the tag anew
        return None
    raw = dataset.get_item(tag)
    if isinstance(raw, RawDataElement) and isinstance(raw.value, bytes) and len(raw.value) <= _SHORT:
        known = _representation(tag) if raw.VR is None else raw.VR
        depends = known in _IN_CHARACTER_SET and (not raw.value.isascii() or b"\x1b" in raw.value)
        if not depends and " or " not in known and known not in ("SQ", "UN"):
            return _parse(tag, raw.VR, raw.value, raw.is_implicit_VR, raw.is_little_endian)
    return dataset.get(keyword)


@lru_cache(maxsize=256)
def _representation(tag: int) -> str:
    return str(dictionary_VR(tag))


@lru_cache(maxsize=8192)
def _parse(tag: int, representation: str | None, value: bytes, implicit: bool, little: bool) -> Any:
    raw = RawDataElement(BaseTag(tag), representation, len(value), value, 0, implicit, little)
    return convert_raw_data_element(raw).value
