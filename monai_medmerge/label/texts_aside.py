"""The one place where MONAI 1.6's `Spacingd` and MONAI Label are reconciled."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

from monai.transforms import InvertibleTransform, Spacingd


class PathSafe(InvertibleTransform):
    """Run a transform without the texts of its dictionary, which come back afterwards.

    MONAI Label hands a request on with the image: `image`, `image_path` and more. Since MONAI 1.6 `Spacingd` calls
    `update` on every value whose key starts with `image_` and fails where that is a text. A bundle that a stock server
    shall serve names this class in its `preprocessing`; `MedMergeInferTask` puts it around any bundle's `Spacingd`.

    Args:
        transform: from a dictionary to a dictionary; it must not need a text.

    Example:
        >>> PathSafe(lambda data: {key: value + 1 for key, value in data.items()})({"image": 1, "image_path": "a"})
        {'image': 2, 'image_path': 'a'}
    """

    def __init__(self, transform: Callable[[dict[Hashable, Any]], Mapping[Hashable, Any]]) -> None:
        self.transform = transform

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Transform what is no text."""
        return _beside_texts(self.transform, data)

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Undo the transform, which must be invertible."""
        return _beside_texts(self.transform.inverse, data)  # type: ignore[attr-defined]


def path_safe(transform: Any) -> Any:
    """A transform as MONAI Label can run it: `Spacingd` made safe, any other as it is."""
    return PathSafe(transform) if isinstance(transform, Spacingd) else transform


def _beside_texts(
    function: Callable[[dict[Hashable, Any]], Mapping[Hashable, Any]], data: Mapping[Hashable, Any]
) -> dict[Hashable, Any]:
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    return {**function({key: value for key, value in data.items() if key not in texts}), **texts}
