"""Dataset folders: what is written can be read, what is wrong is named, and half a folder is never a folder."""

import hashlib
import io
import json
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from monai.data import DataLoader, Dataset, load_decathlon_datalist
from monai.transforms import LoadImage, LoadImaged

from monai_medmerge.data.datasets import (
    MEDMNIST,
    MedMnist,
    load_datalist,
    prepare_medmnist,
    write_images,
)
from monai_medmerge.errors import DatasetError
from monai_medmerge.files import whole_folder

NAMES = ["benign", "malignant"]


def make_folder(parent: Path, **changes: object) -> Path:
    """A good dataset folder of three images, with entries of dataset.json replaced or (None) removed."""
    folder = parent / "dataset"
    write_images(folder, {"training": (np.zeros((3, 8, 8), np.uint8), [0, 1, 0])}, NAMES)
    content = json.loads((folder / "dataset.json").read_text()) | changes
    (folder / "dataset.json").write_text(
        json.dumps({key: value for key, value in content.items() if value is not None})
    )
    return folder


@settings(max_examples=15, deadline=None)
@given(data=st.data(), colour=st.booleans(), count=st.integers(1, 3))
def test_what_is_written_is_read(tmp_path_factory, data, colour, count):
    shape = (count, *data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9))), *((3,) if colour else ()))
    images = data.draw(hnp.arrays(np.uint8, shape))
    labels = data.draw(hnp.arrays(np.int64, count, elements=st.integers(0, 1)))
    folder = tmp_path_factory.mktemp("written") / "dataset"
    write_images(folder, {"training": (images, labels), "test": (images[:1], labels[:1])}, NAMES, {"licence": "CC0"})

    items = load_datalist(folder, "training")
    assert [item["label"] for item in items] == labels.tolist()
    assert len(load_datalist(folder, "test")) == 1
    for item, image in zip(items, images, strict=True):
        assert Path(item["image"]).is_absolute()
        read = LoadImage(image_only=True, reverse_indexing=False, dtype=np.uint8)(item["image"])
        np.testing.assert_array_equal(read.numpy(), image)
    assert json.loads((folder / "dataset.json").read_text())["licence"] == "CC0"


def test_monai_reads_the_same_list_and_batches_it(tmp_path):
    folder = make_folder(tmp_path)
    items = load_datalist(folder, "training")
    assert items == load_decathlon_datalist(folder / "dataset.json", is_segmentation=False, data_list_key="training")
    batch = next(iter(DataLoader(Dataset(items, LoadImaged("image")), batch_size=3)))
    assert batch["image"].shape == (3, 8, 8)
    assert batch["label"].tolist() == [0, 1, 0]


def test_a_relative_folder_gives_absolute_paths(tmp_path, monkeypatch):
    make_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert load_datalist("dataset", "training") == load_datalist(tmp_path / "dataset", "training")


@pytest.mark.parametrize("label", [2, -1, 1.0, "1", None, True, [0]])
def test_a_label_outside_the_classes_is_named(tmp_path, label):
    good = {"image": "training/00000.png", "label": 0}
    folder = make_folder(tmp_path, training=[good, {"image": "training/00001.png", "label": label}])
    with pytest.raises(DatasetError) as caught:
        load_datalist(folder, "training")
    assert str(caught.value) == (
        f"dataset.json, training[1].label (00001.png): expected a class number from 0 to 1, found {label!r}"
    )


def test_the_number_of_classes_may_be_the_networks(tmp_path):
    folder = make_folder(tmp_path, class_names=None)
    assert len(load_datalist(folder, "training", classes=2)) == 3
    with pytest.raises(DatasetError, match=r"training\[1\]\.label .* from 0 to 0, found 1"):
        load_datalist(folder, "training", classes=1)
    with pytest.raises(DatasetError, match="class_names: expected a list of class names, found None"):
        load_datalist(folder, "training")


