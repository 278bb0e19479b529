"""Parametric maps: values in their unit, as highdicom maps them."""

from __future__ import annotations

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.uid import ParametricMapStorage
from transforms.objects import item, write_enhanced
from transforms.phantoms import SECRETS, voxels
from transforms.reading import read

from monai_medmerge.errors import DicomSeriesError

VOLUME = voxels((4, 6, 8), high=100)


def mapping(first=0, last=4095, unit="mm2/s", **attributes):
    """An item of a RealWorldValueMappingSequence, a line unless a table is given."""
    units = item(CodeValue=unit, CodingSchemeDesignator="UCUM", CodeMeaning=unit)
    found = item(LUTLabel="ADC", LUTExplanation="ADC", MeasurementUnitsCodeSequence=[units])
    found.add_new("RealWorldValueFirstValueMapped", "US", first)
    found.add_new("RealWorldValueLastValueMapped", "US", last)
    if "RealWorldValueLUTData" not in attributes:
        found.RealWorldValueSlope, found.RealWorldValueIntercept = 0.25, -5.0
    for keyword, value in attributes.items():
        setattr(found, keyword, value)
    return found


def write(path, mappings, own=None, **attributes):
    groups = [{"RealWorldValueMappingSequence": {}} for _ in VOLUME] if own else ()
    write_enhanced(path, VOLUME, [0, 2, 4, 6], groups, sop_class=ParametricMapStorage, **attributes)
    dataset = pydicom.dcmread(path)
    if own:
        for frame, found in zip(dataset.PerFrameFunctionalGroupsSequence, own, strict=True):
            frame.RealWorldValueMappingSequence = [found]
    elif mappings:
        dataset.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence = mappings
    dataset.save_as(path)
    return path


def test_a_line_is_applied_with_its_unit_as_highdicom_applies_it(tmp_path):
    path = write(tmp_path / "a.dcm", [mapping()])
    array, meta = read(path)
    image = highdicom.imread(path)
    expected = np.stack([image.get_frame(k + 1) for k in range(4)])
    np.testing.assert_allclose(array, expected.T)
    np.testing.assert_allclose(array, VOLUME.T * 0.25 - 5)
    assert meta["units"] == "mm2/s"


def test_each_frame_has_its_own_mapping(tmp_path):
    own = [mapping(RealWorldValueSlope=k + 1.0) for k in range(4)]
    array, _ = read(write(tmp_path / "a.dcm", None, own))
    np.testing.assert_allclose(array, VOLUME.T * np.arange(1, 5) - 5)
    own[2] = mapping(unit="um2/s")
    with pytest.raises(DicomSeriesError, match="real world values of one unit"):
        read(write(tmp_path / "b.dcm", None, own))


def test_ranges_and_tables_are_applied_where_they_are_for(tmp_path):
    table = np.linspace(0, 1, 50).tolist()
    path = write(tmp_path / "a.dcm", [mapping(50, 4095), mapping(0, 49, RealWorldValueLUTData=table)])
    expected = np.where(VOLUME < 50, np.array(table)[np.minimum(VOLUME, 49)], VOLUME * 0.25 - 5)
    np.testing.assert_allclose(read(path)[0], expected.T, rtol=1e-6)


def test_values_without_a_meaning_are_not_finite_and_refused(tmp_path):
    path = write(tmp_path / "a.dcm", [mapping(1, 4095)])
    zeros = int((VOLUME == 0).sum())
    with pytest.raises(DicomSeriesError, match=f"{zeros} of {VOLUME.size} NaN"):
        read(path)
    with pytest.warns(UserWarning, match="NaN"):
        array, _ = read(path, policies={"nonfinite": "warn"})
    np.testing.assert_array_equal(np.isnan(array), (VOLUME == 0).T)


@pytest.mark.parametrize(
    ("mappings", "reason"),
    [
        ([], "RealWorldValueMappingSequence of a parametric map"),
        ([mapping(0, 60), mapping(50, 100)], "one real world value for each stored one"),
        ([mapping(0, 60), mapping(61, 100, "um2/s")], "one unit"),
        ([mapping(RealWorldValueSlope=None)], "slope and intercept, or a table"),
        ([mapping(RealWorldValueLUTData=[1.0, 2.0])], "a value for each stored one"),
        ([mapping(9, 3)], "a range of stored values"),
    ],
)
def test_a_map_whose_values_are_not_told_is_refused(tmp_path, mappings, reason):
    with pytest.raises(DicomSeriesError, match=reason):
        read(write(tmp_path / "a.dcm", mappings))


def test_a_unit_that_is_none_is_not_said(tmp_path):
    for unit in ("Zyxwvut^Planted", "PLANTED-4711", "Planted"):
        meta = read(write(tmp_path / "a.dcm", [mapping(unit=unit)]))[1]
        assert not any(secret in repr(meta) for secret in SECRETS)


def test_several_quantities_are_volumes(tmp_path):
    groups = [{"RealWorldValueMappingSequence": {}} for _ in VOLUME]
    path = write_enhanced(tmp_path / "a.dcm", VOLUME, [0, 0, 2, 2], groups, sop_class=ParametricMapStorage)
    dataset = pydicom.dcmread(path)
    for number, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        label, unit = (("ADC", "mm2/s"), ("T1", "ms"))[number % 2]
        frame.RealWorldValueMappingSequence = [mapping(unit=unit, LUTLabel=label)]
    dataset.save_as(path)
    with pytest.raises(DicomSeriesError, match="2 volumes by LUTLabel"):
        read(path)
    array, meta = read(path, volume=1)
    np.testing.assert_allclose(array, VOLUME[1::2].T * 0.25 - 5)
    assert meta["units"] == "ms"
