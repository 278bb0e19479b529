"""What an error was raised from."""

from __future__ import annotations

from itertools import islice

from monai_medmerge.errors import SettingError, causes


def test_causes_go_to_the_root() -> None:
    root = SettingError("one", "two", "size")
    error = RuntimeError("in a transform")
    error.__cause__ = root
    assert list(causes(error)) == [error, root]
    assert list(causes(None)) == []


def test_causes_in_a_circle_come_once_each() -> None:
    # As `raise root from error` leaves them, where the root was what the error came from.
    first, second = RuntimeError("first"), RuntimeError("second")
    first.__cause__, second.__cause__ = second, first
    assert list(islice(causes(first), 10)) == [first, second]
    first.__cause__ = first
    assert list(islice(causes(first), 10)) == [first]
