"""DICOM SEG out and back: valid by dciodvfy, read by highdicom, and voxel for voxel on the source's grid."""

from __future__ import annotations

import json
import shutil
import subprocess

import highdicom
import numpy as np
import pydicom
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Flipd, Invertd, LoadImaged
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless, RLELossless, generate_uid
from transforms.mutations import mutate
from transforms.phantoms import PATIENT, oblique, voxels, write_enhanced_ct, write_series
from transforms.reading import read

from monai_medmerge.errors import DicomSeriesError, SettingError
from monai_medmerge.transforms import LoadDicomSegd, SaveDicomSegd, SegmentTable, read_seg, write_seg


def code(value, meaning):
    return {"CodeValue": value, "CodingSchemeDesignator": "SCT", "CodeMeaning": meaning}


CATEGORY = code("91723000", "Anatomical Structure")
CODES = {
    "SeriesDescription": "Hippocampus",
    "SeriesNumber": "301",
    "segmentAttributes": [
        [
            {
                "labelID": number,
                "SegmentLabel": meaning,
                "SegmentedPropertyCategoryCodeSequence": CATEGORY,
                "SegmentedPropertyTypeCodeSequence": code(value, meaning),
                "recommendedDisplayRGBValue": color,
            }
        ]
        for number, value, meaning, color in (
            (1, "10200004", "Liver", [200, 90, 80]),
            (2, "78961009", "Spleen", [0, 200, 0]),
        )
    ],
}


@pytest.fixture
def codes(tmp_path):
    path = tmp_path / "codes.json"
    path.write_text(json.dumps(CODES))
    return path


def label_map(shape=(10, 8, 6)):
    """Two labels, and slices without any."""
    labels = np.random.default_rng(5).integers(0, 3, shape)
    labels[..., [0, 3]] = 0
    return labels


def new_series(folder, degrees=0.0, spacing=2.5):
    orientation, normal = oblique(degrees)
    write_series(folder, voxels(), orientation, np.multiply(normal, spacing))
    return folder


@pytest.mark.parametrize("segmentation_type", ["BINARY", "LABELMAP"])
@pytest.mark.parametrize("degrees", [0, 25])
def test_labels_come_back_voxel_for_voxel(tmp_path, codes, segmentation_type, degrees):
    folder = new_series(tmp_path / "series", degrees)
    _, meta = read(folder)
    path = write_seg(
        label_map(), meta["affine"], folder, SegmentTable.from_json(codes), tmp_path / "seg.dcm", segmentation_type
    )
    np.testing.assert_array_equal(read_seg(path, meta["affine"], (10, 8, 6)), label_map())
    channels = read_seg(path, meta["affine"], (10, 8, 6), channels=True)
    np.testing.assert_array_equal(channels, np.stack([label_map() == 1, label_map() == 2]))

    # highdicom is the independent reader; its volume holds the slices with segments, in an order of its own.
    affine = np.diag([-1, -1, 1, 1]) @ meta["affine"] @ np.eye(4)[[2, 1, 0, 3]]
    grid = highdicom.VolumeGeometry(affine, spatial_shape=(6, 8, 10), coordinate_system="PATIENT")
    volume = highdicom.seg.segread(path).get_volume(combine_segments=True).match_geometry(grid)
    np.testing.assert_array_equal(volume.array, label_map().T)


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian: dicom3tools) is not installed")
@pytest.mark.parametrize("degrees", [0, 25])
def test_dciodvfy_finds_no_error(tmp_path, codes, degrees):
    folder = new_series(tmp_path / "series", degrees)
    _, meta = read(folder)
    path = write_seg(label_map(), meta["affine"], folder, SegmentTable.from_json(codes), tmp_path / "seg.dcm")
    report = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
    errors = [line for line in (report.stdout + report.stderr).splitlines() if line.startswith("Error")]
    assert errors == []
    assert "SegmentationStorage" in report.stdout + report.stderr or "Segmentation" in report.stderr


