"""Several volumes in one series: one rule for classic files and for functional groups."""

from __future__ import annotations

import json

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import EnhancedCTImageStorage
from transforms.objects import AXIAL, item, write_enhanced
from transforms.phantoms import SECRETS, voxels, write_series
from transforms.reading import read

from monai_medmerge.errors import DicomSeriesError, SettingError
from monai_medmerge.transforms import DicomSeriesReader, list_series

# (keyword of classic files, macro and keyword of enhanced ones, two values, its unit)
DIMENSIONS = [
    ("EchoTime", "MREchoSequence", "EffectiveEchoTime", (10.0, 80.0), "ms"),
    ("InversionTime", "MRModifierSequence", "InversionTimes", (200.0, 900.0), "ms"),
    ("FlipAngle", "MRTimingAndRelatedParametersSequence", "FlipAngle", (5.0, 20.0), "deg"),
    ("DiffusionBValue", "MRDiffusionSequence", "DiffusionBValue", (0.0, 1000.0), "s/mm2"),
    ("TemporalPositionIdentifier", "FrameContentSequence", "TemporalPositionIndex", (1, 2), ""),
    ("KVP", "CTXRayDetailsSequence", "KVP", (80.0, 140.0), "kV"),
    ("ConvolutionKernel", "CTReconstructionSequence", "ConvolutionKernel", ("B30f", "B60f"), ""),
    ("ComplexImageComponent", "MRImageFrameTypeSequence", "ComplexImageComponent", ("MAGNITUDE", "PHASE"), ""),
    ("AcquisitionNumber", "FrameContentSequence", "FrameAcquisitionNumber", (1, 2), ""),
    (
        "ImageType",
        "MRImageFrameTypeSequence",
        "FrameType",
        (["ORIGINAL", "PRIMARY", "WATER", "NONE"], ["ORIGINAL", "PRIMARY", "FAT", "NONE"]),
        "",
    ),
]
IDS = [row[0] for row in DIMENSIONS]


def classic(folder, volumes, keyword, values, heights=None):
    """Files of several volumes, one after the other, under names that say nothing."""
    shared = {"SeriesInstanceUID": "1.2.3", "StudyInstanceUID": "1.2.4", "FrameOfReferenceUID": "1.2.5"}
    for number, (volume, value) in enumerate(zip(volumes, values, strict=True)):
        paths = write_series(folder / str(number), volume, **shared, **{keyword: value})
        for slice_number, path in enumerate(paths):
            if heights:
                dataset = pydicom.dcmread(path)
                dataset.ImagePositionPatient = [-20, -30, heights[number][slice_number]]
                dataset.save_as(path)
            path.rename(folder / f"{(7 * slice_number + 3 * number) % 31:03d}-{number}.dcm")
    return folder


def enhanced(path, volumes, macro, keyword, values, heights=None):
    """One file with the frames of several volumes between one another."""
    count = len(volumes[0])
    frames = [(k, n) for k in range(count) for n in range(len(volumes))]
    places = [heights[n][k] if heights else 40 + 2.5 * k for k, n in frames]
    groups = [{macro: {keyword: values[n]}} for _, n in frames]
    return write_enhanced(path, np.stack([volumes[n][k] for k, n in frames]), places, groups)


@pytest.mark.parametrize("kind", ["classic", "enhanced"])
@pytest.mark.parametrize(("keyword", "macro", "inner", "values", "unit"), DIMENSIONS, ids=IDS)
class TestTwoVolumes:
    """Two volumes that differ in one attribute."""

    def written(self, folder, kind, keyword, macro, inner, values, heights=None):
        volumes = [voxels((4, 6, 8), seed=n) for n in range(2)]
        if kind == "classic":
            return classic(folder, volumes, keyword, values, heights), volumes
        return enhanced(folder / "a.dcm", volumes, macro, inner, values, heights), volumes

    def test_at_the_same_places_they_are_refused_or_chosen_or_a_fourth_axis(
        self, tmp_path, kind, keyword, macro, inner, values, unit
    ):
        path, volumes = self.written(tmp_path, kind, keyword, macro, inner, values)
        shift = 1024 if kind == "classic" else 0
        with pytest.raises(DicomSeriesError, match=f"expected one volume, found 2 volumes by {keyword}: choose with"):
            read(path)
        array, meta = read(path, volume="all")
        said = json.loads(meta["volumes"])
        assert said["dimension"] == keyword
        assert said["unit"] == unit
        order = [0, 1]
        if keyword in ("ComplexImageComponent", "KVP", "EchoTime"):
            assert said["values"] == sorted(values)
        if keyword == "ImageType":
            order = [1, 0]
        assert array.shape == (8, 6, 4, 2)
        for number, which in enumerate(order):
            np.testing.assert_array_equal(array[..., number], volumes[which].T.astype(int) - shift)
            one, alone = read(path, volume=number)
            np.testing.assert_array_equal(one, volumes[which].T.astype(int) - shift)
            assert json.loads(alone["volumes"])["values"] == said["values"][number : number + 1]
        np.testing.assert_allclose(meta["affine"][:3, 3], [20, 30, 40])
        assert f"2 volumes by {keyword}" in str(list_series(path))

    def test_between_one_another_they_are_refused_or_chosen(self, tmp_path, kind, keyword, macro, inner, values, unit):
        heights = [[0, 4, 8, 12], [2, 6, 10, 14]]
        path, volumes = self.written(tmp_path, kind, keyword, macro, inner, values, heights)
        with pytest.raises(DicomSeriesError, match=f"2 values of {keyword} that alternate"):
            read(path)
        with pytest.raises(DicomSeriesError, match="volumes of the same slices"):
            read(path, volume="all")
        which = 1 if keyword == "ImageType" else 0
        array, meta = read(path, volume=0)
        np.testing.assert_array_equal(array, volumes[which].T.astype(int) - (1024 if kind == "classic" else 0))
        np.testing.assert_allclose(meta["spacing"][2], 4)
        with pytest.warns(UserWarning, match="policy: warn"):
            assert read(path, policies={"acquisition": "warn"})[0].shape == (8, 6, 8)


