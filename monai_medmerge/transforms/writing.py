"""What the writers of label maps share: numbers that are labels, and files that no two sources share."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor
from numpy.typing import NDArray

from monai_medmerge.errors import SettingError

# How far from a whole number a label may be.
_BETWEEN = 0.01
# Endings that say what a source is; what follows another point of a name, as in a UID, belongs to the name.
SUFFIXES = (".nii.gz", ".nii", ".dcm", ".dicom", ".ima")


class OutputPaths:
    """Paths of files that are named after their sources, all in one folder, each for one source alone.

    Args:
        folder: the folder to write to.
        writer: whose they are, for errors.

    Example:
        >>> paths = OutputPaths("out", "example")
        >>> paths.of("/data/1.2.840.1", "_seg.dcm").as_posix()
        'out/1.2.840.1_seg.dcm'
        >>> paths.of("/data/b/case.nii.gz", "_seg.nii.gz", "b/case.nii.gz").as_posix()
        'out/b/case_seg.nii.gz'
    """

    def __init__(self, folder: str | Path, writer: str) -> None:
        self.folder = Path(folder)
        self.writer = writer
        self._sources: dict[Path, Path] = {}

    def of(self, source: str | Path, ending: str, file: str | Path | None = None) -> Path:
        """The path for one source.

        Args:
            source: its path.
            ending: of the new file's name, with its suffix.
            file: the source's path below the folder that all sources are in; without it there are no subfolders.

        Raises:
            SettingError: the path would leave the folder, or is another source's already.
        """
        source = Path(source)
        suffix = next((suffix for suffix in SUFFIXES if source.name.lower().endswith(suffix)), "")
        name = source.name[: len(source.name) - len(suffix)] + ending
        path = self.folder / Path(source.name if file is None else file).parent / name
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise SettingError("a path below the folder that all sources are in", f"one that leaves it: {name}", "file")
        if self._sources.setdefault(path, source.absolute()) != source.absolute():
            raise SettingError("sources with names of their own", f"two for {name}", self.writer)
        return path


def whole_labels(values: NDArray[Any], known: Collection[int], where: str) -> NDArray[np.int64]:
    """Numbers as labels: whole ones, but for what float arithmetic leaves, as 0.9999.

    Half-way between 0 and 2 is no label 1: what was interpolated is refused, and not rounded to another structure.

    Args:
        values: of any type and shape.
        known: the labels there are, beside 0.
        where: what the values are, for the error.

    Raises:
        SettingError: a value is none of the labels, or between two of them.

    Example:
        >>> whole_labels(np.array([0.0, 0.9999, 2.0]), [1, 2], "pred").tolist()
        [0, 1, 2]
    """
    found = np.round(values) if values.dtype.kind == "f" else values
    if found is not values and (between := int((abs(values - found) > _BETWEEN).sum())):
        expected = "whole labels (invert with nearest_interp=True, or take LabelsToSourced)"
        raise SettingError(expected, f"{between} values between two, as interpolation leaves them", where)
    # What is not finite equals no label.
    if unknown := sorted(set(np.unique(found).tolist()) - {0, *known}, key=str):
        raise SettingError(f"labels among {[0, *known]}", str(unknown[:9]), where)
    return found.astype(np.int64)


def check_label_map(labels: Any, where: str) -> MetaTensor:
    """Return a label map if it is one.

    Args:
        labels: should be a MetaTensor (1, x, y, z).
        where: its key, for the error.

    Raises:
        SettingError: it is of another type or shape.
    """
    if not isinstance(labels, MetaTensor) or labels.ndim != 4 or len(labels) != 1:
        found = f"{type(labels).__name__} {tuple(getattr(labels, 'shape', ()))}"
        raise SettingError("a MetaTensor (1, x, y, z)", found, where)
    return labels