def test_the_seg_references_its_source_and_carries_its_patient(tmp_path, codes):
    folder = new_series(tmp_path / "series")
    _, meta = read(folder)
    path = write_seg(label_map(), meta["affine"], folder, SegmentTable.from_json(codes), tmp_path / "seg.dcm")
    seg = pydicom.dcmread(path)
    sources = [pydicom.dcmread(file) for file in folder.iterdir()]
    assert seg.PatientName == PATIENT
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID"):
        assert seg[keyword].value == sources[0][keyword].value
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == sources[0].SeriesInstanceUID
    referenced = {item.ReferencedSOPInstanceUID for item in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert referenced == {source.SOPInstanceUID for source in sources}
    assert [segment.SegmentedPropertyTypeCodeSequence[0].CodeMeaning for segment in seg.SegmentSequence] == [
        "Liver",
        "Spleen",
    ]
    assert (seg.SeriesDescription, seg.SeriesNumber) == ("Hippocampus", 301)
    # Sparse: two slices hold no label.
    assert seg.NumberOfFrames == 8


def test_a_de_identified_source_is_referenced_and_one_without_a_space_refused(tmp_path, codes):
    folder = new_series(tmp_path / "series")
    _, meta = read(folder)
    arguments = (label_map(), meta["affine"], folder, SegmentTable.from_json(codes), tmp_path / "seg.dcm")
    for keywords in (("PatientBirthDate", "PatientSex", "AccessionNumber"), ("FrameOfReferenceUID",)):
        for path in folder.iterdir():
            dataset = pydicom.dcmread(path)
            for keyword in keywords:
                delattr(dataset, keyword)
            dataset.save_as(path)
        if keywords == ("FrameOfReferenceUID",):
            with pytest.raises(DicomSeriesError, match="FrameOfReferenceUID"):
                write_seg(*arguments)
        else:
            np.testing.assert_array_equal(read_seg(write_seg(*arguments), meta["affine"], (10, 8, 6)), label_map())


def test_an_enhanced_source_is_referenced_frame_by_frame(tmp_path, codes):
    source = write_enhanced_ct(tmp_path / "enhanced.dcm", voxels(), [3, 0, 5, 1, 4, 2], [1] * 6, [0] * 6)
    _, meta = read(source)
    path = write_seg(label_map(), meta["affine"], source, SegmentTable.from_json(codes), tmp_path / "seg.dcm")
    np.testing.assert_array_equal(read_seg(path, meta["affine"], (10, 8, 6)), label_map())


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEGLSLossless])
def test_fractions_become_channels_or_the_largest_label(tmp_path, codes, syntax):
    folder = tmp_path / "series"
    write_series(folder, voxels((6, 40, 36)))
    _, meta = read(folder)
    sources = sorted(
        (pydicom.dcmread(file) for file in folder.iterdir()), key=lambda source: source.ImagePositionPatient[2]
    )
    # Smooth, so that the encoder's buffer suffices.
    fractions = 0.5 + 0.5 * np.sin(np.indices((6, 40, 36, 2)).sum(0) / 9 + np.array([0, 2]))
    table = SegmentTable.from_json(codes)
    types = [
        highdicom.sr.CodedConcept("10200004", "SCT", "Liver"),
        highdicom.sr.CodedConcept("78961009", "SCT", "Spleen"),
    ]
    seg = highdicom.seg.Segmentation(
        sources,
        fractions,
        "FRACTIONAL",
        [
            highdicom.seg.SegmentDescription(
                i + 1, f"{i}", highdicom.sr.CodedConcept("123037004", "SCT", "Anatomical Structure"), types[i], "MANUAL"
            )
            for i in range(len(table.segments))
        ],
        generate_uid(), 1, generate_uid(), 1, "phantom", "phantom", "1", "1",
        transfer_syntax_uid=syntax,
    )  # fmt: skip
    seg.save_as(tmp_path / "seg.dcm")
    channels = read_seg(tmp_path / "seg.dcm", meta["affine"], (36, 40, 6), channels=True)
    np.testing.assert_allclose(channels, fractions.transpose(3, 2, 1, 0), atol=1 / 255)
    labels = read_seg(tmp_path / "seg.dcm", meta["affine"], (36, 40, 6))
    expected = np.where(channels.max(0) >= 0.5, channels.argmax(0) + 1, 0)
    np.testing.assert_array_equal(labels, expected)


