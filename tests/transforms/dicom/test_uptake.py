"""SUV by body weight, against the formula by hand for each way that scanners state it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from pydicom.dataset import Dataset
from transforms.phantoms import voxels, write_series
from transforms.reading import read

from monai_medmerge.errors import DicomSeriesError
from monai_medmerge.transforms import ToUptaked

HALF_LIFE = 6586.2
DOSE, WEIGHT = 370e6, 75.0


def injection(**attributes):
    item = Dataset()
    item.RadionuclideTotalDose, item.RadionuclideHalfLife = DOSE, HALF_LIFE
    item.RadiopharmaceuticalStartTime = "090000"
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return [item]


PET = {
    "Modality": "PT",
    "Units": "BQML",
    "CorrectedImage": ["DECY", "ATTN", "SCAT"],
    "DecayCorrection": "START",
    "PatientWeight": WEIGHT,
    "SeriesDate": "20200101",
    "SeriesTime": "100000",
    "AcquisitionDate": "20200101",
    "AcquisitionTime": "100000",
    "RescaleType": "BQML",
    "RescaleIntercept": 0,
    "RescaleSlope": 2.5,
}
AFTER_AN_HOUR = WEIGHT * 1000 / (DOSE * 2 ** (-3600 / HALF_LIFE))


def factor_of(folder, **attributes):
    attributes = {**PET, "RadiopharmaceuticalInformationSequence": injection(), **attributes}
    write_series(folder, voxels((3, 4, 5)), **attributes)
    array, meta = read(folder)
    return array, meta


def test_activity_becomes_uptake(tmp_path):
    array, meta = factor_of(tmp_path)
    assert math.isclose(meta["suv_factor"], AFTER_AN_HOUR, rel_tol=1e-9)
    uptake = ToUptaked("image")({"image": MetaTensor(torch.as_tensor(array), meta=meta)})["image"]
    np.testing.assert_allclose(uptake.numpy(), voxels((3, 4, 5)).T * 2.5 * AFTER_AN_HOUR, rtol=1e-5)
    assert uptake.meta["units"] == "SUVbw"
    again = ToUptaked("image")({"image": uptake})["image"]
    np.testing.assert_array_equal(again.numpy(), uptake.numpy())


@pytest.mark.parametrize(
    ("attributes", "factor"),
    [
        ({"DecayCorrection": "ADMIN"}, WEIGHT * 1000 / DOSE),
        ({"Units": "GML"}, 1.0),
        # Past midnight.
        (
            {
                "SeriesTime": "003000",
                "AcquisitionTime": "003000",
                "RadiopharmaceuticalInformationSequence": injection(RadiopharmaceuticalStartTime="233000"),
            },
            AFTER_AN_HOUR,
        ),
        (
            {
                "RadiopharmaceuticalInformationSequence": injection(
                    RadiopharmaceuticalStartDateTime="20200101090000.000000", RadiopharmaceuticalStartTime="080000"
                )
            },
            AFTER_AN_HOUR,
        ),
        # The series' time is that of a reconstruction; mean decay is half a minute after the start of a frame of one.
        ({"SeriesTime": "150000", "FrameReferenceTime": 29968.43, "ActualFrameDuration": 60000}, AFTER_AN_HOUR),
    ],
)
def test_each_way_to_state_it_gives_the_same(tmp_path, attributes, factor):
    assert math.isclose(factor_of(tmp_path, **attributes)[1]["suv_factor"], factor, rel_tol=1e-5)


@pytest.mark.parametrize(
    ("attributes", "lacks"),
    [
        ({"PatientWeight": None}, "PatientWeight"),
        ({"PatientWeight": 0}, "PatientWeight"),
        ({"Units": "PROPCPS"}, "Units of Bq/ml"),
        ({"CorrectedImage": ["ATTN"]}, "CorrectedImage of attenuation and decay"),
        ({"DecayCorrection": "NONE"}, "DecayCorrection"),
        ({"RadiopharmaceuticalInformationSequence": []}, "RadiopharmaceuticalInformationSequence"),
        ({"RadiopharmaceuticalInformationSequence": injection(RadionuclideTotalDose=None)}, "RadionuclideTotalDose"),
        ({"SeriesTime": "150000"}, "the time that decay was corrected to"),
        ({"Units": "GML", "SUVType": "LBM"}, "uptake by body weight"),
        ({"AcquisitionTime": ""}, "AcquisitionDate and AcquisitionTime"),
        (
            {"RadiopharmaceuticalInformationSequence": injection(RadiopharmaceuticalStartDateTime="20190101090000")},
            "an injection in the day before the scan",
        ),
    ],
)
def test_what_a_file_does_not_tell_is_named_and_no_uptake_guessed(tmp_path, attributes, lacks):
    array, meta = factor_of(tmp_path, **attributes)
    assert math.isnan(meta["suv_factor"])
    with pytest.raises(DicomSeriesError, match=f"^image: expected what uptake is computed from, found no {lacks}"):
        ToUptaked("image")({"image": MetaTensor(torch.as_tensor(array), meta=meta)})


def test_a_name_of_a_file_is_not_said(tmp_path):
    injected = {"RadiopharmaceuticalInformationSequence": injection()}
    write_series(tmp_path, voxels((1, 4, 5)), **{**PET, **injected, "PatientWeight": 77777})
    path = next(tmp_path.iterdir()).rename(tmp_path / "Doe, Jane")
    path.write_bytes(path.read_bytes().replace(b"77777", b"7777x"))
    _, meta = read(path)
    assert math.isnan(meta["suv_factor"])
    assert "Jane" not in meta["suv_lacks"]


def test_what_is_no_pet_has_no_uptake(tmp_path):
    write_series(tmp_path, voxels())
    _, meta = read(tmp_path)
    with pytest.raises(DicomSeriesError, match="an image that is no PET"):
        ToUptaked("image")({"image": MetaTensor(torch.zeros(1), meta=meta)})
