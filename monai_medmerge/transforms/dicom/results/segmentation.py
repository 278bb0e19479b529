"""Writing of label maps as DICOM segmentations that reference the series they were made from."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import orientation_ras_lps
from monai.transforms import MapTransform
from monai.utils import ImageMetaKey
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from monai_medmerge.errors import DicomSeriesError, SettingError
from monai_medmerge.files import whole_file
from monai_medmerge.transforms.dicom.geometry.stacks import Stack
from monai_medmerge.transforms.dicom.reader import DicomSeriesReader
from monai_medmerge.transforms.dicom.results.source import (
    as_volume,
    check_grid,
    coded,
    highdicom,
    made_here,
    read_source,
    require_highdicom,
)
from monai_medmerge.transforms.foreign import guarded, quiet
from monai_medmerge.transforms.writing import OutputPaths, whole_labels

Array = NDArray[Any]
_TYPES = ("BINARY", "LABELMAP")


@dataclass(frozen=True)
class SegmentTable:
    """Coded labels, as dcmqi's JSON gives them.

    Args:
        segments: one dictionary per label with "labelID", "SegmentLabel" or "SegmentDescription",
            "SegmentedPropertyCategoryCodeSequence", "SegmentedPropertyTypeCodeSequence" (each with "CodeValue",
            "CodingSchemeDesignator", "CodeMeaning"), and optionally "SegmentAlgorithmName" and
            "recommendedDisplayRGBValue".
        series_description: SeriesDescription of the SEG.
        series_number: SeriesNumber of the SEG.
    """

    segments: tuple[Mapping[str, Any], ...]
    series_description: str = "Segmentation"
    series_number: int = 300

    @classmethod
    def from_json(cls, path: str | Path) -> SegmentTable:
        """Read the JSON that dcmqi's `itkimage2segimage` takes, with "segmentAttributes" as a list (of lists).

        Raises:
            SettingError: the file is no JSON of that kind, or a label lacks a code or is described twice.
        """
        where = Path(path).name
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise SettingError("dcmqi's JSON with segmentAttributes", type(error).__name__, where) from error
        return cls.from_content(content, where)

    @classmethod
    def from_content(cls, content: Any, where: str) -> SegmentTable:
        """The table that dcmqi's JSON holds.

        Args:
            content: as `from_json` reads it.
            where: what it is from, for errors.

        Raises:
            SettingError: as `from_json`.
        """
        try:
            found = [item for group in content["segmentAttributes"] for item in _as_list(group)]
            table = cls(
                tuple(sorted(found, key=lambda item: int(item["labelID"]))),
                str(content.get("SeriesDescription", cls.series_description)),
                int(content.get("SeriesNumber", cls.series_number)),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SettingError("dcmqi's JSON with segmentAttributes", type(error).__name__, where) from error
        if len({int(item["labelID"]) for item in table.segments}) < len(found):
            raise SettingError("one description for each labelID", "several", where)
        for item in found:
            for keyword in ("SegmentedPropertyCategoryCodeSequence", "SegmentedPropertyTypeCodeSequence"):
                if not {"CodeValue", "CodingSchemeDesignator", "CodeMeaning"} <= set(item.get(keyword, ())):
                    raise SettingError(f"a code in {keyword}", "none", f"{where}, labelID {item['labelID']}")
        return table


def _as_list(group: Any) -> list[Any]:
    return group if isinstance(group, list) else [group]


def write_seg(
    labels: Array,
    affine: Array,
    source: Sequence[str | Path] | str | Path,
    table: SegmentTable,
    path: str | Path,
    segmentation_type: str = "BINARY",
    reader: DicomSeriesReader | None = None,
) -> Path:
    """Write labels as a DICOM SEG, on the grid of the series that they were made from.

    Patient and study are those of the series, frame by frame references lead to its images, and empty frames are
    left out.

    Args:
        labels: (x, y, z) integers, 0 for background and else labelIDs of `table`.
        affine: 4 x 4, from their voxels to RAS millimetres.
        source: the folder, file or files of the series.
        table: the coded labels; labelIDs must be 1, 2, ..., n.
        path: the file to write.
        segmentation_type: "BINARY", which every viewer reads, or "LABELMAP".
        reader: how the series was chosen and read, where it was not by a default `DicomSeriesReader`.

    Returns:
        The path; the file is there whole or not at all.

    Raises:
        SettingError: highdicom is not installed, or labels and table do not fit.
        DicomSeriesError: labels are not on the series' grid, or the series lacks what a SEG needs.
    """
    require_highdicom("write_seg")
    if segmentation_type not in _TYPES:
        raise SettingError(f"one of {', '.join(_TYPES)}", repr(segmentation_type), "segmentation_type")
    known, path = [int(item["labelID"]) for item in table.segments], Path(path)
    if known != list(range(1, len(known) + 1)):
        raise SettingError("labelIDs from 1 to n", str(known), "segmentAttributes")
    present = set(np.unique(labels).tolist()) - {0}
    if not present <= set(known) or not present:
        raise SettingError(f"labels among {known}, at least one", str(sorted(present)[:9]), "labels")
    with quiet():
        stack = (reader or DicomSeriesReader()).locate(source)
        check_grid(labels.shape, orientation_ras_lps(affine), stack, "labels")
        where = stack.frames[0].header.where
        seg = guarded(
            DicomSeriesError,
            "a series that a SEG can reference",
            where,
            lambda: _build(labels, stack, table, segmentation_type),
        )
        with whole_file(path) as part:
            seg.save_as(part, enforce_file_format=True)
    return path


def _build(labels: Array, stack: Stack, table: SegmentTable, segmentation_type: str) -> Dataset:
    paths = dict.fromkeys(frame.header.path for frame in stack.frames)
    texts = [str(item) for item in (*table.segments, table.series_description)]
    sources = [read_source(path, all(map(str.isascii, texts))) for path in paths]
    version = metadata.version("monai_medmerge")
    numbers = labels.astype(np.uint16 if len(table.segments) > 255 else np.uint8)
    return highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=as_volume(numbers, stack, sources[0].FrameOfReferenceUID),
        segmentation_type=segmentation_type,
        segment_descriptions=[_describe(item, version) for item in table.segments],
        content_label="SEGMENTATION",
        **made_here(table.series_number, table.series_description),
    )


def _describe(item: Mapping[str, Any], version: str) -> Any:
    """Return highdicom's description of one segment."""
    label = str(item.get("SegmentLabel") or item.get("SegmentDescription") or f"label {item['labelID']}")
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=str(item.get("SegmentAlgorithmName", "monai_medmerge")),
        family=highdicom.sr.CodedConcept("123110", "DCM", "Artificial Intelligence"),
        version=version,
    )
    color = item.get("recommendedDisplayRGBValue")
    return highdicom.seg.SegmentDescription(
        segment_number=int(item["labelID"]),
        segment_label=label[:64],
        segmented_property_category=coded(item["SegmentedPropertyCategoryCodeSequence"]),
        segmented_property_type=coded(item["SegmentedPropertyTypeCodeSequence"]),
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
        display_color=None if color is None else highdicom.color.CIELabColor.from_rgb(*color),
    )


