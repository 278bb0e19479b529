"""What lies beside the images of a folder, and when it matters."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from transforms.phantoms import new_dataset, save, voxels, write_series
from transforms.reading import read

from monai_medmerge.errors import DicomSeriesError
from monai_medmerge.transforms import list_series

HU = voxels().T.astype(np.int32) - 1024
BESIDE = {
    "raw data": "1.2.840.10008.5.1.4.1.1.66",
    "spatial registration": "1.2.840.10008.5.1.4.1.1.66.1",
    "real world value map": "1.2.840.10008.5.1.4.1.1.67",
    "annotations": "1.2.840.10008.5.1.4.1.1.91.1",
    "spectroscopy": "1.2.840.10008.5.1.4.1.1.4.2",
    "a document": "1.2.840.10008.5.1.4.1.1.104.1",
    "a report": "1.2.840.10008.5.1.4.1.1.88.33",
    "Siemens' other data": "1.3.12.2.1107.5.9.1",
    "a private class": "1.2.826.0.1.3680043.10.9999",
}


@pytest.mark.parametrize("own_series", [True, False])
@pytest.mark.parametrize("sop_class", BESIDE.values(), ids=BESIDE)
def test_objects_without_an_image_are_passed_over_in_folders_and_refused_by_name(tmp_path, sop_class, own_series):
    first = pydicom.dcmread(write_series(tmp_path, voxels())[0])
    dataset = new_dataset(sop_class, "CT")
    dataset.StudyInstanceUID = first.StudyInstanceUID
    if not own_series:
        dataset.SeriesInstanceUID = first.SeriesInstanceUID
    path = save(dataset, tmp_path / "beside.dcm")
    np.testing.assert_array_equal(read(tmp_path)[0], HU)
    np.testing.assert_array_equal(read(tmp_path, series_uid=first.SeriesInstanceUID)[0], HU)
    with pytest.raises(DicomSeriesError, match="without Rows or Columns"):
        read(path)


@pytest.mark.parametrize("name", ["DICOMDIR", "DIRFILE", "dicomdir.dcm"])
def test_a_media_directory_is_passed_over_whatever_its_name(tmp_path, name):
    write_series(tmp_path, voxels())
    dataset = new_dataset("1.2.840.10008.1.3.10")
    path = save(dataset, tmp_path / name)
    # Real ones have their class in the meta information alone.
    stored = pydicom.dcmread(path)
    for keyword in ("SOPClassUID", "SOPInstanceUID", "Modality", "SeriesInstanceUID"):
        delattr(stored, keyword)
    stored.save_as(path)
    np.testing.assert_array_equal(read(tmp_path)[0], HU)


@pytest.mark.parametrize("keyword", ["Rows", "PixelData"])
def test_a_slice_that_lost_its_image_is_refused_if_its_series_is_meant_and_not_else(tmp_path, keyword):
    write_series(tmp_path, voxels())
    (whole,) = list_series(tmp_path)
    damaged = pydicom.dcmread(write_series(tmp_path / "other", voxels()[:2])[0])
    delattr(damaged, keyword)
    save(damaged, tmp_path / "damaged.dcm")
    with pytest.raises(DicomSeriesError, match="choose by series_uid"):
        read(tmp_path)
    np.testing.assert_array_equal(read(tmp_path, series_uid=whole.uid)[0], HU)
    with pytest.raises(DicomSeriesError, match="without"):
        read(tmp_path, series_uid=damaged.SeriesInstanceUID)
    damaged.SeriesInstanceUID = whole.uid
    save(damaged, tmp_path / "damaged.dcm")
    with pytest.raises(DicomSeriesError, match="without"):
        read(tmp_path)
