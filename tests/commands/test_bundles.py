"""`bundles`: what is listed, copied and refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from monai_medmerge import __version__
from monai_medmerge.__main__ import main


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    try:
        status = main(arguments)
    except SystemExit as exited:
        status = exited.code  # type: ignore[assignment]
    printed = capsys.readouterr()
    assert (status, printed.out, printed.err.count("\n")) == (2, "", 1)
    return printed.err


def test_copies_one_that_can_be_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "my bundle"
    assert main(["bundles", "copy", "medmerge_segmentation", str(mine)]) == 0
    assert f"next: medmerge merge --bundle '{mine}'" in capsys.readouterr().out
    assert sorted(path.name for path in mine.iterdir()) == ["LICENSE", "configs", "docs", "models"]


def test_refuses_what_is_there_and_what_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("mine")
    for name in ("there", "file"):
        assert "does not exist yet" in refused(capsys, "bundles", "copy", "medmerge_segmentation", str(tmp_path / name))
    told = refused(capsys, "bundles", "copy", "medmerge_segmentatoin", str(tmp_path / "new"))
    assert "the nearest is medmerge_segmentation" in told
    assert "there are medmerge_classification" in refused(capsys, "bundles", "copy", "x", str(tmp_path / "new"))
    refused(capsys, "bundles", "copy", "medmerge_segmentation")
    refused(capsys, "bundles", "cpy")
    refused(capsys, "bundles", "list", "more")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "there"]
    assert (tmp_path / "file").read_text() == "mine"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(["--version"])
    assert (exited.value.code, capsys.readouterr().out) == (0, f"medmerge {__version__}\n")
