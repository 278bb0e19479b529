"""Frames whose place or time is not in a plane position: ultrasound volumes, nuclear medicine, cine, pages."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from pydicom.uid import EnhancedUSVolumeStorage, UltrasoundMultiFrameImageStorage
from transforms.objects import AXIAL, item, write_nuclear
from transforms.phantoms import new_dataset, new_secondary_capture, save, set_pixels, voxels
from transforms.reading import read

from monai_medmerge.errors import DicomSeriesError


def ultrasound_volume(path, heights, times, orientation=AXIAL):
    dataset = new_dataset(EnhancedUSVolumeStorage, "US")
    set_pixels(dataset, np.stack([np.full((4, 5), k, np.uint8) for k in range(len(heights))]))
    measures = item(PixelSpacing=[0.5, 0.5], SliceThickness=2)
    dataset.SharedFunctionalGroupsSequence = [item(PixelMeasuresSequence=[measures])]
    dataset.PerFrameFunctionalGroupsSequence = [
        item(
            PlanePositionVolumeSequence=[item(ImagePositionVolume=[0, 0, z])],
            PlaneOrientationVolumeSequence=[item(ImageOrientationVolume=list(orientation))],
            FrameContentSequence=[item(TemporalPositionIndex=time)],
        )
        for z, time in zip(heights, times, strict=True)
    ]
    return save(dataset, path)


def test_an_ultrasound_volume_is_ordered_by_its_planes(tmp_path):
    array, meta = read(ultrasound_volume(tmp_path / "a.dcm", [4.0, 0.0, 6.0, 2.0], [1] * 4))
    assert array[0, 0].tolist() == [1, 3, 0, 2]
    np.testing.assert_allclose(meta["spacing"], [0.5, 0.5, 2])


def test_times_of_an_ultrasound_volume_are_volumes(tmp_path):
    path = ultrasound_volume(tmp_path / "a.dcm", [0.0, 2.0, 0.0, 2.0], [1, 1, 2, 2])
    with pytest.raises(DicomSeriesError, match="2 volumes by TemporalPositionIdentifier"):
        read(path)
    array, _ = read(path, volume="all")
    assert array[0, 0].tolist() == [[0, 2], [1, 3]]


@pytest.mark.parametrize(
    ("vectors", "dimension"),
    [
        ({"SliceVector": [1, 2, 1, 2], "TimeSlotVector": [1, 1, 2, 2]}, "TimeSlotVector"),
        ({"SliceVector": [1, 1, 2, 2], "PhaseVector": [1, 2, 1, 2]}, "PhaseVector"),
        ({"SliceVector": [2, 1, 2, 1], "RRIntervalVector": [1, 1, 2, 2]}, "RRIntervalVector"),
        ({"SliceVector": [1, 2, 1, 2], "EnergyWindowVector": [1, 1, 2, 2]}, "EnergyWindowVector"),
        ({"RotationVector": [1, 1, 2, 2], "AngularViewVector": [1, 2, 1, 2]}, "AngularViewVector x RotationVector"),
        ({"DetectorVector": [1, 2, 3, 4]}, "DetectorVector"),
    ],
)
@pytest.mark.parametrize("located", [True, False])
def test_frames_that_vectors_tell_apart_are_no_slices_of_one_volume(tmp_path, vectors, dimension, located):
    path = write_nuclear(tmp_path / "a.dcm", voxels((4, 6, 8)), located, **vectors)
    with pytest.raises(DicomSeriesError, match=f"volumes by {dimension}"):
        read(path)
    array, meta = read(path, volume="all")
    assert json.loads(meta["volumes"])["dimension"] == dimension
    assert array.ndim == 4
    if "SliceVector" in vectors:
        stored = dict(zip(zip(vectors["SliceVector"], vectors[dimension], strict=True), voxels((4, 6, 8)), strict=True))
        for (slice_number, number), values in stored.items():
            np.testing.assert_array_equal(array[..., slice_number - 1, number - 1], values.T)


@pytest.mark.parametrize("step", [-3.0, 3.0])
def test_a_reconstruction_keeps_its_origin_and_the_sign_of_its_step(tmp_path, step):
    volume = voxels((4, 6, 8))
    order = [2, 0, 3, 1]
    for policies in (None, {"unlocated": "warn"}):
        path = write_nuclear(tmp_path / "a.dcm", volume[order], step=step, SliceVector=[k + 1 for k in order])
        array, meta = read(path, policies=policies)
        np.testing.assert_array_equal(array, volume.T)
        np.testing.assert_allclose(meta["affine"][:3, 2:], [[0, 100], [0, 90], [step, 300]], atol=1e-9)


def test_a_reconstruction_without_slice_numbers_keeps_origin_and_step_if_it_may(tmp_path):
    path = write_nuclear(tmp_path / "a.dcm", voxels((4, 6, 8)), step=-3)
    with pytest.raises(DicomSeriesError, match="orientation for each frame"):
        read(path)
    with pytest.warns(UserWarning, match="their order in the file is kept"):
        _, meta = read(path, policies={"unlocated": "warn"})
    np.testing.assert_allclose(meta["affine"][:3, 2:], [[0, 100], [0, 90], [-3, 300]], atol=1e-9)


def test_a_dynamic_study_is_in_the_order_of_time(tmp_path):
    volume = voxels((4, 6, 8))
    vectors = {"PhaseVector": [1, 1, 2, 2], "TimeSliceVector": [1, 2, 1, 2]}
    np.testing.assert_array_equal(read(write_nuclear(tmp_path / "a.dcm", volume, False, **vectors))[0], volume.T)
    with pytest.raises(DicomSeriesError, match="SliceVector"):
        read(write_nuclear(tmp_path / "b.dcm", volume, SliceVector=[1, 2]))


def cine(path, sop_class=UltrasoundMultiFrameImageStorage, **attributes):
    dataset = new_dataset(sop_class, "US")
    set_pixels(dataset, voxels((4, 6, 8), high=256).astype(np.uint8))
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return save(dataset, path)


@pytest.mark.parametrize(
    ("attributes", "milliseconds"),
    [
        ({"FrameTime": 40}, 40),
        ({"FrameTimeVector": [0, 20, 20, 20], "FrameIncrementPointer": 0x00181065}, 20),
        ({"CineRate": 25}, 40),
        ({}, math.nan),
    ],
)
def test_a_cine_loop_keeps_its_order_without_a_word_and_says_its_time(tmp_path, recwarn, attributes, milliseconds):
    recwarn.clear()
    array, meta = read(cine(tmp_path / "a.dcm", **attributes))
    np.testing.assert_array_equal(array, voxels((4, 6, 8), high=256).T)
    np.testing.assert_equal(meta["frame_time"], milliseconds)
    assert not [w for w in recwarn if "order of the file" in str(w.message)]


def test_frames_that_nothing_is_said_of_are_read_with_a_word(tmp_path):
    path = save(new_secondary_capture(voxels(), "MONOCHROME2"), tmp_path / "a.dcm")
    with pytest.warns(UserWarning, match="6 frames in the order of the file, which does not say what they are"):
        np.testing.assert_array_equal(read(path)[0], voxels().T)
    array, _ = read(path, geometry="none")
    np.testing.assert_array_equal(array, voxels().T)


def test_pictures_without_a_position_are_read_when_asked_to_in_the_order_of_their_numbers(tmp_path):
    images = voxels((3, 6, 8))
    for number, name in enumerate(("c", "a", "b")):
        attributes = {"InstanceNumber": number + 5, "SeriesInstanceUID": "1.2.3", "StudyInstanceUID": "1.2.4"}
        attributes["FrameOfReferenceUID"] = None
        dataset = new_secondary_capture(images[number], "MONOCHROME2", **attributes)
        save(dataset, tmp_path / f"{name}.dcm")
    with pytest.raises(DicomSeriesError, match='geometry="none" reads pictures'):
        read(tmp_path)
    np.testing.assert_array_equal(read(tmp_path, geometry="none")[0], images.T)
    dataset.InstanceNumber = 5
    save(dataset, tmp_path / "b.dcm")
    with pytest.raises(DicomSeriesError, match="InstanceNumbers to order pictures by"):
        read(tmp_path, geometry="none")
    dataset.InstanceNumber, dataset.PatientID = 7, "another"
    save(dataset, tmp_path / "b.dcm")
    with pytest.raises(DicomSeriesError, match="slices of one PatientID"):
        read(tmp_path, geometry="none")


def region(dx, dy, units=3):
    return item(PhysicalUnitsXDirection=units, PhysicalUnitsYDirection=units, PhysicalDeltaX=dx, PhysicalDeltaY=dy)


@pytest.mark.parametrize(
    ("regions", "spacing", "source"),
    [
        ([region(0.02, -0.03)], (0.2, 0.3), "region"),
        ([region(0.02, 0.03), region(0.001, 0.5, 4)], (0.2, 0.3), "region"),
        ([region(0.02, 0.03), region(0.04, 0.03)], (1, 1), ""),
        ([], (1, 1), ""),
    ],
)
def test_pictures_take_the_spacing_of_ultrasound_regions(tmp_path, regions, spacing, source):
    _, meta = read(cine(tmp_path / "a.dcm", SequenceOfUltrasoundRegions=regions), geometry="none")
    np.testing.assert_allclose(meta["spacing"][:2], spacing)
    assert meta["spacing_source"] == source


@pytest.mark.parametrize(
    ("attributes", "spacing", "source"),
    [
        ({"ImagerPixelSpacing": [0.2, 0.1]}, 0.1, "detector"),
        ({"ImagerPixelSpacing": [0.2, 0.1], "PixelSpacing": [0.2, 0.1]}, 0.1, "detector"),
        ({"ImagerPixelSpacing": [0.2, 0.1], "PixelSpacing": [0.18, 0.09]}, 0.09, "calibrated"),
        ({"PixelSpacing": [0.18, 0.09], "PixelSpacingCalibrationType": "FIDUCIAL"}, 0.09, "calibrated"),
        ({"PixelSpacing": [0.18, 0.09]}, 0.09, "stated"),
        ({"NominalScannedPixelSpacing": [0.18, 0.09]}, 0.09, "film"),
        ({"PixelAspectRatio": [2, 1]}, 1, "ratio"),
    ],
)
def test_a_radiograph_says_whether_its_spacing_is_calibrated(tmp_path, attributes, spacing, source):
    dataset = new_dataset("1.2.840.10008.5.1.4.1.1.1.2", "MG")
    set_pixels(dataset, voxels()[0])
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    _, meta = read(save(dataset, tmp_path / "a.dcm"))
    np.testing.assert_allclose(meta["spacing"][:2], [spacing, 2 * spacing])
    assert meta["spacing_source"] == source
