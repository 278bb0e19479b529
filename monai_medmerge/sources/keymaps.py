"""Names of known origins: what a stored tensor is called there, and what MONAI calls it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import TypeVar

from monai_medmerge.errors import UnsafeCheckpointError

KeyMap = str | Mapping[str, str]
T = TypeVar("T")

# Regular expressions to replacements; the first that matches a name is applied, a name without a match stays.
# torchvision's and MedicalNet's ResNet use the names that MONAI's ResNet took over, so only what wraps them differs.
KEY_MAPS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "torchvision_densenet": {
            r"^(features\.denseblock\d+\.denselayer\d+)\.?(norm|relu|conv)\.?(\d)\.(.+)$": r"\1.layers.\2\3.\4",
            r"^classifier\.(.+)$": r"class_layers.out.\1",
        },
        "lightning": {r"^(?:model|network|net|_model)\.(.+)$": r"\1"},
        "backbone": {r"^(?:backbone|encoder|feature_extractor)\.(.+)$": r"\1"},
    }
)


def rename(tensors: Mapping[str, T], key_map: KeyMap, where: str) -> dict[str, T]:
    """Rename by a key map.

    Args:
        tensors: names to anything.
        key_map: regular expressions to replacements (`re.sub` syntax), or the name of one of `KEY_MAPS`.
        where: the source or file, for errors.

    Raises:
        UnsafeCheckpointError: the map is unknown, a pattern is not a regular expression, or two names become one.

    Example:
        >>> rename({"model.fc.weight": 1}, {r"^model\\.(.*)$": r"\\1"}, "a.pt")
        {'fc.weight': 1}
    """
    patterns = _patterns(key_map, where)
    renamed: dict[str, T] = {}
    for name, value in tensors.items():
        new = next((p.sub(replacement, name) for p, replacement in patterns if p.search(name)), name)
        if new in renamed:
            raise UnsafeCheckpointError("a key map that keeps names apart", f"two tensors named {new!r}", where)
        renamed[new] = value
    return renamed


def choose_key_map(names: Collection[str], wanted: Collection[str]) -> str | None:
    """The known map under which most names are wanted ones; None where the names as stored do as well.

    Args:
        names: the source's names.
        wanted: the network's names.

    Example:
        >>> choose_key_map(["model.fc.weight"], ["fc.weight"])
        'lightning'
    """
    wanted = set(wanted)
    best, most = None, len(wanted.intersection(names))
    for candidate in KEY_MAPS:
        patterns = _patterns(candidate, candidate)
        renamed = [next((p.sub(r, name) for p, r in patterns if p.search(name)), name) for name in names]
        hits = len(wanted.intersection(renamed))
        if hits > most and len(set(renamed)) == len(renamed):
            best, most = candidate, hits
    return best


def _patterns(key_map: KeyMap, where: str) -> list[tuple[re.Pattern[str], str]]:
    if isinstance(key_map, str):
        if key_map not in KEY_MAPS:
            raise UnsafeCheckpointError(f"one of the key maps {', '.join(KEY_MAPS)}", repr(key_map), where)
        key_map = KEY_MAPS[key_map]
    try:
        return [(re.compile(pattern), replacement) for pattern, replacement in key_map.items()]
    except re.error as error:
        raise UnsafeCheckpointError("regular expressions as keys of the key map", str(error), where) from error
