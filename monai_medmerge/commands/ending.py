"""What a command ends with: where it wrote, what it found, and the next command to type."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path


def ended(written: Path | str, *found: str, next_command: Sequence[str] = ()) -> None:
    """Print the last lines of a command.

    Args:
        written: where its results are.
        found: up to two lines of what it found.
        next_command: words of what to type next; those in capitals are for the user to fill in.

    Example:
        >>> ended("OUT/merged bundle", "macro F1 0.81", next_command=["medmerge", "export", "--weights", "a b.pt"])
        written: OUT/merged bundle
        found: macro F1 0.81
        next: medmerge export --weights 'a b.pt'
    """
    print(f"written: {written}")
    for line in found:
        print(f"found: {line}")
    if next_command:
        print(f"next: {shlex.join(next_command)}")
