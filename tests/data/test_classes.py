"""A network's outputs keep the names of the classes that it was trained for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from monai_medmerge import DatasetError
from monai_medmerge.bundle import agreed_class_names, class_names


def test_names_are_those_beside_the_weights(tmp_path: Path) -> None:
    weights = tmp_path / "model.pt"
    assert class_names(weights, ["a", "b"]) == ["a", "b"]
    (tmp_path / "metrics.json").write_text(json.dumps({"class_names": ["benign", "malignant"]}))
    assert class_names(weights, ["a", "b"]) == ["benign", "malignant"]
    assert agreed_class_names(["benign", "malignant"], weights, tmp_path / "x" / "model.pt") == ["benign", "malignant"]


def test_another_order_of_classes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps({"class_names": ["benign", "malignant"]}))
    with pytest.raises(DatasetError, match=r"model.pt, metrics.json beside it: .*malignant, benign, found benign, mal"):
        agreed_class_names(["malignant", "benign"], tmp_path / "model.pt")


def test_a_broken_file_beside_the_weights_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text('{"class_names": [')
    with pytest.raises(DatasetError, match=r"metrics\.json"):
        class_names(tmp_path / "model.pt", ["a"])