def test_overlapping_segments_need_channels(tmp_path, codes):
    folder = new_series(tmp_path / "series")
    _, meta = read(folder)
    path = write_seg(label_map(), meta["affine"], folder, SegmentTable.from_json(codes), tmp_path / "seg.dcm")
    seg = pydicom.dcmread(path)
    seg.PixelData = b"\xff" * len(seg.PixelData)
    seg.save_as(path)
    with pytest.raises(DicomSeriesError, match="do not overlap"):
        read_seg(path, meta["affine"], (10, 8, 6))
    assert read_seg(path, meta["affine"], (10, 8, 6), channels=True).sum() == 2 * 4 * 80


def test_another_grid_is_refused(tmp_path, codes):
    folder = new_series(tmp_path / "series")
    _, meta = read(folder)
    table = SegmentTable.from_json(codes)
    path = write_seg(label_map(), meta["affine"], folder, table, tmp_path / "seg.dcm")
    finer = meta["affine"] @ np.diag([0.5, 0.5, 1, 1])
    for affine, shape, reason in (
        (meta["affine"] @ np.diag([1.1, 1, 1, 1]), (10, 8, 6), "coincide"),
        (meta["affine"], (10, 8, 4), "within the image"),
    ):
        with pytest.raises(DicomSeriesError, match=reason):
            read_seg(path, affine, shape)
    with pytest.raises(DicomSeriesError, match="invert the spatial transforms"):
        write_seg(label_map(), finer, folder, table, tmp_path / "no.dcm")
    with pytest.raises(DicomSeriesError, match="10x8x6"):
        write_seg(label_map((10, 8, 5)), finer, folder, table, tmp_path / "no.dcm")
    assert not (tmp_path / "no.dcm").exists()


def test_a_seg_that_was_cut_to_one_frame_is_refused():
    with pytest.raises(DicomSeriesError, match="3 items for 1 frames"):
        read_seg(get_testdata_file("liver_1frame.dcm"), np.eye(4), (512, 512, 1))
    with pytest.raises(DicomSeriesError, match="a SEG of type"):
        read_seg(get_testdata_file("CT_small.dcm"), np.eye(4), (128, 128, 1))


def test_the_transforms_carry_a_prediction_back_through_monai(tmp_path, codes):
    folder = new_series(tmp_path / "series", 25)
    before = Compose(
        [
            LoadImaged("image", reader="monai_medmerge.transforms.DicomSeriesReader", ensure_channel_first=True),
            Flipd("image", spatial_axis=0),
        ]
    )
    data = before({"image": str(folder), "source": str(folder)})
    data["pred"] = MetaTensor((data["image"].as_tensor() > 0).float(), meta=data["image"].meta)
    after = Compose(
        [
            Invertd("pred", before, orig_keys="image", nearest_interp=True),
            SaveDicomSegd("pred", tmp_path / "out", codes),
        ]
    )
    with pytest.raises(DicomSeriesError, match="invert the spatial transforms"):
        SaveDicomSegd("pred", tmp_path / "out", codes)(data)
    saved = after(data)["pred"].meta["saved_to"]
    again = LoadImaged("image", reader="monai_medmerge.transforms.DicomSeriesReader", ensure_channel_first=True)
    loaded = LoadDicomSegd("label")({**again({"image": str(folder)}), "label": saved})
    assert loaded["label"].shape == loaded["image"].shape
    torch.testing.assert_close(loaded["label"].as_tensor(), (loaded["image"].as_tensor() > 0).int())