@pytest.mark.parametrize("kind", ["classic", "enhanced"])
def test_two_attributes_together_tell_volumes_apart(tmp_path, kind):
    """Magnitude and phase of two echoes: four volumes."""
    pairs = [(echo, part) for echo in (5.0, 9.0) for part in ("MAGNITUDE", "PHASE")]
    volumes = [voxels((3, 6, 8), seed=n) for n in range(4)]
    if kind == "classic":
        classic(tmp_path, volumes, "EchoTime", [echo for echo, _ in pairs])
        for path in tmp_path.glob("*.dcm"):
            dataset = pydicom.dcmread(path)
            dataset.ComplexImageComponent = pairs[int(path.stem[-1])][1]
            dataset.save_as(path)
        path = tmp_path
    else:
        frames = [(n, k) for n in range(4) for k in range(3)]
        groups = [
            {
                "MREchoSequence": {"EffectiveEchoTime": pairs[n][0]},
                "MRImageFrameTypeSequence": {"ComplexImageComponent": pairs[n][1]},
            }
            for n, _ in frames
        ]
        path = write_enhanced(
            tmp_path / "a.dcm", np.stack([volumes[n][k] for n, k in frames]), [40 + 2 * k for _, k in frames], groups
        )
    with pytest.raises(DicomSeriesError, match="4 volumes by EchoTime x ComplexImageComponent"):
        read(path)
    array, meta = read(path, volume="all")
    np.testing.assert_array_equal(array, np.stack(volumes).T.astype(int) - (1024 if kind == "classic" else 0))
    assert json.loads(meta["volumes"])["values"] == [list(pair) for pair in pairs]


@given(
    order=st.permutations(range(12)),
    values=st.lists(st.integers(0, 3000), min_size=4, max_size=4, unique=True),
)
@settings(max_examples=20, deadline=None)
def test_volumes_come_in_the_order_of_their_values_whatever_that_of_frames(tmp_path_factory, order, values):
    frames = [divmod(i, 3) for i in order]
    volume = np.stack([np.full((4, 5), 10 * n + k, np.uint16) for n, k in frames])
    groups = [{"MRDiffusionSequence": {"DiffusionBValue": float(values[n])}} for n, _ in frames]
    path = write_enhanced(tmp_path_factory.mktemp("b") / "a.dcm", volume, [2 * k for _, k in frames], groups)
    array, meta = read(path, volume="all")
    ranked = np.argsort(values)
    assert array[0, 0].T.tolist() == [[10 * n + k for k in range(3)] for n in ranked]
    assert json.loads(meta["volumes"])["values"] == sorted(values)


def test_times_that_differ_from_slice_to_slice_are_ranked(tmp_path):
    volumes = [voxels((3, 6, 8), seed=n) for n in range(3)]
    classic(tmp_path, volumes, "TriggerTime", [0] * 3)
    for path in tmp_path.glob("*.dcm"):
        dataset = pydicom.dcmread(path)
        slice_number = round((dataset.ImagePositionPatient[2] - 40) / 2.5)
        dataset.TriggerTime = 300 * int(path.stem[-1]) + 17 * slice_number
        dataset.save_as(path)
    array, meta = read(tmp_path, volume="all")
    np.testing.assert_array_equal(array, np.stack(volumes).T.astype(int) - 1024)
    assert json.loads(meta["volumes"])["values"] == [0.0, 300.0, 600.0]


