"""A dataset folder out of images as people have them: every form, the split as a property, every fault as one line."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transforms.phantoms import voxels, write_series

from monai_medmerge.__main__ import main
from monai_medmerge.data import load_datalist, load_volumes
from monai_medmerge.data.datasets import load_unlabelled
from monai_medmerge.data.gathering import Item, split

PATIENT = "MUSTERMANN"


def picture(path: Path, seed: int, colours: bool = False, side: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (side, side, 3) if colours else (side, side)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)).save(path)
    return path


def classes(folder: Path, count: int = 20, names: tuple[str, ...] = ("cyst", "tumour"), first: int = 0) -> Path:
    for k, name in enumerate(names):
        for n in range(count):
            picture(folder / name / f"{PATIENT}{n // 2:03d}_{n}.png", first + 1000 * k + n)
    return folder


def made(folder: Path) -> dict:
    return json.loads((folder / "dataset.json").read_text())


@given(
    labels=st.lists(st.sampled_from("abc"), min_size=1, max_size=80),
    people=st.integers(1, 30),
    seed=st.integers(0, 5),
    shares=st.tuples(st.floats(0, 0.4), st.floats(0, 0.4)),
)
def test_no_patient_is_torn_and_nothing_is_lost(labels, people, seed, shares):
    items = [Item(Path(f"{n}.png"), label, f"p{n % people}") for n, label in enumerate(labels)]
    wanted = {"validation": shares[0], "test": shares[1]}
    found = split(items, wanted, seed)
    assert [item.image for item in found] == [item.image for item in items]
    assert all(len({item.part for item in found if item.patient == f"p{k}"}) <= 1 for k in range(people))
    assert {item.part for item in found} <= {"training", "validation", "test"}
    assert found == split(items, wanted, seed)


def test_classes_are_in_proportion_and_named_parts_are_kept():
    items = [Item(Path(f"{n}.png"), "a" if n % 4 else "b") for n in range(400)]
    found = split(items, {"validation": 0.25, "test": 0.25})
    counts = Counter((item.part, item.label) for item in found)
    assert counts["test", "a"] == counts["validation", "a"] == 75
    assert counts["test", "b"] == counts["validation", "b"] == 25
    kept = split([Item(Path("x.png"), "a", None, "test"), *items], {"validation": 0.25, "test": 0.25})
    assert Counter(item.part for item in kept)["test"] == 1


def test_class_folders_become_a_dataset_without_names_of_patients(tmp_path, capsys):
    data = classes(tmp_path / "data")
    picture(data / "unlabelled" / "x.png", 9999)
    pattern = ["--patient-pattern", rf"({PATIENT}\d+)_"]
    assert main(["dataset", str(data), "--output", str(tmp_path / "out"), *pattern]) == 0
    said = capsys.readouterr()
    assert PATIENT not in said.out + said.err
    content = made(tmp_path / "out")
    assert PATIENT not in json.dumps(content)
    assert content["class_names"] == ["cyst", "tumour"]
    assert {part: len(content[part]) for part in ("training", "validation", "test", "unlabelled")} == {
        "training": 24, "validation": 8, "test": 8, "unlabelled": 1,
    }  # fmt: skip
    assert len(load_datalist(tmp_path / "out", "test")) == 8
    assert len(load_unlabelled(tmp_path / "out")) == 1
    people = {part: {entry["patient"] for entry in content[part]} for part in ("training", "validation", "test")}
    assert not people["training"] & people["test"]
    sheet = Image.open(tmp_path / "out/thumbnails.png")
    assert sheet.size[0] > 8 * 96
    assert not [path for path in (tmp_path / "out").rglob("*") if PATIENT in path.name]
    # Bytes are kept.
    originals = {path.read_bytes() for path in data.rglob("*.png")}
    assert {path.read_bytes() for path in (tmp_path / "out/training").iterdir()} <= originals


def test_parts_that_have_folders_are_kept(tmp_path):
    classes(tmp_path / "data/train", 4)
    classes(tmp_path / "data/val", 2, first=50_000)
    classes(tmp_path / "data/test", 3, first=90_000)
    assert main(["dataset", str(tmp_path / "data"), "--output", str(tmp_path / "out")]) == 0
    content = made(tmp_path / "out")
    assert [len(content[part]) for part in ("training", "validation", "test")] == [8, 4, 6]


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_table_says_which_columns_it_took(tmp_path, capsys, mark):
    classes(tmp_path / "images")
    rows = [mark.join(("File", "Diagnosis", "Subject_ID", "note"))]
    for path in sorted((tmp_path / "images").rglob("*.png")):
        name = path.relative_to(tmp_path).as_posix()
        rows.append(mark.join((name, path.parent.name, path.name.split("_")[0], "x")))
    (tmp_path / "list.csv").write_text("\ufeff" + "\n".join(rows) + "\n", encoding="utf-8")
    assert main(["dataset", str(tmp_path / "list.csv"), "--output", str(tmp_path / "out")]) == 0
    assert "columns: image from File, label from Diagnosis, patient from Subject_ID" in capsys.readouterr().out
    assert len(made(tmp_path / "out")["training"]) == 24


def volume(path: Path, seed: int, label: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 3 if label else 999, (6, 6, 6)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)


@pytest.mark.parametrize("layout", ["beside", "decathlon", "nnunet"])
def test_pairs_of_volumes_become_a_dataset_of_the_segmentation_bundle(tmp_path, capsys, layout):
    data = tmp_path / "data"
    for n in range(10):
        image, label = {
            "beside": (f"c{n}.nii.gz", f"c{n}_seg.nii.gz"),
            "decathlon": (f"imagesTr/c{n}.nii.gz", f"labelsTr/c{n}.nii.gz"),
            "nnunet": (f"imagesTr/c{n}_0000.nii.gz", f"labelsTr/c{n}.nii.gz"),
        }[layout]
        volume(data / image, n)
        volume(data / label, 100 + n, label=True)
    options = ["--class-names", "background", "liver", "xyz"]
    assert main(["dataset", str(data), "--output", str(tmp_path / "out"), *options]) == 0
    said = capsys.readouterr().out
    assert "code of liver for DICOM: Liver (10200004)" in said
    assert "code of xyz for DICOM: none known" in said
    assert len(load_volumes(tmp_path / "out", "training")) == 6
    assert len(load_volumes(tmp_path / "out", "test")) == 2


def test_a_table_of_volumes_with_classes_and_one_with_label_maps(tmp_path):
    for n in range(10):
        volume(tmp_path / f"v{n}.nii.gz", n)
        volume(tmp_path / f"m{n}.nii.gz", 50 + n, label=True)
    graded = ["image,label"] + [f"v{n}.nii.gz,{'low' if n % 2 else 'high'}" for n in range(10)]
    (tmp_path / "graded.csv").write_text("\n".join(graded))
    assert main(["dataset", str(tmp_path / "graded.csv"), "--output", str(tmp_path / "a")]) == 0
    assert made(tmp_path / "a")["class_names"] == ["high", "low"]
    mapped = ["image,mask"] + [f"v{n}.nii.gz,m{n}.nii.gz" for n in range(10)]
    (tmp_path / "mapped.csv").write_text("\n".join(mapped))
    command = [
        "dataset",
        str(tmp_path / "mapped.csv"),
        "--output",
        str(tmp_path / "b"),
        "--class-names",
        "none",
        "x",
        "y",
    ]
    assert main(command) == 0
    assert load_volumes(tmp_path / "b", "training")[0]["label"].endswith("_label.nii.gz")


def test_series_of_dicom_are_volumes_of_a_class(tmp_path, capsys):
    for n in range(8):
        write_series(tmp_path / "data" / ("low", "high")[n % 2] / f"s{n}", voxels(high=900 - n))
    assert main(["dataset", str(tmp_path / "data"), "--output", str(tmp_path / "out"), "--test", "0.25"]) == 0
    content = made(tmp_path / "out")
    assert len(content["test"]) == 2
    first = tmp_path / "out" / content["training"][0]["image"]
    assert len(list(first.glob("*.dcm"))) > 2
    assert "several kinds" not in capsys.readouterr().out


def test_an_archive_of_medmnist_is_read(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {}
    for word, count in (("train", 12), ("val", 4), ("test", 6)):
        arrays[f"{word}_images"] = rng.integers(0, 255, (count, 8, 8), dtype=np.uint8)
        arrays[f"{word}_labels"] = (np.arange(count) % 2)[:, None]
    np.savez(tmp_path / "own.npz", **arrays)
    command = ["dataset", str(tmp_path / "own.npz"), "--output", str(tmp_path / "out")]
    assert main(command) == 2
    assert main([*command, "--class-names", "no", "yes"]) == 0
    content = made(tmp_path / "out")
    assert [entry["label"] for entry in content["test"]] == [0, 1, 0, 1, 0, 1]
    image = np.asarray(Image.open(tmp_path / "out" / content["test"][3]["image"]))
    assert (image == arrays["test_images"][3]).all()


def spoil(folder: Path, fault: str) -> None:
    """Plant one fault into class folders with parts."""
    one = min((folder / "train/cyst").iterdir())
    if fault == "two parts":
        (folder / "test/cyst/copy.png").write_bytes(one.read_bytes())
    elif fault == "pixels in two parts":
        Image.open(one).save(folder / "test/cyst/copy.bmp")
    elif fault == "two labels":
        (folder / "train/tumour/copy.png").write_bytes(one.read_bytes())
    elif fault == "damaged":
        one.write_bytes(one.read_bytes()[:50])
    elif fault == "one image":
        picture(folder / "train/rare/only.png", 77_777)
    elif fault == "absent":
        for n in range(3):
            picture(folder / f"test/new/{n}.png", 88_000 + n)
    elif fault == "one class":
        for path in folder.glob("*/tumour/*"):
            path.unlink()


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ("two parts", "error: 1 images with the same content in two parts (test, training)"),
        ("pixels in two parts", "error: 1 images with the same content in two parts (test, training)"),
        ("two labels", "error: 1 images with the same content and two labels"),
        ("damaged", "error: 1 damaged or unreadable images, the first is number 1 of cyst in training"),
        ("one image", "error: class 'rare' has one image"),
        ("absent", "error: the part training lacks the classes new"),
        ("one class", "error: one class only, 'cyst'"),
    ],
)
def test_a_fault_is_one_line_and_nothing_is_written(tmp_path, capsys, fault, line):
    for part, first in (("train", 0), ("val", 20_000), ("test", 40_000)):
        classes(tmp_path / "data" / part, 4, first=first)
    spoil(tmp_path / "data", fault)
    assert main(["dataset", str(tmp_path / "data"), "--output", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err.splitlines()
    assert said == [line, "1 faults, so nothing was written"]
    assert not (tmp_path / "out").exists()


def test_a_patient_in_two_parts_is_a_fault_without_a_name(tmp_path, capsys):
    classes(tmp_path / "data/train", 4)
    classes(tmp_path / "data/test", 4, first=40_000)
    pattern = ["--patient-pattern", rf"({PATIENT}\d+)"]
    assert main(["dataset", str(tmp_path / "data"), "--output", str(tmp_path / "out"), *pattern]) == 1
    said = capsys.readouterr()
    assert "error: 2 patients with images in two parts (test, training" in said.err
    assert PATIENT not in said.err + said.out


def test_what_is_worth_knowing_is_a_warning(tmp_path, capsys):
    data = classes(tmp_path / "data", 40)
    for path in list((data / "tumour").iterdir())[4:]:
        path.unlink()
    picture(data / "cyst/colour.png", 5, colours=True, side=16)
    command = ["dataset", str(data), "--output", str(tmp_path / "out")]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "warning: the largest class has 41 images, the smallest 4" in said
    assert "grey pictures and 1 in colour" in said
    assert "warning: 2 sizes" in said
    assert "warning: patients are not known" in said
    assert main(command) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--test", "0.9", "--validation", "0.5"], "shares from 0 to 1"),
        (["--patient-pattern", "("], "--patient-pattern: expected a regular expression"),
        (["--patient-pattern", "x"], "expected one group"),
        (["--patient-pattern", "(zzz)"], "expected a patient in every file's name"),
        (["--class-names", "cyst"], "--class-names: expected the classes cyst, tumour"),
        (["--image-column", "x"], "expected a table"),
        (["--unlabelled", "absent"], "expected a folder of images"),
    ],
)
def test_misuse_is_one_line(tmp_path, capsys, options, said):
    data = classes(tmp_path / "data", 4)
    assert main(["dataset", str(data), "--output", str(tmp_path / "out"), *options]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("image,label\n../secret.png,a\n", "row 2"),
        ("image,label\n/etc/passwd,a\n", "row 2"),
        ("image,label\nabsent.png,a\n", "row 2: expected an image"),
        ("a,b\nx,y\n", "a column named one of image"),
        ("image,file,label\nx,y,z\n", "found several: image, file"),
        ("image,label,split\nx.png,a,somewhere\n", "expected training, validation, test or unlabelled"),
        ("", "a row of names"),
    ],
)
def test_a_table_that_cannot_be_meant_is_one_line(tmp_path, capsys, table, said):
    picture(tmp_path / "x.png", 0)
    (tmp_path / "t.csv").write_text(table)
    assert main(["dataset", str(tmp_path / "t.csv"), "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
