"""`bundles`: copies are whole, and what cannot be is one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from monai_medmerge.__main__ import main


def test_a_copy_is_the_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bundles", "copy", "medmerge_segmentation", str(tmp_path)]) == 0
    assert (tmp_path / "medmerge_segmentation/configs/merge.json").is_file()
    assert "next: medmerge merge --bundle" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["medmerge_segmentation"]


def test_what_cannot_be_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "medmerge_segmentation").mkdir()
    (tmp_path / "medmerge_segmentation/mine").touch()
    assert main(["bundles", "copy", "medmerge_segmentation", str(tmp_path)]) == 2
    assert "expected no folder of this name yet, found one" in capsys.readouterr().err
    assert (tmp_path / "medmerge_segmentation/mine").exists()
    assert main(["bundles", "copy", "medmerge_segmentatoin", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "the nearest is medmerge_segmentation" in said
