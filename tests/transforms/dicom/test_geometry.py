"""Order, affine and the geometry checks, on series whose true geometry is known because the test wrote it."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import NuclearMedicineImageStorage
from scipy import ndimage
from transforms.phantoms import (
    new_dataset,
    oblique,
    save,
    set_pixels,
    voxels,
    write_enhanced_ct,
    write_series,
)
from transforms.reading import read, read_with_itk

from monai_medmerge.errors import DicomSeriesError

HU = voxels().T.astype(np.int32) - 1024


def smooth_volume(shape=(9, 24, 28)):
    """A smooth volume, which linear interpolation hardly changes."""
    noise = np.random.default_rng(3).normal(size=shape)
    blurred = ndimage.gaussian_filter(noise, 4)
    return (2000 + 1000 * blurred / abs(blurred).max()).astype(np.uint16)


@given(degrees=st.floats(-80, 80), spacing=st.floats(0.5, 8))
@settings(max_examples=15, deadline=None)
def test_slices_are_ordered_and_the_affine_equals_itk_for_any_orientation(tmp_path_factory, degrees, spacing):
    folder = tmp_path_factory.mktemp("series")
    orientation, normal = oblique(degrees)
    write_series(folder, voxels(), orientation, step=np.multiply(normal, spacing))
    array, meta = read(folder)
    np.testing.assert_array_equal(array, HU)
    np.testing.assert_allclose(meta["affine"], read_with_itk(folder)[1]["affine"], atol=1e-4)


def test_the_affine_maps_each_slice_to_its_own_position(tmp_path):
    orientation, normal = oblique()
    step = np.multiply(normal, 2.5)
    write_series(tmp_path, voxels(), orientation, step)
    _, meta = read(tmp_path)
    for z in range(6):
        lps = np.array([-20, -30, 40]) + z * step
        np.testing.assert_allclose(meta["affine"] @ [0, 0, z, 1], [-lps[0], -lps[1], lps[2], 1], atol=1e-6)


def test_slices_against_the_normal_are_turned_round(tmp_path):
    write_series(tmp_path, voxels(), step=(0, 0, -2.5))
    array, meta = read(tmp_path)
    np.testing.assert_array_equal(array, HU[..., ::-1])
    assert meta["affine"][2, 2] == 2.5
    np.testing.assert_allclose(meta["affine"], read_with_itk(tmp_path)[1]["affine"], atol=1e-4)


def test_a_missing_slice_is_refused_or_interpolated(tmp_path):
    volume = smooth_volume()
    paths = write_series(tmp_path, volume)
    full, meta = read(tmp_path)
    paths[4].unlink()
    with pytest.raises(DicomSeriesError, match=r"2\.5 to 5 mm among 8 slices, as with a missing slice"):
        read(tmp_path)
    with pytest.warns(UserWarning, match="policy: repair"):
        array, repaired = read(tmp_path, policies={"gap": "repair"})
    assert array.shape == full.shape
    np.testing.assert_allclose(repaired["affine"], meta["affine"], atol=1e-9)
    present = [0, 1, 2, 3, 5, 6, 7, 8]
    np.testing.assert_allclose(array[..., present], full[..., present], atol=1e-2)
    np.testing.assert_allclose(array[..., 4], (full[..., 3] + full[..., 5]) / 2, atol=1e-2)
    with pytest.warns(UserWarning, match="policy: warn"):
        array, _ = read(tmp_path, policies={"gap": "warn"})
    np.testing.assert_array_equal(array, full[..., present])


def test_positions_rounded_by_the_scanner_are_no_gap(tmp_path):
    for i, path in enumerate(write_series(tmp_path, voxels(), step=(0, 0, 0.625))):
        dataset = pydicom.dcmread(path)
        dataset.ImagePositionPatient = [-20, -30, round(40 + 0.625 * i, 2)]
        save(dataset, path)
    _, meta = read(tmp_path)
    assert meta["spacing"][2] == pytest.approx(0.625, abs=0.01)


def test_a_tilted_gantry_is_refused_or_right_by_shear_or_by_resampling(tmp_path):
    volume = smooth_volume()
    step = (0, 2.5 * np.tan(np.radians(15)), 2.5)
    write_series(tmp_path, volume, step=step)
    with pytest.raises(DicomSeriesError, match=r"15.0 degrees off \(gantry tilt\)"):
        read(tmp_path)
    with pytest.warns(UserWarning, match="policy: warn"):
        sheared, meta = read(tmp_path, policies={"tilt": "warn"})
    np.testing.assert_allclose(meta["affine"][:3, 2], [0, -step[1], 2.5], atol=1e-6)
    with pytest.warns(UserWarning, match="policy: repair"):
        array, repaired = read(tmp_path, policies={"tilt": "repair"})
    np.testing.assert_allclose(repaired["affine"][:3, 2], [0, 0, 2.5], atol=1e-6)
    # A voxel of either volume lies at one place in space: sample the repaired volume where the sheared voxels are.
    inside = np.stack(np.meshgrid(range(2, 26), range(2, 22), range(9), indexing="ij")).reshape(3, -1)
    points = np.linalg.solve(repaired["affine"], meta["affine"] @ np.vstack([inside, np.ones(inside.shape[1])]))[:3]
    values = ndimage.map_coordinates(array.astype(float), points, order=1)
    assert abs(values - sheared[tuple(inside)]).max() < 0.02 * np.ptp(sheared)
    assert array.shape[1] == 24 + int(np.ceil(8 * step[1] / 0.8))


def test_duplicate_positions_are_refused_and_copies_dropped_on_request(tmp_path):
    paths = write_series(tmp_path, voxels())
    copy = pydicom.dcmread(paths[2])
    copy.SOPInstanceUID += ".1"
    save(copy, tmp_path / "copy.dcm")
    with pytest.raises(DicomSeriesError, match=r"1 position\(s\) given twice"):
        read(tmp_path)
    with pytest.warns(UserWarning, match="policy: repair"):
        array, _ = read(tmp_path, policies={"duplicate": "repair"})
    np.testing.assert_array_equal(array, HU)
    copy.PixelData = bytes(len(copy.PixelData))
    save(copy, tmp_path / "copy.dcm")
    with pytest.raises(DicomSeriesError, match="equal slices where positions are equal"):
        read(tmp_path, policies={"duplicate": "repair"})


def test_a_localizer_is_refused_or_left_out(tmp_path):
    paths = write_series(tmp_path, voxels())
    scout = pydicom.dcmread(paths[0])
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    scout.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    save(scout, tmp_path / "scout.dcm")
    with pytest.raises(DicomSeriesError, match="localiser"):
        read(tmp_path)
    with pytest.warns(UserWarning, match="1 localiser"):
        array, _ = read(tmp_path, policies={"localizer": "repair"})
    np.testing.assert_array_equal(array, HU)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "one orientation"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "perpendicular unit vectors"),
        ({"PixelSpacing": [1.6, 0.6]}, "one pixel spacing"),
        ({"PixelSpacing": [0, 0.6]}, "positive spacing"),
        ({"Rows": 4}, "one size"),
        ({"ImagePositionPatient": [-20, -25, 40]}, "line"),
        ({"ImagePositionPatient": None}, "a position and an orientation for each slice"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "one photometric interpretation"),
        ({"RescaleSlope": 0}, "slope other than zero"),
        ({"HighBit": 15}, "HighBit"),
    ],
)
def test_one_slice_that_does_not_fit_is_refused(tmp_path, attributes, reason):
    path = write_series(tmp_path, voxels())[0]
    dataset = pydicom.dcmread(path)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    save(dataset, path)
    with pytest.raises(DicomSeriesError, match=reason):
        read(tmp_path)


def change(paths, keyword, values):
    """Give the slices, in their order, values of an attribute."""
    for path, value in zip(paths, values, strict=True):
        dataset = pydicom.dcmread(path)
        setattr(dataset, keyword, value)
        dataset.save_as(path)


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("PatientID", ("DOE-1", "DOE-2")),
        ("StudyInstanceUID", ("1.2.3", "1.2.4")),
        ("FrameOfReferenceUID", ("1.2.3", "1.2.4")),
        ("Modality", ("CT", "MR")),
        ("RescaleType", ("HU", "OD")),
    ],
)
def test_slices_that_are_not_of_one_volume_are_refused_whatever_their_series_uid(tmp_path, keyword, values):
    paths = write_series(tmp_path, voxels())
    change(paths, keyword, [values[0], *[values[1]] * 5])
    with pytest.raises(DicomSeriesError, match=f"slices of one {keyword}, found 2 different ones") as error:
        read(tmp_path)
    assert not any(value in str(error.value) for value in values)
    change(paths, keyword, [values[0], *[""] * 5])
    assert read(tmp_path)[0].shape == (10, 8, 6)


@pytest.mark.parametrize("keyword", ["AcquisitionNumber", "EchoTime", "TemporalPositionIdentifier", "DiffusionBValue"])
def test_acquisitions_that_lie_between_one_another_are_refused_and_blocks_are_not(tmp_path, keyword):
    paths = write_series(tmp_path, voxels())
    for blocks in ([1] * 6, [1, 1, 1, 2, 2, 2], [3, 3, 1, 1, 2, 2], [1, 2, 3, 4, 5, 6]):
        change(paths, keyword, blocks)
        assert read(tmp_path)[0].shape == (10, 8, 6)
    change(paths, keyword, [1, 2] * 3)
    with pytest.raises(DicomSeriesError, match=f"2 values of {keyword} that alternate"):
        read(tmp_path)
    with pytest.warns(UserWarning, match="policy: warn"):
        assert read(tmp_path, policies={"acquisition": "warn"})[0].shape == (10, 8, 6)


@pytest.mark.parametrize("enhanced", [False, True])
@pytest.mark.parametrize("slices", [1, 6])
def test_slices_with_a_position_but_no_pixel_spacing_are_refused(tmp_path, enhanced, slices):
    """PS3.3 C.7.6.2: Image Plane requires PixelSpacing; pixels of one millimetre would be a guess."""
    if enhanced:
        path = write_enhanced_ct(tmp_path / "a.dcm", voxels((slices, 8, 10)), range(slices), [1] * slices, [0] * slices)
        dataset = pydicom.dcmread(path)
        del dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
        dataset.save_as(path)
    else:
        path = tmp_path
        write_series(path, voxels((slices, 8, 10)), PixelSpacing=None)
    with pytest.raises(DicomSeriesError, match="PixelSpacing"):
        read(path)


def test_one_slice_with_a_position_but_no_orientation_is_refused(tmp_path):
    write_series(tmp_path, voxels()[:1], ImageOrientationPatient=None)
    with pytest.raises(DicomSeriesError, match="a position and an orientation"):
        read(tmp_path)


def nuclear_medicine(path, pixels):
    """A reconstructed SPECT, whose place is that of its detector (PS3.3 C.8.4.11)."""
    dataset = new_dataset(NuclearMedicineImageStorage, "NM")
    set_pixels(dataset, pixels)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"]
    dataset.PixelSpacing, dataset.SpacingBetweenSlices = [4, 4], -5
    detector = Dataset()
    detector.ImagePositionPatient, detector.ImageOrientationPatient = [-100, -90, 300], [0, 1, 0, 0, 0, -1]
    dataset.DetectorInformationSequence = [detector]
    return save(dataset, path)


def test_nuclear_medicine_that_is_placed_by_its_first_frame_alone_is_refused(tmp_path):
    path = nuclear_medicine(tmp_path / "a.dcm", voxels())
    with pytest.raises(DicomSeriesError, match="orientation for each frame"):
        read(path)
    with pytest.warns(UserWarning, match="their order in the file is kept"):
        _, meta = read(path, policies={"unlocated": "warn"})
    np.testing.assert_allclose(abs(meta["affine"][:3, :3]), [[0, 0, 5], [4, 0, 0], [0, 4, 0]], atol=1e-9)
    _, meta = read(nuclear_medicine(path, voxels()[0]))
    np.testing.assert_allclose(meta["affine"][:3, 3], [100, 90, 300])
