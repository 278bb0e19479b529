"""What can go wrong with a user's input, one class for each kind.

Every error says what was expected, what was found and where, and is a `ValueError`, so that code which knows
nothing of this package can still catch it. Messages carry file names, layer names, source names and tags, never
pixel data and never a value that could identify a patient.
"""

from __future__ import annotations

from collections.abc import Iterator

_LONGEST_PLACE = 300


class MedMergeError(ValueError):
    """Base of the package's errors: a sentence made of what was expected, what was found and where.

    Args:
        expected: what the code needed, in words.
        found: what came instead, in words.
        where: the file, layer, source or tag concerned.

    Example:
        >>> print(MedMergeError("a positive spacing", "-1.0", "t1.nii.gz, pixdim[1]"))
        t1.nii.gz, pixdim[1]: expected a positive spacing, found -1.0
    """

    def __init__(self, expected: str, found: str, where: str) -> None:
        super().__init__(f"{_line(where)}: expected {expected}, found {found}")
        self.expected = expected
        self.found = found
        self.where = where

    def __reduce__(self) -> tuple[type[MedMergeError], tuple[str, str, str]]:
        # Exceptions cross process borders (DataLoader workers, DDP) by pickle, which calls the class with `args`.
        return type(self), (self.expected, self.found, self.where)


def _line(where: str) -> str:
    """A place on one line of readable length: names come from outside, and may hold anything."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in where)
    return text if len(text) <= _LONGEST_PLACE else f"{text[: _LONGEST_PLACE // 2]}...{text[-_LONGEST_PLACE // 2 :]}"


class SettingError(MedMergeError):
    """An argument or a configuration value is not one of those that are understood."""


class IncompatibleSourcesError(MedMergeError):
    """Sources do not fit the network or one another; the message ends in the match table."""


class UnsafeCheckpointError(MedMergeError):
    """A checkpoint cannot be read as plain weights: damaged, partial, not a checkpoint, or it would run code."""


class ResumeError(MedMergeError):
    """A run cannot be continued from what is on disk: other sources, other settings or a partial file."""


class DatasetError(MedMergeError):
    """Data for training or evaluation is absent, empty, unreadable or labelled outside the classes."""


class OutputError(MedMergeError):
    """Results cannot be written: no room, no right to, a name that does not do, or another run owns the folder."""


class DicomSeriesError(MedMergeError):
    """A DICOM file or series cannot be turned into one unambiguous volume."""


class NiftiError(MedMergeError):
    """A NIfTI file contradicts itself, is damaged or needs a choice that was not made."""


class VolumeError(MedMergeError):
    """A volume file of another format contradicts itself, is damaged or needs a choice that was not made."""


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what it was raised from, and so on to the root, each once even where they go in a circle.

    Args:
        error: as it was caught; MONAI wraps what an expression or a transform raises.

    Example:
        >>> try:
        ...     raise RuntimeError("in a transform") from SettingError("one", "two", "size")
        ... except RuntimeError as error:
        ...     [type(cause).__name__ for cause in causes(error)]
        ['RuntimeError', 'SettingError']
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__