def test_tables_and_labels_that_do_not_fit_are_refused(tmp_path, codes):
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(SettingError, match="segmentAttributes"):
        SegmentTable.from_json(tmp_path / "bad.json")
    without = json.loads(json.dumps(CODES))
    del without["segmentAttributes"][0][0]["SegmentedPropertyTypeCodeSequence"]
    (tmp_path / "bad.json").write_text(json.dumps(without))
    with pytest.raises(SettingError, match="labelID 1"):
        SegmentTable.from_json(tmp_path / "bad.json")
    with pytest.raises(SettingError, match=r"labels among \[1, 2\]"):
        write_seg(label_map() * 2, np.eye(4), tmp_path, SegmentTable.from_json(codes), tmp_path / "no.dcm")
    with pytest.raises(SettingError, match="segmentation_type"):
        write_seg(label_map(), np.eye(4), tmp_path, SegmentTable.from_json(codes), tmp_path / "no.dcm", "FRACTIONAL")


def test_mutated_segs_raise_only_our_errors(tmp_path, codes):
    folder = new_series(tmp_path / "series")
    _, meta = read(folder)
    path = write_seg(label_map(), meta["affine"], folder, SegmentTable.from_json(codes), tmp_path / "seg.dcm")
    refused = 0
    for data in mutate([path.read_bytes()], 200, seed=22, head=9000):
        path.write_bytes(data)
        try:
            assert read_seg(path, meta["affine"], (10, 8, 6)).shape == (10, 8, 6)
        except DicomSeriesError:
            refused += 1
    assert refused > 50


def fractional(folder, path, fractions):
    """A SEG of type FRACTIONAL with one segment, (z, y, x)."""
    sources = sorted(
        (pydicom.dcmread(file) for file in folder.iterdir()), key=lambda source: source.ImagePositionPatient[2]
    )
    liver = highdicom.sr.CodedConcept("10200004", "SCT", "Liver")
    anatomy = highdicom.sr.CodedConcept("123037004", "SCT", "Anatomical Structure")
    seg = highdicom.seg.Segmentation(
        sources, fractions[..., None], "FRACTIONAL",
        [highdicom.seg.SegmentDescription(1, "liver", anatomy, liver, "MANUAL")],
        generate_uid(), 1, generate_uid(), 1, "phantom", "phantom", "1", "1",
    )  # fmt: skip
    return seg, path


@pytest.mark.parametrize("maximum", [0, None, 100])
@pytest.mark.parametrize("channels", [False, True])
def test_fractions_of_an_unusable_maximum_are_refused(tmp_path, maximum, channels):
    # PS3.3 C.8.20.2: (0062,000E) is what a certain voxel holds; here up to 255 is stored.
    folder = new_series(tmp_path / "series")
    _, meta = read(folder)
    seg, path = fractional(folder, tmp_path / "seg.dcm", np.linspace(0, 1, 480).reshape(6, 8, 10))
    seg.MaximumFractionalValue = maximum
    seg.save_as(path)
    with pytest.raises(DicomSeriesError, match=r"MaximumFractionalValue \(0062,000E\)"):
        read_seg(path, meta["affine"], (10, 8, 6), channels=channels)


def test_a_seg_of_larger_voxels_is_refused_where_their_centres_coincide(tmp_path, codes):
    folder = new_series(tmp_path / "series", 25)
    _, meta = read(folder)
    path = write_seg(label_map(), meta["affine"], folder, SegmentTable.from_json(codes), tmp_path / "seg.dcm")
    for factors, shape in (([0.5, 1, 1], (19, 8, 6)), ([1, 0.5, 1], (10, 15, 6)), ([1, 1, 0.5], (10, 8, 11))):
        with pytest.raises(DicomSeriesError, match="of one size"):
            read_seg(path, meta["affine"] @ np.diag([*factors, 1]), shape)