@pytest.mark.parametrize(
    ("changes", "section", "message"),
    [
        ({}, "test", r"dataset.json: expected a section 'test', found only \['class_names', 'training'\]"),
        ({"training": []}, "training", "dataset.json, training: expected .* at least one image, found an empty list"),
        ({"training": {"image": "a"}}, "training", r"dataset.json, training: .* found an object with \['image'\]"),
        ({"training": ["a.png"]}, "training", r"training\[0\]: expected .*, found a value of type str"),
        ({"training": [{"image": "a.png"}]}, "training", r"training\[0\]: .* found an object with \['image'\]"),
        (
            {"training": [{"image": "training/00000.png", "label": 0}, {"image": "gone/a.png", "label": 0}]},
            "training",
            r"training\[1\]\.image: expected an image that exists, found no a\.png",
        ),
        ({"class_names": []}, "training", r"class_names: expected a list of class names, found \[\]"),
    ],
)
def test_a_wrong_list_is_named(tmp_path, changes, section, message):
    with pytest.raises(DatasetError, match=message):
        load_datalist(make_folder(tmp_path, **changes), section)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "empty: expected a file dataset.json in the dataset folder, found none"),
        (b"", "dataset.json: expected JSON text"),
        (b'{"training": [', "dataset.json: expected JSON text"),
        (b"\xff\xfe\x00", "dataset.json: expected JSON text"),
        (b"[1]", "dataset.json: expected a JSON object, found list"),
    ],
)
def test_an_unreadable_list_is_named(tmp_path, content, message):
    folder = tmp_path / "empty"
    folder.mkdir()
    if content is not None:
        (folder / "dataset.json").write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        load_datalist(folder, "training")


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 4, 4)), [0, 1], "training: expected grey or RGB images, uint8, found float64"),
        (np.zeros((2, 4, 4, 4), np.uint8), [0, 1], "expected grey or RGB images"),
        (np.zeros((2, 4, 4), np.uint8), [0], "expected one label for each"),
        (np.zeros((0, 4, 4), np.uint8), [], "at least one image"),
        (np.zeros((2, 4, 4), np.uint8), [0, 2], "expected integer labels from 0 to 1, found int64 from 0 to 2"),
        (np.zeros((2, 4, 4), np.uint8), [0.0, 1.0], "found float64"),
    ],
)
def test_wrong_arrays_are_refused_before_anything_is_written(tmp_path, images, labels, message):
    with pytest.raises(DatasetError, match=message):
        write_images(tmp_path / "dataset", {"training": (images, labels)}, NAMES)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_writer_leaves_no_folder_and_the_next_one_starts_again(tmp_path):
    folder = tmp_path / "dataset"
    child = os.fork()
    if child == 0:
        with whole_folder(folder) as partial:
            (partial / "half").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert [path.name for path in tmp_path.glob(".medmerge-*/*")] == ["dataset"]
    assert not folder.exists()

    folder.mkdir()  # an empty folder, as a user may have made it, is filled
    with whole_folder(folder) as partial:
        (partial / "whole").write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]
    assert [path.name for path in folder.iterdir()] == ["whole"]


