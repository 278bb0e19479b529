"""Names of tensors by pattern."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

Patterns = str | Sequence[str]


def selects(patterns: Patterns, name: str) -> bool:
    """Whether one of the patterns matches a tensor's name.

    Args:
        patterns: one or several, with `*`, `?` and `[...]` as of `fnmatch`; a dot is no boundary.
        name: of a tensor.

    Example:
        >>> selects("fc.*", "fc.weight"), selects(["fc.*", "*.bias"], "conv.weight")
        (True, False)
    """
    return any(fnmatchcase(name, pattern) for pattern in ([patterns] if isinstance(patterns, str) else patterns))
