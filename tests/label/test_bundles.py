"""What needs no server: labels, names, stand-ins and the transform that MONAI Label's requests pass."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Spacingd

from monai_medmerge import DatasetError, SettingError
from monai_medmerge.label.__main__ import prepare
from monai_medmerge.label.bundles import class_names, read_metadata, target_classes, task_type, weights_files
from monai_medmerge.label.labels import ReadClassd, class_number
from monai_medmerge.label.stand_ins import FILES, install
from monai_medmerge.label.texts_aside import PathSafe, path_safe

KINDS = ["dark", "bright"]


def request_of_label() -> dict[str, Any]:
    image = MetaTensor(torch.arange(8.0).reshape(1, 2, 2, 2), meta={"filename_or_obj": "a.nii.gz"})
    return {"image": image, "image_path": "a.nii.gz", "model": "blocks"}


def test_spacing_works_on_a_request_and_back() -> None:
    plain, safe = Spacingd("image", (1.0, 1.0, 0.5)), PathSafe(Spacingd("image", (1.0, 1.0, 0.5)))
    with pytest.raises(AttributeError, match="update"):
        plain(request_of_label())
    request = request_of_label()
    done = Compose([safe])(request)
    assert (done["image_path"], done["model"]) == ("a.nii.gz", "blocks")
    torch.testing.assert_close(done["image"], plain({"image": request["image"]})["image"])
    back = Compose([safe]).inverse(done)
    assert back["image"].shape == request["image"].shape
    assert back["image_path"] == "a.nii.gz"


def test_only_spacing_is_wrapped() -> None:
    other = Compose([])
    assert path_safe(other) is other
    assert isinstance(path_safe(Spacingd("image", (1.0,))), PathSafe)


@pytest.mark.parametrize(
    ("content", "number"),
    [
        ({"label": "bright"}, 1),
        ({"label": 0}, 0),
        ({"prediction": [{"idx": 0, "label": "dark", "score": 0.2}, {"idx": 1, "label": "bright", "score": 0.8}]}, 1),
    ],
)
def test_class_is_read(tmp_path: Path, content: dict[str, Any], number: int) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps(content))
    assert class_number(file, KINDS) == number


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", '{"label": "purple"}', '{"label": 2}', '{"label": true}', "{}"),
        *('{"prediction": "bright"}', '{"prediction": [{"label": "bright"}]}', '{"prediction": [{"score": 1}]}'),
    ],
)
def test_other_content_is_no_class(tmp_path: Path, text: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(text)
    with pytest.raises(DatasetError, match=r"a\.json: expected .*dark, bright"):
        class_number(file, KINDS)


def test_class_is_read_where_the_label_is_a_path(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('{"label": "bright"}')
    read = ReadClassd("label", KINDS)
    assert [read({"image": "a.png", "label": label})["label"] for label in (str(file), 1, 0)] == [1, 1, 0]
    with pytest.raises(DatasetError, match=r"b\.json"):
        read({"label": str(tmp_path / "b.json")})


def test_classes_are_the_datasets_or_else_the_bundles(bundles: dict[str, Path], tmp_path: Path) -> None:
    assert target_classes(tmp_path, bundles["kinds"]) == KINDS
    file = tmp_path / "dataset.json"
    file.write_text('{"class_names": ["cyst", "benign"]}')
    assert target_classes(tmp_path, bundles["kinds"]) == ["cyst", "benign"]
    file.write_text('{"training": []}')
    with pytest.raises(DatasetError, match=r"dataset\.json: expected a list `class_names`"):
        target_classes(tmp_path, bundles["kinds"])


def test_bundle_tells_its_task_and_weights(bundles: dict[str, Path], tmp_path: Path) -> None:
    metadata = read_metadata(bundles["blocks"])
    assert task_type(metadata, "blocks") == "segmentation"
    assert class_names(metadata) == ["background", "anterior", "posterior"]
    assert [file.name for file in weights_files(bundles["blocks"])] == ["model.pt"]
    with pytest.raises(SettingError, match="format segmentation or classification"):
        task_type({"network_data_format": {"outputs": {"pred": {"format": "boxes"}}}}, "nodules")
    with pytest.raises(SettingError, match=r"metadata\.json"):
        read_metadata(tmp_path)


def test_bundles_of_one_name_are_refused(bundles: dict[str, Path], tmp_path: Path) -> None:
    other = tmp_path / "other" / "blocks"
    other.parent.mkdir()
    shutil.copytree(bundles["blocks"], other)
    assert prepare(tmp_path / "app", [bundles["blocks"]]).is_dir()
    with pytest.raises(SettingError, match="two of blocks"):
        prepare(tmp_path / "app", [bundles["blocks"], other])


def test_stand_ins_are_written_where_nothing_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monai_medmerge.label.stand_ins.find_spec", lambda name: None)
    assert install(tmp_path) == list(FILES)
    monkeypatch.setattr("monai_medmerge.label.stand_ins.find_spec", lambda name: object())
    assert install(tmp_path / "other") == []
    assert not (tmp_path / "other").exists()
