"""Shorthands of the tests of volume files."""

from __future__ import annotations

import warnings

from monai_medmerge.errors import MedMergeError
from monai_medmerge.transforms import CheckedVolumeReader


def read(path, **arguments):
    reader = CheckedVolumeReader(**arguments)
    return reader.get_data(reader.read(path))


def said(path, **arguments):
    """The error of ours that reading ends in, if it does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read(path, **arguments)
        except MedMergeError as error:
            return str(error)
    return ""
