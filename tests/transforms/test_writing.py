"""Label maps are written with the labels they have, below their folder, and never over another source's."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from transforms.phantoms import voxels, write_series

from monai_medmerge.errors import SettingError
from monai_medmerge.transforms import DicomSeriesReader, SaveDicomSegd, SaveSegmentationd, SegmentTable
from monai_medmerge.transforms.writing import OutputPaths, whole_labels

CODE = {"CodeValue": "10200004", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Liver"}


def table(labels):
    names = ("SegmentedPropertyCategoryCodeSequence", "SegmentedPropertyTypeCodeSequence")
    return SegmentTable(tuple({"labelID": n, "SegmentLabel": f"{n}", **dict.fromkeys(names, CODE)} for n in labels))


def save(folder, values, labels, **entries):
    item = {"pred": MetaTensor(torch.as_tensor(values).reshape(1, -1, 1, 1)), "source": "a.nii", **entries}
    return SaveSegmentationd("pred", folder, table(labels))(item)["pred"].meta["saved_to"][0]


def test_labels_keep_their_numbers_or_are_refused(tmp_path):
    many = np.asarray(nib.load(save(tmp_path, [0.0, 256.0, 299.999], range(1, 301))).dataobj)
    assert many.ravel().tolist() == [0, 256, 300]
    assert nib.load(save(tmp_path, [0, 2, 1], (1, 2))).get_data_dtype() == np.uint8
    for wrong in (256.0, 3.0, -1.0, np.nan):
        with pytest.raises(SettingError, match=r"^pred: expected labels among \[0, 1, 2\]"):
            save(tmp_path / "wrong", [0.0, wrong], (1, 2))
    assert not (tmp_path / "wrong").exists()


def test_what_arithmetic_leaves_is_a_label_and_what_interpolation_leaves_is_none():
    assert whole_labels(np.array([0, 7], np.uint8), [7], "pred").tolist() == [0, 7]
    assert whole_labels(np.array([0.0001, 6.9999]), [7], "pred").tolist() == [0, 7]
    # Half-way from 0 to 2 is 1: another structure.
    with pytest.raises(SettingError, match=r"^pred: expected whole labels .*, found 1 values between two"):
        whole_labels(np.array([0, 1.1, 2]), [1, 2], "pred")


@pytest.mark.parametrize("file", ["../../escaped/case.nii", "/escaped/case.nii"])
def test_no_path_leaves_the_folder(tmp_path, file):
    with pytest.raises(SettingError, match=r"one that leaves it: a_seg\.nii\.gz"):
        save(tmp_path / "a/b", [1], [1], file=file)
    assert list(tmp_path.iterdir()) == []


def test_uids_stay_whole_and_two_sources_never_share_a_file(tmp_path):
    paths = OutputPaths(tmp_path, "writer")
    named = [paths.of(f"/pat{n}/1.2.840.113.{n}", "_seg.dcm") for n in (1, 2)]
    assert [path.name for path in named] == ["1.2.840.113.1_seg.dcm", "1.2.840.113.2_seg.dcm"]
    assert paths.of("/pat1/1.2.840.113.1", "_seg.dcm") == named[0]
    with pytest.raises(SettingError, match=r"^writer: .* two for 1\.2\.840\.113\.1_seg\.dcm"):
        paths.of("/pat3/1.2.840.113.1", "_seg.dcm")


def test_the_seg_of_one_patient_never_replaces_that_of_another(tmp_path):
    labels = MetaTensor(torch.ones(10, 8, 6))
    for patient in ("one", "other"):
        write_series(tmp_path / patient / "series", voxels())
    reader = DicomSeriesReader()
    labels.affine = torch.as_tensor(reader.get_data(reader.read(tmp_path / "one/series"))[1]["affine"])
    flat, deep = (SaveDicomSegd("pred", tmp_path / name, table([1])) for name in ("flat", "deep"))
    first = flat({"pred": labels, "source": str(tmp_path / "one/series")})["pred"].meta["saved_to"]
    with pytest.raises(SettingError, match=r"two for series_seg\.dcm"):
        flat({"pred": labels, "source": str(tmp_path / "other/series")})
    assert first == str(tmp_path / "flat/series_seg.dcm")
    saved = {
        deep({"pred": labels, "source": str(tmp_path / file), "file": file})["pred"].meta["saved_to"]
        for file in ("one/series", "other/series")
    }
    assert {str(path) for path in (tmp_path / "deep").rglob("*.dcm")} == saved
    assert len(saved) == 2
    assert not list(tmp_path.rglob(".part*"))
