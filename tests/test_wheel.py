"""What a plain `pip install` gives: the wheel, unpacked where nothing of the repository is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TAKEN = ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE", "bundles", "monai_medmerge")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The contents of a wheel that is built from a copy of the tree."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    tree.mkdir()
    for name in TAKEN:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, tree / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, tree / name)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(tree)], check=True)
    (wheel,) = folder.glob("*.whl")
    assert wheel.stat().st_size < 15_000_000
    site = folder / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def medmerge(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the unpacked wheel in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-W", "ignore", "-m", "monai_medmerge", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_wheel_carries_all_that_a_checkout_has(installed: Path) -> None:
    for folder in ("medmerge_classification", "medmerge_segmentation"):
        there = {path.relative_to(ROOT / "bundles") for path in (ROOT / "bundles" / folder).rglob("*")}
        zoo = installed / "monai_medmerge/zoo"
        shipped = {path.relative_to(zoo) for path in (zoo / folder).rglob("*")}
        assert {path for path in there if "__pycache__" not in path.parts} == shipped
    code = {path.relative_to(ROOT) for path in (ROOT / "monai_medmerge").rglob("*.py") if "zoo" not in path.parts}
    assert code <= {path.relative_to(installed) for path in installed.rglob("*.py")}
    (entry,) = installed.glob("*.dist-info/entry_points.txt")
    assert "medmerge = monai_medmerge.__main__:main" in entry.read_text()


def test_its_page_links_to_nothing_beside_it(installed: Path) -> None:
    (metadata,) = installed.glob("*.dist-info/METADATA")
    head, _, page = metadata.read_text(encoding="utf-8").partition("\n\n")
    assert "Project-URL: Documentation, https://" in head
    assert "Classifier: Programming Language :: Python :: 3.13" in head
    targets = [part.partition(")")[0] for part in page.split("](")[1:]]
    assert targets
    assert not [target for target in targets if not target.startswith("https://")]


def test_bundles_are_listed_and_copied_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    listed = medmerge(installed, tmp_path, "bundles")
    assert listed.stdout.startswith("medmerge_classification 0.1.0: Classification")
    copied = medmerge(installed, tmp_path, "bundles", "copy", "medmerge_classification", "mine")
    assert copied.returncode == 0, copied.stderr
    weights = tmp_path / "mine/medmerge_classification/models/model.pt"
    assert weights.read_bytes() == (ROOT / "bundles/medmerge_classification/models/model.pt").read_bytes()


def test_the_doctor_finds_what_the_tests_run_with(installed: Path, tmp_path: Path) -> None:
    found = medmerge(installed, tmp_path, "doctor")
    assert found.returncode == 0, found.stderr
    assert "ABSENT" not in found.stdout.split("extra")[0]
    assert "extra report (ranking, comparison, pictures, the report): there" in found.stdout
    assert medmerge(installed, tmp_path, "--version").stdout == "medmerge 0.1.0\n"
