"""A planted list: whatever a source says of its patient is in no result once it is de-identified."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pydicom
import pytest
from pydicom.datadict import DicomDictionary
from transforms.phantoms import voxels, write_series
from transforms.reading import read

from monai_medmerge.errors import DicomSeriesError, SettingError
from monai_medmerge.transforms import (
    SegmentTable,
    deidentify_result,
    read_seg,
    write_parametric_map,
    write_seg,
    write_structured_report,
)
from monai_medmerge.transforms.dicom.tags import TAGS

PLANTED = {
    **dict.fromkeys(("LO", "SH", "ST", "LT", "UT", "UC"), "PLANTED"),
    "PN": "Planted^PLANTED",
    "DA": "19770707",
    "TM": "070707",
    "DT": "19770707070707",
    "AS": "077Y",
}
FOUND = (b"PLANTED", b"Planted", b"19770707", b"070707", b"077Y")
# What decides how texts are read, or what a value is.
LEFT_ALONE = {"SpecificCharacterSet", "TimezoneOffsetFromUTC", "PixelPaddingValue"}
CODE = {"CodeValue": "10200004", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Liver"}
TABLE = SegmentTable(
    (
        {
            "labelID": 1,
            "SegmentLabel": "liver",
            "SegmentedPropertyCategoryCodeSequence": CODE,
            "SegmentedPropertyTypeCodeSequence": CODE,
        },
    )
)
LABELS = (voxels() > 2000).T.astype(np.uint8)


def plant(path):
    """Put words into every attribute that can hold them, where no geometry or value hangs on it; private ones too."""
    dataset = pydicom.dcmread(path)
    for tag, (kind, multiplicity, _, retired, keyword) in DicomDictionary.items():
        free = (
            tag not in TAGS and not retired and keyword and keyword not in LEFT_ALONE and multiplicity in ("1", "1-n")
        )
        if free and kind in PLANTED and tag >> 16 in (0x0008, 0x0010, 0x0018, 0x0020, 0x0032, 0x0038, 0x0040):
            setattr(dataset, keyword, PLANTED[kind])
    dataset.PatientID = "PLANTED"
    block = dataset.private_block(0x0009, "PLANTED CREATOR", create=True)
    block.add_new(0x01, "LO", "PLANTED")
    dataset.save_as(path)


@pytest.fixture
def source(tmp_path):
    for path in write_series(tmp_path / "in", voxels()):
        plant(path)
    return tmp_path / "in"


@pytest.fixture(params=["seg", "labelmap", "map", "report"])
def result(request, source, tmp_path):
    _, meta = read(source)
    path = tmp_path / f"{request.param}.dcm"
    if request.param in ("seg", "labelmap"):
        return write_seg(
            LABELS, meta["affine"], source, TABLE, path, "BINARY" if request.param == "seg" else "LABELMAP"
        )
    if request.param == "map":
        return write_parametric_map(LABELS.astype(np.float32), meta["affine"], source, "liver", path)
    return write_structured_report({"liver": 0.75, "none": 0.25}, source, path)


def test_nothing_that_was_planted_is_left(source, result, tmp_path):
    before = result.read_bytes()
    assert any(word in before for word in FOUND)
    after = deidentify_result(result, tmp_path / "out.dcm", "secret").read_bytes()
    assert not [word for word in FOUND if word in after]
    kept = {str(element.value) for element in pydicom.dcmread(tmp_path / "out.dcm").iterall() if element.VR == "UI"}
    for path in source.iterdir():
        dataset = pydicom.dcmread(path)
        assert kept.isdisjoint({dataset.SOPInstanceUID, dataset.SeriesInstanceUID, dataset.StudyInstanceUID})
    assert result.read_bytes() == before


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian: dicom3tools) is not installed")
def test_what_is_left_is_as_valid_as_before(result, tmp_path):
    def errors(path):
        report = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
        return {line for line in (report.stdout + report.stderr).splitlines() if line.startswith("Error")}

    assert errors(deidentify_result(result, tmp_path / "out.dcm", "secret")) <= errors(result)


def test_voxels_stay_where_they_are_and_results_of_one_source_stay_together(source, tmp_path):
    _, meta = read(source)
    seg = write_seg(LABELS, meta["affine"], source, TABLE, tmp_path / "a.dcm")
    probability = write_parametric_map(LABELS.astype(np.float32), meta["affine"], source, "liver", tmp_path / "b.dcm")
    one = deidentify_result(seg, tmp_path / "c.dcm", "secret")
    other = deidentify_result(probability, tmp_path / "d.dcm", "secret")
    np.testing.assert_array_equal(read_seg(one, meta["affine"], LABELS.shape), LABELS)
    np.testing.assert_array_equal(read(other)[0], LABELS)
    first, second = pydicom.dcmread(one), pydicom.dcmread(other)
    assert first.StudyInstanceUID == second.StudyInstanceUID
    assert first.FrameOfReferenceUID == second.FrameOfReferenceUID
    another = pydicom.dcmread(deidentify_result(seg, tmp_path / "e.dcm", "another"))
    assert another.StudyInstanceUID != first.StudyInstanceUID
    assert first.PatientIdentityRemoved == "YES"


def test_other_objects_and_no_salt_are_refused(source, tmp_path):
    image = next(iter(source.iterdir()))
    with pytest.raises(DicomSeriesError, match="of this package"):
        deidentify_result(image, tmp_path / "out.dcm", "secret")
    with pytest.raises(SettingError, match="a salt that is not empty"):
        deidentify_result(image, tmp_path / "out.dcm", "")
    (tmp_path / "a.dcm").write_bytes(bytes(128) + b"DICMbroken")
    with pytest.raises(DicomSeriesError, match=r"^a\.dcm: expected a"):
        deidentify_result(tmp_path / "a.dcm", tmp_path / "out.dcm", "secret")
    assert not (tmp_path / "out.dcm").exists()
