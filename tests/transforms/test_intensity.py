from __future__ import annotations

import numpy as np
import pydicom
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import LoadImaged
from pydicom.pixels import apply_voi_lut
from pydicom.uid import ComputedRadiographyImageStorage
from transforms.phantoms import lookup_table, new_dataset, save, set_pixels, voxels

from monai_medmerge.errors import DicomSeriesError, SettingError
from monai_medmerge.transforms import ApplyWindowd, NormalizePhotometricd, apply_window


def radiograph(photometric="MONOCHROME2", **attributes):
    dataset = new_dataset(ComputedRadiographyImageStorage, "CR")
    set_pixels(dataset, voxels()[0], photometric, stored=12)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def load(path, **arguments):
    image = LoadImaged("image", reader="monai_medmerge.transforms.DicomSeriesReader")({"image": str(path)})
    return ApplyWindowd("image", **arguments)(image)["image"][..., 0].numpy().T


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("index", [0, 1])
def test_windows_of_the_file_equal_pydicoms(tmp_path, function, index):
    dataset = radiograph(WindowCenter=[2000, 1000.5], WindowWidth=[900, 3000], VOILUTFunction=function)
    expected = apply_voi_lut(dataset.pixel_array, dataset, index=index) / 4095
    np.testing.assert_allclose(load(save(dataset, tmp_path / "a.dcm"), index=index), expected, atol=2e-6)


def test_tables_of_the_file_equal_pydicoms_and_go_before_windows(tmp_path):
    table = np.sort(np.random.default_rng(0).integers(0, 2**16, 3000)).astype(np.uint16)
    dataset = radiograph(
        WindowCenter=2000, WindowWidth=900, VOILUTSequence=[lookup_table("VOILUTSequence", 500, table)]
    )
    path = save(dataset, tmp_path / "a.dcm")
    expected = apply_voi_lut(dataset.pixel_array, pydicom.dcmread(path)) / 65535
    np.testing.assert_allclose(load(path), expected, atol=1e-6)
    windowed = apply_voi_lut(dataset.pixel_array, dataset, prefer_lut=False) / 4095
    np.testing.assert_allclose(load(path, prefer_lut=False), windowed, atol=2e-6)


def test_a_window_of_an_inverted_radiograph_is_the_negative_of_the_windowed_one(tmp_path):
    """DICOM inverts MONOCHROME1 after the window; the reader inverts before, and the window must know."""
    dataset = radiograph("MONOCHROME1", WindowCenter=1500, WindowWidth=700)
    expected = 1 - apply_voi_lut(dataset.pixel_array, dataset) / 4095
    path = save(dataset, tmp_path / "a.dcm")
    np.testing.assert_allclose(load(path), expected, atol=2e-6)
    np.testing.assert_allclose(load(path, center=1500, width=700), expected, atol=2e-6)


@given(
    center=st.floats(-1000, 1000),
    width=st.floats(1, 4000),
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
)
def test_a_window_is_monotonous_and_within_zero_and_one(center, width, function):
    values = apply_window(torch.linspace(-3000, 3000, 301), center, width, function)
    assert (values.diff() >= 0).all()
    assert 0 <= values.min() <= values.max() <= 1


def test_wrong_windows_are_refused(tmp_path):
    with pytest.raises(SettingError, match="brain"):
        ApplyWindowd("image", preset="brian")
    for arguments in ({"center": 1}, {"preset": "lung", "center": 1, "width": 2}):
        with pytest.raises(SettingError, match="preset, or a centre and a width"):
            ApplyWindowd("image", **arguments)
    with pytest.raises(SettingError, match="width"):
        apply_window(torch.ones(1), 0, 0)
    with pytest.raises(DicomSeriesError, match="window or table in the file"):
        load(save(radiograph(), tmp_path / "a.dcm"))


def test_mixed_images_become_alike():
    gray = torch.arange(16.0).reshape(1, 4, 4)
    kinds = {"MONOCHROME1": gray.flip(1, 2), "MONOCHROME2": gray, "RGB": gray.repeat(3, 1, 1)}
    for photometric, image in kinds.items():
        image = MetaTensor(image, meta={"photometric_interpretation": photometric})
        for channels in (1, 3):
            result = NormalizePhotometricd("image", channels)({"image": image})["image"]
            torch.testing.assert_close(result.as_tensor(), gray.repeat(channels, 1, 1))
            assert result.meta["photometric_interpretation"] == ("RGB" if channels == 3 else "MONOCHROME2")
    with pytest.raises(DicomSeriesError, match="photometric_interpretation"):
        NormalizePhotometricd("image")({"image": MetaTensor(gray)})


@pytest.mark.parametrize("first", [-1024, 2**16 - 1024])
def test_a_table_of_hounsfield_units_begins_below_zero_however_that_is_written(tmp_path, first):
    """PS3.3 C.11.2.1.1: the first value mapped is signed where rescaling may give signed values."""
    dataset = new_dataset()
    set_pixels(dataset, voxels()[0], stored=12)
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    item = lookup_table("VOILUTSequence", 0, (np.arange(4096) * 16).astype(np.uint16))
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [4096, first, 16])
    dataset.VOILUTSequence = [item]
    np.testing.assert_allclose(load(save(dataset, tmp_path / "a.dcm")), voxels()[0] * 16 / 65535, atol=1e-6)


def test_a_window_after_normalising_knows_that_values_were_inverted(tmp_path):
    dataset = radiograph("MONOCHROME1", WindowCenter=1500, WindowWidth=700)
    expected = 1 - apply_voi_lut(dataset.pixel_array, dataset) / 4095
    reader = "monai_medmerge.transforms.DicomSeriesReader"
    path = str(save(dataset, tmp_path / "a.dcm"))
    image = LoadImaged("image", reader=reader, ensure_channel_first=True, monochrome1="keep")({"image": path})
    image = NormalizePhotometricd("image")(image)
    for window in ({}, {"center": 1500, "width": 700}):
        found = ApplyWindowd("image", **window)(image)["image"][0, ..., 0].numpy().T
        np.testing.assert_allclose(found, expected, atol=2e-6)
    assert image["image"].meta["units"] == ""
