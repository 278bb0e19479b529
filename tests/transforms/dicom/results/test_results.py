"""Results out: segmentations of tilted series, parametric maps and structured reports, by independent readers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from transforms.phantoms import PATIENT, new_secondary_capture, oblique, save, voxels, write_enhanced_ct, write_series
from transforms.reading import read

from monai_medmerge.errors import DicomSeriesError, SettingError
from monai_medmerge.transforms import (
    DicomSeriesReader,
    SegmentTable,
    read_seg,
    write_parametric_map,
    write_seg,
    write_structured_report,
)

CODE = {"CodeValue": "10200004", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Liver"}
TABLE = SegmentTable(
    tuple(
        {
            "labelID": number,
            "SegmentLabel": f"{number}",
            "SegmentedPropertyCategoryCodeSequence": CODE,
            "SegmentedPropertyTypeCodeSequence": CODE,
        }
        for number in (1, 2)
    )
)
TILTED = {"policies": {"tilt": "warn"}}
LABELS = np.random.default_rng(3).integers(0, 3, (10, 8, 6))
TID1500READER = shutil.which("tid1500reader") or shutil.which("tid1500reader", path=str(Path(sys.executable).parent))


def errors_of_dciodvfy(path):
    report = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
    return [line for line in (report.stdout + report.stderr).splitlines() if line.startswith("Error")]


needs_dciodvfy = pytest.mark.skipif(
    shutil.which("dciodvfy") is None, reason="dciodvfy (Debian: dicom3tools) is not installed"
)


@pytest.fixture
def tilted(tmp_path):
    """A series whose gantry was tilted by 15 degrees: its grid is not rectangular."""
    step = (0, 3 * np.sin(np.radians(15)), 3 * np.cos(np.radians(15)))
    write_series(tmp_path / "tilted", voxels(), step=step)
    return tmp_path / "tilted"


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_labels_of_a_tilted_series_come_back_voxel_for_voxel(tmp_path, tilted, kind):
    with pytest.warns(UserWarning, match="tilt"):
        _, meta = read(tilted, **TILTED)
    path = write_seg(LABELS, meta["affine"], tilted, TABLE, tmp_path / "a.dcm", kind, DicomSeriesReader(**TILTED))
    np.testing.assert_array_equal(read_seg(path, meta["affine"], LABELS.shape), LABELS)
    # Each frame lies where a slice of the source does, by highdicom.
    seg = highdicom.seg.segread(path)
    uids = {dataset.SOPInstanceUID: dataset for dataset in map(pydicom.dcmread, tilted.iterdir())}
    for uid, dataset in uids.items():
        masks = seg.get_pixels_by_source_instance([uid], combine_segments=True)
        z = round((dataset.ImagePositionPatient[2] - 40) / (3 * np.cos(np.radians(15))))
        np.testing.assert_array_equal(masks[0], LABELS[:, :, z].T)


@needs_dciodvfy
def test_a_segmentation_of_a_tilted_series_is_valid(tmp_path, tilted):
    with pytest.warns(UserWarning, match="tilt"):
        _, meta = read(tilted, **TILTED)
    path = write_seg(LABELS, meta["affine"], tilted, TABLE, tmp_path / "a.dcm", reader=DicomSeriesReader(**TILTED))
    assert errors_of_dciodvfy(path) == []


@pytest.mark.parametrize("degrees", [0, 25])
def test_probabilities_come_back_value_for_value(tmp_path, degrees):
    orientation, normal = oblique(degrees)
    write_series(tmp_path / "in", voxels(), orientation, np.multiply(normal, 2.5))
    _, meta = read(tmp_path / "in")
    probabilities = np.random.default_rng(0).random((10, 8, 6), np.float32)
    path = write_parametric_map(probabilities, meta["affine"], tmp_path / "in", "tumour", tmp_path / "a.dcm")
    array, found = read(path)
    np.testing.assert_array_equal(array, probabilities)
    np.testing.assert_allclose(found["affine"], meta["affine"], atol=1e-4)
    dataset = pydicom.dcmread(path)
    assert str(dataset.PatientName) == PATIENT
    assert dataset.ContentLabel == "PROBABILITY"
    image = highdicom.imread(path)
    np.testing.assert_allclose(image.get_volume().array.sum(), probabilities.sum(), rtol=1e-4)


def test_probabilities_of_a_tilted_and_of_an_enhanced_series_come_back(tmp_path, tilted):
    probabilities = np.random.default_rng(0).random((10, 8, 6), np.float32)
    with pytest.warns(UserWarning, match="tilt"):
        _, meta = read(tilted, **TILTED)
    reader = DicomSeriesReader(**TILTED)
    path = write_parametric_map(probabilities, meta["affine"], tilted, "a", tmp_path / "a.dcm", reader)
    with pytest.warns(UserWarning, match="tilt"):
        np.testing.assert_array_equal(read(path, **TILTED)[0], probabilities)
    source = write_enhanced_ct(tmp_path / "b.dcm", voxels(), [3, 1, 5, 0, 2, 4], [1] * 6, [0] * 6)
    _, meta = read(source)
    path = write_parametric_map(probabilities, meta["affine"], source, "a", tmp_path / "c.dcm")
    np.testing.assert_array_equal(read(path)[0], probabilities)


@needs_dciodvfy
def test_a_parametric_map_is_valid(tmp_path):
    write_series(tmp_path / "in", voxels())
    _, meta = read(tmp_path / "in")
    probabilities = np.zeros((10, 8, 6), np.float32)
    assert (
        errors_of_dciodvfy(
            write_parametric_map(probabilities, meta["affine"], tmp_path / "in", "tumour", tmp_path / "a.dcm")
        )
        == []
    )


def test_what_is_no_probability_or_off_the_grid_is_refused(tmp_path):
    write_series(tmp_path / "in", voxels())
    _, meta = read(tmp_path / "in")
    good = np.zeros((10, 8, 6), np.float32)
    for wrong in (good - 1, good + 2, good + np.nan, good[0]):
        with pytest.raises(SettingError, match=r"expected probabilities \(x, y, z\) from 0 to 1"):
            write_parametric_map(wrong, meta["affine"], tmp_path / "in", "a", tmp_path / "a.dcm")
    with pytest.raises(DicomSeriesError, match="probabilities on the series' grid, 10x8x6, found 9x8x6"):
        write_parametric_map(good[1:], meta["affine"], tmp_path / "in", "a", tmp_path / "a.dcm")
    with pytest.raises(DicomSeriesError, match="found another affine"):
        write_parametric_map(good, np.eye(4), tmp_path / "in", "a", tmp_path / "a.dcm")
    with pytest.raises(SettingError, match="a name of 1 to 64 printable"):
        write_parametric_map(good, meta["affine"], tmp_path / "in", "a\nb", tmp_path / "a.dcm")
    assert not (tmp_path / "a.dcm").exists()


FOUND = {"normal": 0.25, "pneumothorax": 0.75}
CODES = {"pneumothorax": {"CodeValue": "36118008", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Pneumothorax"}}


def write_radiograph(path):
    return save(new_secondary_capture(voxels(high=256)[0].astype(np.uint8), "MONOCHROME2"), path)


@pytest.fixture(params=["series", "radiograph"])
def source(request, tmp_path):
    """What was classified: a series, or a picture without a place in the patient."""
    if request.param == "radiograph":
        return write_radiograph(tmp_path / "picture.dcm")
    write_series(tmp_path / "in", voxels())
    return tmp_path / "in"


def test_a_report_says_finding_and_probabilities_by_highdicom(tmp_path, source):
    path = write_structured_report(FOUND, source, tmp_path / "a.dcm", CODES)
    dataset = highdicom.sr.srread(path)
    assert str(dataset.PatientName) == PATIENT
    group = dataset.content.get_image_measurement_groups()[0]
    assert group.finding_type.meaning == "Pneumothorax"
    measured = {one.name.meaning: one.value for one in group.get_measurements()}
    assert measured == {"Probability of normal": 0.25, "Probability of Pneumothorax": 0.75}
    files = [source] if source.is_file() else list(source.iterdir())
    referenced = dataset.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert {item.ReferencedSOPInstanceUID for item in referenced} == {
        pydicom.dcmread(file).SOPInstanceUID for file in files
    }


@needs_dciodvfy
def test_a_report_is_valid(tmp_path, source):
    assert errors_of_dciodvfy(write_structured_report(FOUND, source, tmp_path / "a.dcm", CODES)) == []


@pytest.mark.skipif(TID1500READER is None, reason="tid1500reader (dcmqi) is not installed")
def test_dcmqi_reads_a_report(tmp_path, source):
    path = write_structured_report(FOUND, source, tmp_path / "a.dcm", CODES)
    command = [TID1500READER, "--inputDICOM", path, "--outputMetadata", tmp_path / "a.json"]
    subprocess.run(command, check=True, capture_output=True)
    (group,) = json.loads((tmp_path / "a.json").read_text())["Measurements"]
    assert group["Finding"]["CodeMeaning"] == "Pneumothorax"
    values = {item["quantity"]["CodeMeaning"]: float(item["value"]) for item in group["measurementItems"]}
    assert values == {"Probability of normal": 0.25, "Probability of Pneumothorax": 0.75}


@pytest.mark.parametrize(
    ("probabilities", "codes", "said"),
    [
        ({}, {}, "probabilities from 0 to 1"),
        ({"a": 1.5}, {}, "probabilities from 0 to 1"),
        ({"a": float("nan")}, {}, "probabilities from 0 to 1"),
        ({"a\nb": 0.5}, {}, "names of 1 to 64 printable characters"),
        ({"a": 0.5}, {"b": CODE}, "codes of the classes"),
        ({"a": 0.5}, {"a": {}}, "CodeValue, CodingSchemeDesignator and CodeMeaning"),
    ],
)
def test_what_is_no_classification_is_refused(tmp_path, probabilities, codes, said):
    with pytest.raises(SettingError, match=f"expected {said}"):
        write_structured_report(probabilities, write_radiograph(tmp_path / "b.dcm"), tmp_path / "a.dcm", codes)
    assert not (tmp_path / "a.dcm").exists()
