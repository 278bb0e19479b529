"""Names of known origins: what a stored tensor is called there, and what MONAI calls it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from monai_medmerge.errors import UnsafeCheckpointError

KeyMap = str | Path | Mapping[str, str]
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
        key_map: regular expressions to replacements (`re.sub` syntax), a JSON file of them, or the name of one of
            `KEY_MAPS`.
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


def _patterns(key_map: KeyMap, where: str) -> list[tuple[re.Pattern[str], str]]:
    if isinstance(key_map, str | Path) and str(key_map).endswith(".json"):
        key_map = _from_file(Path(key_map))
    if isinstance(key_map, str | Path):
        if str(key_map) not in KEY_MAPS:
            known = ", ".join(KEY_MAPS)
            raise UnsafeCheckpointError(f"a JSON file, or one of the key maps {known}", repr(str(key_map)), where)
        key_map = KEY_MAPS[str(key_map)]
    if not isinstance(key_map, Mapping) or not all(isinstance(t, str) for pair in key_map.items() for t in pair):
        raise UnsafeCheckpointError("a key map of regular expressions to replacements", "something else", where)
    found = []
    for pattern, replacement in key_map.items():
        try:
            compiled = re.compile(pattern)
            # What a replacement refers to shows only when it is used.
            re.compile(f"{pattern}|").sub(replacement, "", count=1)
        except (re.error, IndexError, RecursionError, OverflowError) as error:
            expected = "regular expressions as keys of the key map, and replacements for them"
            raise UnsafeCheckpointError(expected, f"{pattern!r}: {error}", where) from error
        found.append((compiled, replacement))
    return found


def _from_file(path: Path) -> Mapping[str, str]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UnsafeCheckpointError("a JSON object of patterns", type(error).__name__, path.name) from error
    if not isinstance(content, dict):
        raise UnsafeCheckpointError("a JSON object of patterns", f"a {type(content).__name__}", path.name)
    return content
