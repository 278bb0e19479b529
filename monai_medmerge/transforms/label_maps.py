"""Label maps as NIfTI files, and as DICOM SEG where the image was a DICOM series."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform

from monai_medmerge.files import whole_file
from monai_medmerge.transforms.dicom.results.segmentation import SegmentTable, write_seg
from monai_medmerge.transforms.writing import OutputPaths, check_label_map, whole_labels

logger = logging.getLogger(__name__)


class SaveSegmentationd(MapTransform):
    """Save label maps as NIfTI, and as DICOM SEG beside it where the source is DICOM.

    Files are named after the source, and lie in the same subfolders: `a/case.nii.gz` gives `a/case_seg.nii.gz`, a
    folder `a/series` gives `a/series_seg.nii.gz` and `a/series_seg.dcm`. A DICOM SEG cannot be empty: where no label
    was found none is written, and the log says so.

    Args:
        keys: label maps, MetaTensors (1, x, y, z) on the grid of the source.
        output_dir: the folder to write to.
        segments: the JSON with the coded labels (see `SegmentTable`), or a `SegmentTable`.
        source: the key of the source's path: a NIfTI file, a DICOM file or a folder with a series.
        file: the key of the same path below the folder that all sources are in; without it there are no subfolders.
        allow_missing_keys: skip keys that a dictionary lacks.

    Raises:
        SettingError: the JSON does not hold coded labels, a label map has another shape or labels without a code, two
            sources would share a file, or `file` leads out of `output_dir`.
        DicomSeriesError: a label map is not on the series' grid.
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str | Path,
        segments: str | Path | SegmentTable,
        source: str = "source",
        file: str = "file",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.paths = OutputPaths(output_dir, "SaveSegmentationd")
        self.table = segments if isinstance(segments, SegmentTable) else SegmentTable.from_json(segments)
        self.source = source
        self.file = file

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the files and return the dictionary with "saved_to", a list of paths, in the label maps' metadata."""
        result = dict(data)
        for key in self.key_iterator(result):
            labels = check_label_map(result[key], str(key))
            known = [int(item["labelID"]) for item in self.table.segments]
            numbers = whole_labels(labels.detach().cpu().numpy()[0], known, str(key))
            # The type follows from the table, so that all files of a run have the same.
            numbers = numbers.astype(np.uint8 if max(known, default=0) < 256 else np.uint16)
            source, file = Path(result[self.source]), result.get(self.file)
            labels.meta["saved_to"] = self._save(numbers, labels.affine.cpu().numpy(), source, file)
        return result

    def _save(self, labels: np.ndarray, affine: np.ndarray, source: Path, file: str | None) -> list[str]:
        path = self.paths.of(source, "_seg.nii.gz", file)
        image = nibabel.Nifti1Image(labels, affine)
        image.header.set_xyzt_units("mm")
        with whole_file(path) as part:
            nibabel.save(image, part)
        if source.name.lower().endswith((".nii.gz", ".nii")):
            return [str(path)]
        if not labels.any():
            logger.warning("No label was found in %s: a DICOM SEG cannot be empty, so that none was written", path.name)
            return [str(path)]
        return [str(path), str(write_seg(labels, affine, source, self.table, self.paths.of(source, "_seg.dcm", file)))]
