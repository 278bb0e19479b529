"""What the wheel carries, and that it works unpacked, without the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from email import message_from_string
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]
BUNDLES = ("medmerge_classification", "medmerge_segmentation")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> ZipFile:
    """Built from a copy of the checkout: building leaves folders behind."""
    folder = tmp_path_factory.mktemp("wheel")
    checkout = folder / "checkout"
    unwanted = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in ("monai_medmerge", "bundles"):
        shutil.copytree(ROOT / name, checkout / name, ignore=unwanted)
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, checkout / name)
    # What a run leaves in a bundle is nobody else's.
    (checkout / "bundles" / BUNDLES[0] / "output").mkdir(exist_ok=True)
    (checkout / "bundles" / BUNDLES[0] / "output" / "patient.txt").write_text("left by a run")
    command = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "-w", folder]
    subprocess.run([sys.executable, *command, checkout], check=True, cwd=folder, capture_output=True)
    return ZipFile(next(folder.glob("*.whl")))


@pytest.fixture(scope="module")
def unpacked(wheel: ZipFile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    wheel.extractall(folder)
    return folder


def run(unpacked: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(unpacked)}
    command = [sys.executable, "-W", "ignore", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_it_carries_bundles_with_weights_and_gates(wheel: ZipFile) -> None:
    names = set(wheel.namelist())
    for bundle in BUNDLES:
        here = ROOT / "bundles" / bundle
        parts = [
            here / "LICENSE",
            *(path for part in ("configs", "docs", "models") for path in (here / part).iterdir()),
        ]
        wanted = {f"monai_medmerge/zoo/{bundle}/{path.relative_to(here).as_posix()}" for path in parts}
        assert {name for name in names if name.startswith(f"monai_medmerge/zoo/{bundle}/")} == wanted
        assert wheel.read(f"monai_medmerge/zoo/{bundle}/models/model.pt") == (here / "models/model.pt").read_bytes()
    assert {name.partition("/")[0] for name in names} == {"monai_medmerge", "monai_medmerge-0.1.0.dist-info"}
    assert not [name for name in names if name.endswith("patient.txt")]
    for beside in ("py.typed", "bundle/overlay/medmerge.json", "evaluation/report/templates/report.html.j2"):
        assert f"monai_medmerge/{beside}" in names


def test_its_page_has_no_link_to_files_beside_it(wheel: ZipFile) -> None:
    metadata = message_from_string(wheel.read("monai_medmerge-0.1.0.dist-info/METADATA").decode())
    text = metadata.get_payload()
    assert isinstance(text, str)
    assert "](https://" in text
    assert not [part[:60] for part in text.split("](")[1:] if not part.startswith(("https://", "#"))]
    assert any(url.startswith("Documentation, https://") for url in metadata.get_all("Project-URL", []))
    assert "Programming Language :: Python :: 3.13" in metadata.get_all("Classifier", [])
    entries = wheel.read("monai_medmerge-0.1.0.dist-info/entry_points.txt").decode()
    assert "medmerge = monai_medmerge.__main__:main" in entries


def test_unpacked_it_lists_and_copies(unpacked: Path, tmp_path: Path) -> None:
    listed = run(unpacked, tmp_path, "-m", "monai_medmerge", "bundles")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert [line.split()[0] for line in listed.stdout.splitlines()] == [*BUNDLES, "next:"]
    copied = run(unpacked, tmp_path, "-m", "monai_medmerge", "bundles", "copy", BUNDLES[1], "mine")
    assert (copied.returncode, copied.stderr) == (0, "")
    assert [line.split()[0] for line in copied.stdout.splitlines()] == ["written:", "found:", "next:"]
    source = unpacked / "monai_medmerge" / "zoo" / BUNDLES[1]
    copies = {path.relative_to(tmp_path / "mine"): path for path in (tmp_path / "mine").rglob("*") if path.is_file()}
    originals = {path.relative_to(source): path for path in source.rglob("*") if path.is_file()}
    assert copies.keys() == originals.keys()
    assert all(copies[name].read_bytes() == originals[name].read_bytes() for name in copies)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