class SaveDicomSegd(MapTransform):
    """Save label maps as DICOM SEG files that reference their source series (see `write_seg`).

    Files are named after the source: the folder `1.2.840.1` gives `1.2.840.1_seg.dcm`, the file `a.dcm` `a_seg.dcm`.

    Args:
        keys: label maps, MetaTensors (x, y, z) or (1, x, y, z) on the grid of the series.
        output_dir: the folder to write to.
        segments: the JSON with the coded labels, or a `SegmentTable`.
        source: the key of the series' path; where the dictionary lacks it, the label map's own "filename_or_obj".
        output_postfix: the end of the file's name.
        segmentation_type: "BINARY" or "LABELMAP".
        reader: arguments of the `DicomSeriesReader` that read the series.
        allow_missing_keys: skip keys that a dictionary lacks.
        file: the key of the series' path below the folder that all series are in; without it there are no subfolders.

    Raises:
        SettingError: the JSON does not hold coded labels, label maps have several channels or labels without a code,
            two sources would share a file, or `file` leads out of `output_dir`.
        DicomSeriesError: a label map is not on the series' grid.
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str | Path,
        segments: str | Path | SegmentTable,
        source: str = "source",
        output_postfix: str = "seg",
        segmentation_type: str = "BINARY",
        reader: Mapping[str, Any] | None = None,
        allow_missing_keys: bool = False,
        file: str = "file",
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.paths = OutputPaths(output_dir, "SaveDicomSegd")
        self.table = segments if isinstance(segments, SegmentTable) else SegmentTable.from_json(segments)
        self.source = source
        self.output_postfix = output_postfix
        self.segmentation_type = segmentation_type
        self.reader = DicomSeriesReader(**(reader or {}))
        self.file = file

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the files and return the dictionary with "saved_to" in the metadata of the label maps."""
        result = dict(data)
        for key in self.key_iterator(result):
            image = result[key]
            if not isinstance(image, MetaTensor) or image.ndim not in (3, 4) or (image.ndim == 4 and len(image) != 1):
                raise SettingError("a MetaTensor (x, y, z) or (1, x, y, z)", "another value", str(key))
            source = result.get(self.source, image.meta.get(ImageMetaKey.FILENAME_OR_OBJ))
            if source is None:
                raise SettingError("the path of the source series", "none", self.source)
            first = source if isinstance(source, (str, Path)) else source[0]
            known = [int(item["labelID"]) for item in self.table.segments]
            labels = whole_labels(image.detach().cpu().numpy().reshape(image.shape[-3:]), known, str(key))
            path = self.paths.of(first, f"_{self.output_postfix}.dcm", result.get(self.file))
            affine = image.affine.cpu().numpy()
            saved = write_seg(labels, affine, source, self.table, path, self.segmentation_type, self.reader)
            image.meta["saved_to"] = str(saved)
        return result