def test_a_folder_with_content_is_never_touched(tmp_path):
    folder = make_folder(tmp_path)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(
        DatasetError, match="dataset: expected a folder that is absent or empty, found one with content"
    ):
        write_images(folder, {"test": (np.ones((1, 4, 4), np.uint8), [0])}, NAMES)
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def archive() -> bytes:
    """A file in the form of MedMNIST v2, two grey images a split."""
    arrays = {}
    for position, split in enumerate(("train", "val", "test")):
        arrays[f"{split}_images"] = np.full((2, 28, 28), position, np.uint8)
        arrays[f"{split}_labels"] = np.array([[0], [1]], np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


@pytest.fixture
def server(archive):
    """A web server on this machine that has the archive at /tiny.npz; yields its address and the paths asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200 if self.path.startswith("/tiny.npz") else 404)
            self.send_header("Content-Length", str(len(archive)))
            self.end_headers()
            self.wfile.write(archive)

        def log_message(self, *arguments: object) -> None:
            """Keep the test's output clean."""

    with HTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{web.server_port}", asked
        web.shutdown()
        thread.join()


@pytest.fixture
def tiny(archive, server, monkeypatch) -> None:
    """The archive among the published files, at the local address."""
    md5 = hashlib.md5(archive, usedforsecurity=False).hexdigest()
    monkeypatch.setitem(MEDMNIST, "tiny", MedMnist(f"{server[0]}/tiny.npz?download=1", md5, tuple(NAMES), "CC0"))
    monkeypatch.delenv("MEDMERGE_DATA", raising=False)


@pytest.mark.usefixtures("tiny")
def test_medmnist_is_downloaded_once(tmp_path, server):
    asked = server[1]
    folder = prepare_medmnist("tiny", tmp_path / "tiny")
    assert [item["label"] for item in load_datalist(folder, "validation")] == [0, 1]
    assert asked == ["/tiny.npz?download=1"]
    prepare_medmnist("tiny", tmp_path / "tiny")
    prepare_medmnist("tiny", tmp_path / "again")
    assert len(asked) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "tiny", "tiny.npz"]


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(("path", "found"), [("/gone.npz", "found Not Found"), ("/tiny.npz", "HashCheckError")])
def test_a_failed_download_is_named_and_leaves_nothing(tmp_path, server, monkeypatch, path, found):
    monkeypatch.setitem(MEDMNIST, "tiny", MedMnist("unused", "0" * 32, tuple(NAMES), "CC0"))
    with pytest.raises(
        DatasetError, match=f"tiny.npz: expected the file of MD5 0000.* at {server[0]}{path}, .*{found}"
    ):
        prepare_medmnist("tiny", tmp_path / "tiny", url=server[0] + path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("tiny")
def test_medmnist_comes_from_the_data_folder_where_there_is_one(tmp_path, archive, server, monkeypatch):
    data = tmp_path / "data"
    (data / "medmnist").mkdir(parents=True)
    monkeypatch.setenv("MEDMERGE_DATA", str(data))
    with pytest.raises(DatasetError, match=r"expected a file medmnist/tiny\.npz, found none"):
        prepare_medmnist("tiny", tmp_path / "tiny")
    (data / "medmnist" / "tiny.npz").write_bytes(archive[:-1])
    with pytest.raises(DatasetError, match=r"tiny\.npz: expected the published file, MD5 .*, found MD5"):
        prepare_medmnist("tiny", tmp_path / "tiny")
    (data / "medmnist" / "tiny.npz").write_bytes(archive)
    assert len(load_datalist(prepare_medmnist("tiny", tmp_path / "tiny"), "test")) == 2
    assert server[1] == []


def test_an_unknown_medmnist_name(tmp_path):
    with pytest.raises(DatasetError, match=r"MedMNIST: expected one of \['breastmnist'\], found 'mnist'"):
        prepare_medmnist("mnist", tmp_path / "mnist")


@pytest.mark.skipif("MEDMERGE_DATA" not in os.environ, reason="MEDMERGE_DATA names no data folder")
def test_breastmnist(tmp_path):
    folder = prepare_medmnist("breastmnist", tmp_path / "breastmnist")
    with np.load(Path(os.environ["MEDMERGE_DATA"], "medmnist", "breastmnist.npz"), allow_pickle=False) as arrays:
        for section, split, count in (("training", "train", 546), ("validation", "val", 78), ("test", "test", 156)):
            items = load_datalist(folder, section)
            assert len(items) == count
            assert [item["label"] for item in items] == arrays[f"{split}_labels"].ravel().tolist()
            last = LoadImage(image_only=True, reverse_indexing=False)(items[-1]["image"])
            np.testing.assert_array_equal(last.numpy(), arrays[f"{split}_images"][-1])
