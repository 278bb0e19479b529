"""Codes of segments: the standard's own, and the right organ in every DICOM SEG, as independent readers see it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from monai.data import MetaTensor
from pydicom.sr.codedict import Collection
from transforms.phantoms import oblique, voxels, write_series
from transforms.reading import read

from monai_medmerge.errors import SettingError
from monai_medmerge.transforms import SaveSegmentationd
from monai_medmerge.transforms.dicom.results.codes import (
    CATEGORY,
    TYPE,
    class_codes,
    offer_code,
    segment_table,
    segments_of,
)

SETS = {
    "abdomen": ["liver", "spleen", "left kidney", "right kidney", "pancreas"],
    "heart": ["left atrium", "left_ventricle", "aorta"],
    "brain": ["hippocampus", "thalamus", "grey matter"],
    "tumour": ["edema", "necrosis", "tumour"],
    "chest": ["lung_left", "lung_right", "trachea", "esophagus", "heart"],
}
# Looked up by hand in PS3.16, not by the code under test.
BY_HAND = {
    "liver": "10200004", "spleen": "78961009", "left kidney": "64033007", "right kidney": "64033007",
    "pancreas": "15776009", "left atrium": "82471001", "left_ventricle": "87878005", "aorta": "15825003",
    "hippocampus": "5366008", "thalamus": "42695009", "grey matter": "389081007", "edema": "79654002",
    "necrosis": "6574001", "tumour": "108369006", "lung_left": "39607008", "lung_right": "39607008",
    "trachea": "44567001", "esophagus": "32849002", "heart": "80891009",
}  # fmt: skip


def code(value: str, meaning: str, scheme: str = "SCT") -> dict[str, str]:
    return {"CodeValue": value, "CodingSchemeDesignator": scheme, "CodeMeaning": meaning}


ORGAN = code("91723000", "Anatomical Structure")
HIPPOCAMPUS = code("5366008", "Hippocampus")


@pytest.mark.parametrize("name", SETS)
def test_a_seg_carries_the_right_organ(name: str, tmp_path: Path) -> None:
    names = SETS[name]
    weights = tmp_path / "model.pt"
    codes = class_codes(["background", *names], None)
    (tmp_path / "model.json").write_text(json.dumps({"codes": codes}))
    folder = tmp_path / "series"
    shape = (10, 8, 6)
    orientation, normal = oblique(20)
    write_series(folder, voxels(), orientation, np.multiply(normal, 2.5))
    _, meta = read(folder)
    labels = np.zeros(shape, np.int64)
    for number in range(1, len(names) + 1):
        labels[number, 2:5, 1:4] = number
    save = SaveSegmentationd("pred", tmp_path / "out", segments_of(["background", *names], None, weights))
    save({"pred": MetaTensor(labels[None], affine=meta["affine"]), "source": str(folder)})
    (file,) = (tmp_path / "out").glob("*.dcm")
    # pydicom alone, then highdicom, then dciodvfy.
    segments = pydicom.dcmread(file).SegmentSequence
    assert [segment.SegmentLabel for segment in segments] == names
    found = [segment.SegmentedPropertyTypeCodeSequence[0] for segment in segments]
    assert [item.CodeValue for item in found] == [BY_HAND[name] for name in names]
    anatomy = {item.value: item for item in Collection("CID7150").concepts.values()}
    for segment in segments:
        category = segment.SegmentedPropertyCategoryCodeSequence[0]
        assert anatomy[category.CodeValue].meaning == category.CodeMeaning
    seg = highdicom.seg.segread(file)
    for number, label in enumerate(names, 1):
        described = seg.get_segment_description(number)
        assert described.segmented_property_type.value == BY_HAND[label]
        uids = [uid for _, _, uid in seg.get_source_image_uids()]
        found_pixels = seg.get_pixels_by_source_instance(uids, segment_numbers=[number], ignore_spatial_locations=True)
        assert found_pixels.sum() == (labels == number).sum()
    if shutil.which("dciodvfy"):
        checked = subprocess.run(["dciodvfy", file], capture_output=True, text=True, timeout=60, check=False)
        assert "\nError" not in "\n" + checked.stdout + checked.stderr


def test_codes_of_other_classes_are_not_taken(tmp_path: Path, bundle_root: Path) -> None:
    shipped = bundle_root.parent / "medmerge_segmentation" / "configs" / "codes.json"
    own = class_codes(["background", "anterior", "posterior"], shipped)
    assert {item[TYPE]["CodeMeaning"] for item in own.values()} == {"Hippocampus"}
    assert own["anterior"]["SegmentLabel"] == "anterior hippocampus"
    # Of other classes, or in another order, the file says nothing.
    assert class_codes(["background", "liver"], shipped)["liver"][TYPE]["CodeValue"] == "10200004"
    for names in (["background", "posterior", "anterior"], ["background", "front", "tail"]):
        with pytest.raises(SettingError, match=f"a DICOM code of class '{names[1]}'"):
            class_codes(names, shipped)
    # What travels with the weights goes first, and must be of these classes.
    (tmp_path / "model.json").write_text(json.dumps({"codes": {"front": {CATEGORY: ORGAN, TYPE: HIPPOCAMPUS}}}))
    assert segments_of(["background", "front"], shipped, tmp_path / "model.pt").segments[0]["SegmentLabel"] == "front"
    with pytest.raises(SettingError, match=r"model\.json, codes: expected a code of class 'liver', found none"):
        segments_of(["background", "liver"], shipped, tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("category", "kind", "words"),
    [
        (ORGAN, code("5366008", "Liver"), "SCT 5366008 with its meaning, Hippocampus"),
        (ORGAN, code("4711", "Liver"), r"a code of the standard's tables \(PS3\.16\), or a private scheme"),
        (ORGAN, code("10200004", "Liver", "DCM"), "standard's tables"),
        (code("123037004", "Anatomical Structure"), HIPPOCAMPUS, "category"),
        (ORGAN, {"CodeValue": "5366008"}, f"a {TYPE} of class 'liver'"),
    ],
)
def test_codes_that_mean_something_else_are_refused(category: Any, kind: Any, words: str) -> None:
    with pytest.raises(SettingError, match=words):
        segment_table({"liver": {CATEGORY: category, TYPE: kind}}, ["background", "liver"], "dataset.json, codes")


def test_a_private_code_is_the_sites_own_affair() -> None:
    codes = {"blob": {CATEGORY: ORGAN, TYPE: code("1", "a blob", "99SITE")}}
    assert segment_table(codes, ["background", "blob"], "x").segments[0][TYPE]["CodeMeaning"] == "a blob"


@pytest.mark.parametrize("name", ["ventricle", "class 1", "", "background", "front", "the liver of a dog"])
def test_what_has_several_meanings_or_none_gets_no_offer(name: str) -> None:
    assert offer_code(name) is None


def test_broken_definitions_are_refused(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(SettingError, match=r"dataset\.json: expected JSON text"):
        class_codes(["background", "liver"], None, data=tmp_path)