def test_an_acquisition_that_ended_early_is_no_fourth_axis_but_can_be_chosen(tmp_path):
    volumes = [voxels((4, 6, 8), seed=n) for n in range(3)]
    classic(tmp_path, volumes, "TemporalPositionIdentifier", [1, 2, 3])
    last = next(p for p in tmp_path.glob("*-2.dcm") if pydicom.dcmread(p).ImagePositionPatient[2] == 47.5)
    last.unlink()
    with pytest.raises(DicomSeriesError, match="3 volumes by TemporalPositionIdentifier"):
        read(tmp_path)
    with pytest.raises(DicomSeriesError, match="volumes of the same slices"):
        read(tmp_path, volume="all")
    np.testing.assert_array_equal(read(tmp_path, volume=1)[0], volumes[1].T.astype(int) - 1024)


def test_a_dimension_that_only_its_index_tells_is_found(tmp_path):
    volumes = [voxels((3, 6, 8), seed=n) for n in range(2)]
    frames = [(n, k) for k in range(3) for n in range(2)]
    groups = [{"FrameContentSequence": {"DimensionIndexValues": [k + 1, n + 1]}} for n, k in frames]
    pointers = [item(DimensionIndexPointer=0x00200032), item(DimensionIndexPointer=0x00189151)]
    path = write_enhanced(
        tmp_path / "a.dcm",
        np.stack([volumes[n][k] for n, k in frames]),
        [2 * k for _, k in frames],
        groups,
        DimensionIndexSequence=pointers,
    )
    with pytest.raises(DicomSeriesError, match="2 volumes by FrameReferenceDateTime"):
        read(path)
    np.testing.assert_array_equal(read(path, volume="all")[0], np.stack(volumes).T)


@pytest.mark.parametrize("kind", ["stack", "orientation"])
def test_several_stacks_in_one_file_are_refused_or_chosen(tmp_path, kind):
    volumes = [voxels((3, 8, 8), seed=n) for n in range(2)]
    groups = [
        {"FrameContentSequence": {"StackID": str(n + 1) if kind == "stack" else "1"}} for n in (0, 1) for _ in "abc"
    ]
    if kind == "orientation":
        for group in groups[3:]:
            group["PlaneOrientationSequence"] = {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}
            group["PlanePositionSequence"] = None
        for k, group in enumerate(groups[3:]):
            group["PlanePositionSequence"] = {"ImagePositionPatient": [-3.0 * k, -30, 40]}
    path = write_enhanced(tmp_path / "a.dcm", np.concatenate(volumes), [0, 2, 4, 20, 22, 24], groups)
    with pytest.raises(DicomSeriesError, match="choose with stack=0 to 1"):
        read(path)
    assert "2 stacks" in str(list_series(path))
    np.testing.assert_array_equal(read(path, stack=0)[0], volumes[0].T)
    np.testing.assert_array_equal(read(path, stack=1)[0], volumes[1].T)
    with pytest.raises(DicomSeriesError, match="a stack below 2"):
        read(path, stack=2)


def test_kernels_of_classic_ct_and_enhanced_ct_are_told_apart_by_shared_groups(tmp_path):
    """Two enhanced files of one series, one kernel each."""
    volumes = [voxels((3, 6, 8), seed=n) for n in range(2)]
    ids = {"SeriesInstanceUID": "1.2.3", "StudyInstanceUID": "1.2.4", "FrameOfReferenceUID": "1.2.5"}
    for number, kernel in enumerate(("B30f", "B60f")):
        shared = {"CTReconstructionSequence": {"ConvolutionKernel": kernel}}
        write_enhanced(
            tmp_path / f"{number}.dcm", volumes[number], [0, 2, 4], (), shared, EnhancedCTImageStorage, "CT", **ids
        )
    with pytest.raises(DicomSeriesError, match="2 volumes by ConvolutionKernel"):
        read(tmp_path)
    assert json.loads(read(tmp_path, volume=1)[1]["volumes"])["values"] == ["B60f"]


def test_free_text_that_tells_volumes_apart_is_not_said(tmp_path):
    volumes = [voxels((3, 6, 8), seed=n) for n in range(2)]
    classic(tmp_path, volumes, "ConvolutionKernel", ["Zyxwvut", "PLANTED"])
    with pytest.raises(DicomSeriesError, match="2 volumes by ConvolutionKernel") as error:
        read(tmp_path)
    said = repr(read(tmp_path, volume="all")[1]) + str(error.value) + str(list_series(tmp_path))
    assert not any(secret in said for secret in SECRETS)


def test_a_series_of_one_volume_takes_its_choice_and_no_other(tmp_path):
    path = write_enhanced(tmp_path / "a.dcm", voxels((3, 6, 8)), [0, 2, 4], orientation=AXIAL)
    for volume in (None, 0, "all"):
        array, meta = read(path, volume=volume)
        assert array.shape == (8, 6, 3)
        assert meta["volumes"] == "{}"
    with pytest.raises(DicomSeriesError, match="a volume below 1"):
        read(path, volume=1)
    for wrong in (
        {"volume": -1},
        {"volume": "some"},
        {"volume": True},
        {"stack": -1},
        {"level": "a"},
        {"geometry": "x"},
    ):
        with pytest.raises(SettingError, match=next(iter(wrong))):
            DicomSeriesReader(**wrong)
