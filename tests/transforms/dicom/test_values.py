"""The silent errors of common readers, each as a real file with known values: right, or refused."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut
from pydicom.uid import ComputedRadiographyImageStorage, JPEGLSLossless, RLELossless, RTDoseStorage
from transforms.phantoms import (
    lookup_table,
    new_dataset,
    new_secondary_capture,
    save,
    set_pixels,
    voxels,
    write_enhanced_ct,
    write_series,
)
from transforms.reading import read, read_with_itk

from monai_medmerge.errors import DicomSeriesError


def radiograph(photometric):
    dataset = new_dataset(ComputedRadiographyImageStorage, "CR")
    set_pixels(dataset, voxels()[0], photometric, stored=12)
    dataset.PixelSpacing = [0.2, 0.1]
    return dataset


def test_monochrome1_radiographs_are_inverted_over_the_stored_bits(tmp_path):
    array, meta = read(save(radiograph("MONOCHROME1"), tmp_path / "a.dcm"))
    np.testing.assert_array_equal(array[..., 0], 4095 - voxels()[0].T)
    assert meta["photometric_interpretation"] == "MONOCHROME2"
    kept, meta = read(tmp_path / "a.dcm", monochrome1="keep")
    np.testing.assert_array_equal(kept[..., 0], voxels()[0].T)
    assert meta["photometric_interpretation"] == "MONOCHROME1"


def test_monochrome1_is_inverted_after_rescaling_within_the_range_that_can_be_stored(tmp_path):
    dataset = radiograph("MONOCHROME1")
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 28000
    array, _ = read(save(dataset, tmp_path / "a.dcm"))
    np.testing.assert_array_equal(array[..., 0], 28000 + 4095 - voxels()[0].T.astype(int))


def test_monochrome1_leaves_hounsfield_units_alone(tmp_path):
    write_series(tmp_path, voxels(), PhotometricInterpretation="MONOCHROME1")
    array, meta = read(tmp_path)
    np.testing.assert_array_equal(array, voxels().T.astype(int) - 1024)
    assert (meta["photometric_interpretation"], meta["units"]) == ("MONOCHROME1", "HU")


def test_an_enhanced_ct_with_shuffled_frames_is_ordered_and_rescaled_frame_by_frame(tmp_path):
    volume, slopes, intercepts = voxels(), [1, 2, 0.5, 1, 3, 1.5], [-1024, 0, 10, -5, 7, 100]
    path = write_enhanced_ct(tmp_path / "enhanced.dcm", volume, [3, 0, 5, 1, 4, 2], slopes, intercepts)
    array, meta = read(path)
    expected = volume * np.reshape(slopes, (6, 1, 1)) + np.reshape(intercepts, (6, 1, 1))
    np.testing.assert_allclose(array, expected.T, rtol=1e-6)
    affine = [[-0.6, 0, 0, 20], [0, -0.8, 0, 30], [0, 0, 3, 40], [0, 0, 0, 1]]
    np.testing.assert_allclose(meta["affine"], affine, atol=1e-9)


def test_an_enhanced_ct_that_lacks_a_frame_is_refused(tmp_path):
    path = write_enhanced_ct(tmp_path / "enhanced.dcm", voxels(), [0, 1, 2, 4, 5], [1] * 6, [0] * 6)
    with pytest.raises(DicomSeriesError, match="missing slice"):
        read(path)


def test_multi_frame_axes_are_those_of_itk(tmp_path):
    path = save(new_secondary_capture(voxels(), "MONOCHROME2"), tmp_path / "cine.dcm")
    array, meta = read(path)
    itk_array, itk_meta = read_with_itk(path)
    np.testing.assert_array_equal(array, itk_array)
    np.testing.assert_allclose(meta["affine"], itk_meta["affine"])


def test_multi_frame_with_a_place_but_none_for_each_frame_is_refused(tmp_path):
    dataset = new_secondary_capture(voxels(), "MONOCHROME2", ImagePositionPatient=[0, 0, 0])
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    path = save(dataset, tmp_path / "stack.dcm")
    with pytest.raises(DicomSeriesError, match="orientation for each frame"):
        read(path)
    with pytest.warns(UserWarning, match="their order in the file is kept"):
        read(path, policies={"unlocated": "warn"})


def test_a_modality_table_is_applied_as_pydicom_applies_it(tmp_path):
    dataset = radiograph("MONOCHROME2")
    table = (np.arange(4096) ** 2 // 300).astype(np.uint16)
    dataset.ModalityLUTSequence = [lookup_table("ModalityLUTSequence", 0, table)]
    path = save(dataset, tmp_path / "a.dcm")
    expected = apply_modality_lut(dataset.pixel_array, pydicom.dcmread(path))
    np.testing.assert_array_equal(expected, table[voxels()[0]])
    np.testing.assert_array_equal(read(path)[0][..., 0], expected.T)


def test_a_palette_becomes_rgb_as_pydicom_makes_it(tmp_path):
    dataset = new_secondary_capture(voxels(high=256)[0].astype(np.uint8), "PALETTE COLOR")
    for i, color in enumerate(("Red", "Green", "Blue")):
        dataset.add_new(f"{color}PaletteColorLookupTableDescriptor", "US", [256, 0, 8])
        table = np.random.default_rng(i).permutation(256).astype(np.uint8)
        dataset.add_new(f"{color}PaletteColorLookupTableData", "OW", table.tobytes())
    path = save(dataset, tmp_path / "a.dcm")
    array, meta = read(path)
    expected = apply_color_lut(dataset.pixel_array, pydicom.dcmread(path))
    np.testing.assert_array_equal(array[:, :, 0], expected.transpose(1, 0, 2))
    assert meta["original_channel_dim"] == -1


@pytest.mark.parametrize("offsets", [[0.0, 3, 6, 9, 12, 15], [15.0, 12, 9, 6, 3, 0]])
def test_dose_is_scaled_and_its_frames_are_placed(tmp_path, offsets):
    dataset = new_dataset(RTDoseStorage, "RTDOSE")
    set_pixels(dataset, voxels().astype(np.uint32))
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [1, 2, 3], [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing, dataset.GridFrameOffsetVector = [2, 2], [x - offsets[0] for x in offsets]
    dataset.DoseGridScaling, dataset.DoseUnits = 1e-4, "GY"
    array, meta = read(save(dataset, tmp_path / "dose.dcm"))
    volume = voxels() if offsets[0] == 0 else voxels()[::-1]
    np.testing.assert_allclose(array, volume.T * 1e-4)
    assert meta["units"] == "GY"
    assert meta["affine"][2, 2] == 3
    assert meta["affine"][2, 3] == (3 if offsets[0] == 0 else -12)


def test_pixel_data_of_another_length_than_the_header_says_is_refused(tmp_path):
    dataset = radiograph("MONOCHROME2")
    path = save(dataset, tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DicomSeriesError, match="160 bytes of Pixel Data, found 152"):
        read(path)
    dataset.PixelData *= 2
    with pytest.raises(DicomSeriesError, match="Pixel Data for 2"):
        read(save(dataset, path))


def test_more_colour_frames_than_the_header_says_are_refused(tmp_path):
    colors = np.stack([voxels(high=256).astype(np.uint8)] * 3, axis=-1)
    dataset = new_secondary_capture(colors, "RGB")
    assert read(save(dataset, tmp_path / "a.dcm"))[0].shape == (10, 8, 6, 3)
    dataset.NumberOfFrames = 4
    with pytest.raises(DicomSeriesError, match="Pixel Data for more"):
        read(save(dataset, tmp_path / "a.dcm"))


def test_overlays_in_unused_bits_are_no_part_of_the_values(tmp_path):
    dataset = radiograph("MONOCHROME2")
    dataset.PixelData = (voxels()[0] | 0x8000).tobytes()
    np.testing.assert_array_equal(read(save(dataset, tmp_path / "a.dcm"))[0][..., 0], voxels()[0].T)


def test_signed_values_of_twelve_bits_keep_their_sign(tmp_path):
    dataset = radiograph("MONOCHROME2")
    dataset.PixelRepresentation = 1
    values = voxels()[0].astype(np.int16) - 2048
    dataset.PixelData = (values & 0x0FFF).astype(np.uint16).tobytes()
    np.testing.assert_array_equal(read(save(dataset, tmp_path / "a.dcm"))[0][..., 0], values.T)


def test_compression_does_not_change_a_series(tmp_path):
    paths = write_series(tmp_path, voxels())
    plain, _ = read(tmp_path)
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.save_as(path)
    np.testing.assert_array_equal(read(tmp_path)[0], plain)


@pytest.mark.parametrize(("slope", "intercept"), [(1, -1024), (2, 0)])
def test_colours_are_not_rescaled(tmp_path, slope, intercept):
    """Screenshots of a CT keep its rescaling, which is of grayscale values only (PS3.4 N.2)."""
    pixels = np.random.default_rng(3).integers(0, 256, (8, 10, 3), np.uint8)
    dataset = new_secondary_capture(pixels, "RGB", RescaleSlope=slope, RescaleIntercept=intercept)
    np.testing.assert_array_equal(read(save(dataset, tmp_path / "a.dcm"))[0][:, :, 0], pixels.transpose(1, 0, 2))


@pytest.mark.parametrize(
    ("orientation", "offsets"),
    [((1, 0, 0, 0, 1, 0), (7, 10, 13, 16, 19, 22)), ((1, 0, 0, 0, -1, 0), (3, 6, 9, 12, 15, 18))],
)
def test_dose_planes_that_are_placed_in_neither_way_are_refused(tmp_path, orientation, offsets):
    """PS3.3 C.8.8.3.2: from zero along the normal, or patient z in planes whose normal that is."""
    dataset = new_dataset(RTDoseStorage, "RTDOSE")
    set_pixels(dataset, voxels().astype(np.uint32))
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [1, 2, 3], list(orientation)
    dataset.PixelSpacing, dataset.GridFrameOffsetVector = [2, 2], list(offsets)
    dataset.DoseGridScaling, dataset.DoseUnits = 1e-4, "GY"
    with pytest.raises(DicomSeriesError, match="GridFrameOffsetVector"):
        read(save(dataset, tmp_path / "dose.dcm"))


def test_dose_planes_may_be_placed_by_patient_z(tmp_path):
    dataset = new_dataset(RTDoseStorage, "RTDOSE")
    set_pixels(dataset, voxels().astype(np.uint32))
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [1, 2, 3], [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing, dataset.GridFrameOffsetVector = [2, 2], [3, 6, 9, 12, 15, 18]
    dataset.DoseGridScaling, dataset.DoseUnits = 1e-4, "GY"
    array, meta = read(save(dataset, tmp_path / "dose.dcm"))
    np.testing.assert_allclose(array, voxels().T * 1e-4)
    np.testing.assert_allclose(meta["affine"][2], [0, 0, 3, 3])


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_compressed_frames_of_another_number_than_the_header_says_are_refused(tmp_path, syntax, frames):
    dataset = new_secondary_capture(np.kron(voxels((3, 4, 5)), np.ones((1, 8, 8), np.uint16)), "MONOCHROME2")
    dataset = pydicom.dcmread(save(dataset, tmp_path / "a.dcm"))
    dataset.compress(syntax, generate_instance_uid=False)
    dataset.save_as(tmp_path / "a.dcm")
    assert read(tmp_path / "a.dcm")[0].shape == (40, 32, 3)
    dataset.NumberOfFrames = frames
    dataset.save_as(tmp_path / "a.dcm")
    with pytest.raises(DicomSeriesError, match="as NumberOfFrames says"):
        read(tmp_path / "a.dcm")


def test_a_compressed_frame_may_be_in_several_fragments(tmp_path):
    image = np.kron(voxels((1, 4, 5))[0], np.ones((8, 8), np.uint16))
    dataset = pydicom.dcmread(save(new_secondary_capture(image, "MONOCHROME2"), tmp_path / "a.dcm"))
    dataset.compress(JPEGLSLossless, generate_instance_uid=False)
    frame = next(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1))
    dataset.PixelData = pydicom.encaps.encapsulate([frame], fragments_per_frame=4)
    dataset.save_as(tmp_path / "a.dcm")
    np.testing.assert_array_equal(read(tmp_path / "a.dcm")[0][..., 0], image.T)


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_values_that_are_not_finite_are_refused_or_kept(tmp_path, value):
    dataset = new_secondary_capture(voxels()[0], "MONOCHROME2")
    pixels = np.full((8, 10), 0.5, np.float32)
    pixels[2, 3] = value
    for keyword in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        del dataset[keyword]
    dataset.BitsAllocated, dataset.FloatPixelData = 32, pixels.tobytes()
    path = save(dataset, tmp_path / "a.dcm")
    with pytest.raises(DicomSeriesError, match="1 of 80 NaN or infinite"):
        read(path)
    with pytest.warns(UserWarning, match="NaN or infinite"):
        np.testing.assert_array_equal(read(path, policies={"nonfinite": "warn"})[0][..., 0], pixels.T)


@pytest.mark.parametrize("keyword", ["ModalityLUTSequence", "VOILUTSequence"])
@pytest.mark.parametrize("items", [[], [Dataset()]])
def test_a_table_that_is_empty_is_none(tmp_path, keyword, items):
    dataset = new_secondary_capture(voxels()[0], "MONOCHROME2", RescaleSlope=2, RescaleIntercept=3)
    setattr(dataset, keyword, items)
    np.testing.assert_array_equal(read(save(dataset, tmp_path / "a.dcm"))[0][..., 0], voxels()[0].T * 2 + 3)