def test_a_misstated_slice_distance_does_not_hide_frames_that_fill_the_grid(tmp_path, codes):
    folder = new_series(tmp_path / "series")
    _, meta = read(folder)
    path = write_seg(label_map(), meta["affine"], folder, SegmentTable.from_json(codes), tmp_path / "seg.dcm")
    seg = pydicom.dcmread(path)
    seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices = 5
    seg.save_as(path)
    np.testing.assert_array_equal(read_seg(path, meta["affine"], (10, 8, 6)), label_map())


def test_pixels_of_more_frames_than_the_seg_describes_are_refused(tmp_path, codes):
    folder = new_series(tmp_path / "series")
    _, meta = read(folder)
    path = write_seg(label_map(), meta["affine"], folder, SegmentTable.from_json(codes), tmp_path / "seg.dcm")
    seg = pydicom.dcmread(path)
    seg.NumberOfFrames -= 1
    seg.PerFrameFunctionalGroupsSequence = seg.PerFrameFunctionalGroupsSequence[:-1]
    seg.save_as(path)
    with pytest.raises(DicomSeriesError, match="as NumberOfFrames says"):
        read_seg(path, meta["affine"], (10, 8, 6))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEGLSLossless])
def test_a_labelmap_with_colours_holds_numbers(tmp_path, syntax):
    folder = new_series(tmp_path / "series")
    _, meta = read(folder)
    sources = sorted(
        (pydicom.dcmread(file) for file in folder.iterdir()), key=lambda source: source.ImagePositionPatient[2]
    )
    liver = highdicom.sr.CodedConcept("10200004", "SCT", "Liver")
    anatomy = highdicom.sr.CodedConcept("123037004", "SCT", "Anatomical Structure")
    palette = highdicom.PaletteColorLUTTransformation.from_colors(
        ["black", "red", "lime"], palette_color_lut_uid=generate_uid()
    )
    highdicom.seg.Segmentation(
        sources, label_map().transpose(2, 1, 0).astype(np.uint8), "LABELMAP",
        [highdicom.seg.SegmentDescription(n, f"{n}", anatomy, liver, "MANUAL") for n in (1, 2)],
        generate_uid(), 1, generate_uid(), 1, "phantom", "phantom", "1", "1",
        transfer_syntax_uid=syntax, palette_color_lut_transformation=palette,
    ).save_as(tmp_path / "seg.dcm")  # fmt: skip
    np.testing.assert_array_equal(read_seg(tmp_path / "seg.dcm", meta["affine"], (10, 8, 6)), label_map())


@pytest.mark.parametrize(
    ("character_set", "name", "label"),
    [
        (None, "Muller^Jorg", "Leber Ж"),
        ("ISO_IR 100", "Müller^Jörg", "Leber Ж"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう", "Liver"),
    ],
)
def test_names_and_labels_keep_their_letters(tmp_path, codes, character_set, name, label):
    folder = tmp_path / "series"
    write_series(folder, voxels(), SpecificCharacterSet=character_set, PatientName=name)
    content = json.loads(codes.read_text())
    content["segmentAttributes"][0][0]["SegmentLabel"] = label
    codes.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    table = SegmentTable.from_json(codes)
    seg = pydicom.dcmread(write_seg(label_map(), read(folder)[1]["affine"], folder, table, tmp_path / "seg.dcm"))
    assert (str(seg.PatientName), seg.SegmentSequence[0].SegmentLabel) == (name, label)


def test_a_label_that_is_described_twice_is_refused(codes):
    content = json.loads(codes.read_text())
    content["segmentAttributes"].append(content["segmentAttributes"][0])
    codes.write_text(json.dumps(content))
    with pytest.raises(SettingError, match="one description for each labelID"):
        SegmentTable.from_json(codes)
