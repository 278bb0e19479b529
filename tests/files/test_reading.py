"""What others wrote is read within bounds, and refused in one line."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_medmerge.data import class_names, dataset_classes, load_datalist, load_volumes
from monai_medmerge.data.classes import checked_names
from monai_medmerge.errors import DatasetError, MedMergeError
from monai_medmerge.evaluation.gate import DEFAULT_LIMITS, _limit
from monai_medmerge.files import parse_json, read_json
from monai_medmerge.files.reading import DEEPEST

FINITE = st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | FINITE | st.text(),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(), inside, max_size=4),
    max_leaves=30,
)
LIMIT = st.dictionaries(st.sampled_from(["limit", "minimum_cases"]), PLAIN)
OUTSIDE = ["/etc/passwd", "../x.png", "", ".", "x" * 5000, "a/../../x.png", "C:\\x.png", "a\nb.png"]
NO_NAMES = ["benign", {"a": 0}, ["a", "a"], [], None, ["a", ""], ["a", 1], ["a\nb"], ["x" * 300], [["a"]], ["\x1b[2J"]]
HOSTILE = [
    '{"a":' * 100_000,
    "[" * 500 + "]" * 500,
    '{"a": 1, "a": 2}',
    "1" * 400,
    "1e999",
    "NaN",
    "[-Infinity]",
    "{'a': 1}",
    "",
    "\udcff",
]


def check_message(error):
    assert len(str(error)) < 400
    assert "\n" not in str(error)


@given(PLAIN)
def test_plain_json_is_read_as_json_reads_it(content):
    text = json.dumps(content)
    assert parse_json(text, "text") == json.loads(text)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_refused_in_one_short_line(text, tmp_path):
    (tmp_path / "a.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(MedMergeError) as found:
        read_json(tmp_path / "a.json")
    assert len(str(found.value)) < 200
    assert "\n" not in str(found.value)


@settings(max_examples=200)
@given(st.binary(max_size=60) | st.text(alphabet='[]{}",:0123456789eE+-.NaInfty\\', max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused(text):
    try:
        parse_json(text, "bytes")
    except MedMergeError as error:
        check_message(error)


def test_as_deep_as_is_allowed():
    assert parse_json("[" * DEEPEST + "]" * DEEPEST, "text")
    with pytest.raises(MedMergeError, match="levels"):
        parse_json("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), "text")


@pytest.mark.parametrize("name", OUTSIDE)
def test_images_of_a_dataset_stay_below_its_folder(name, tmp_path):
    folder = tmp_path / "dataset"
    folder.mkdir()
    (tmp_path / "x.png").touch()
    content = {"class_names": ["a"], "training": [{"image": name, "label": 0}]}
    (folder / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"training\[0\].image: expected a name that stays below") as found:
        load_datalist(folder, "training")
    assert len(str(found.value)) < 200
    content["training"] = [{"image": name, "label": name}]
    (folder / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"training\[0\].image: expected a name that stays below"):
        load_volumes(folder, "training")


@pytest.mark.parametrize(
    "names",
    ["benign", {"a": 0}, ["a", "a"], [], None, ["a", ""], ["a", 1], ["a\nb"], ["x" * 300], [["a"]], ["\x1b[2J"]],
)
def test_class_names_are_a_list_of_different_names(names, tmp_path):
    with pytest.raises(DatasetError):
        checked_names(names, "test")
    (tmp_path / "dataset.json").write_text(json.dumps({"class_names": names}))
    (tmp_path / "metrics.json").write_text(json.dumps({"class_names": names}))
    for read in (lambda: dataset_classes(tmp_path), lambda: class_names(tmp_path / "model.pt", ["a"])):
        with pytest.raises(DatasetError, match="class_names") as found:
            read()
        assert "\n" not in str(found.value)
        assert "\x1b" not in str(found.value)


def test_measures_that_are_not_known_may_stand_beside_the_names(tmp_path):
    (tmp_path / "metrics.json").write_text(json.dumps({"class_names": ["b", "a"], "dice": math.nan}))
    assert class_names(tmp_path / "model.pt", ["a", "b"]) == ["b", "a"]


@settings(max_examples=200)
@given(
    st.sampled_from([*DEFAULT_LIMITS, "far_inputs", "other"]),
    PLAIN | st.floats() | st.integers(10**300, 10**400) | LIMIT,
)
def test_any_limit_is_taken_or_refused_in_one_line(name, limit):
    try:
        found = _limit(name, limit)
    except MedMergeError as error:
        check_message(error)
    else:
        assert all(0 <= value <= 1e9 for value in found.values())
