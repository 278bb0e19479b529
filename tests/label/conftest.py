"""Bundles, studies and servers for the tests of MONAI Label."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from label import small_bundles
from label.serving import serving
from label_client import LabelClient, stem
from transforms.phantoms import voxels, write_series

CASES = 6
OURS = Path(__file__).parents[2] / "bundles"


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A segmentation whose name does not say so, a classification, and the segmentation as a stock server needs it."""
    folder = tmp_path_factory.mktemp("bundles")
    return {
        "blocks": small_bundles.segmentation(folder / "blocks"),
        "kinds": small_bundles.classification(folder / "kinds"),
        "blocks_segmentation": small_bundles.segmentation(folder / "blocks_segmentation", path_safe=True),
    }


@pytest.fixture(scope="session")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], dict[str, Path]]:
    """NIfTI volumes and label maps by name: real ones where they are at hand."""
    real = Path(os.environ.get("MEDMERGE_DATA", ""), "hippocampus")
    if "MEDMERGE_DATA" in os.environ and real.is_dir():
        images = sorted((real / "imagesTr").glob("*.nii.gz"))[:CASES]
        return {stem(file): file for file in images}, {stem(file): real / "labelsTr" / file.name for file in images}
    folder = small_bundles.volumes(tmp_path_factory.mktemp("volumes") / "data", CASES)
    images, labels = (sorted((folder / kind).iterdir()) for kind in ("images", "labels"))
    return {stem(file): file for file in images}, {stem(file): file for file in labels}


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], dict[str, Path]]:
    """Pictures and the JSON files of their classes, by name."""
    folder = small_bundles.pictures(tmp_path_factory.mktemp("pictures") / "data", 12)
    images, labels = (sorted((folder / kind).iterdir()) for kind in ("images", "labels"))
    return {stem(file): file for file in images}, {stem(file): file for file in labels}


@pytest.fixture(scope="session")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a DICOM series: a real one where it is at hand."""
    real = Path(os.environ.get("MEDMERGE_DATA", ""), "dicom", "Study1", "13_HCropVolume")
    if "MEDMERGE_DATA" in os.environ and real.is_dir():
        return real
    folder = tmp_path_factory.mktemp("dicom") / "series"
    write_series(folder, voxels((20, 24, 12)))
    return folder


@pytest.fixture(scope="session")
def served(
    tmp_path_factory: pytest.TempPathFactory,
    bundles: dict[str, Path],
    volumes: tuple[dict[str, Path], dict[str, Path]],
    series: Path,
) -> Iterator[LabelClient]:
    """A server of our app with small bundles and ours; its studies are the volumes and, as `mr`, the series."""
    folder = tmp_path_factory.mktemp("served")
    studies = folder / "studies"
    studies.mkdir()
    for file in volumes[0].values():
        shutil.copy(file, studies)
    shutil.copytree(series, studies / "mr.series")
    command = ["-m", "monai_medmerge.label", "--studies", str(studies), "--folder", str(folder / "app")]
    for bundle in (
        bundles["blocks"],
        bundles["kinds"],
        OURS / "medmerge_segmentation",
        OURS / "medmerge_classification",
    ):
        command += ["--bundle", str(bundle)]
    with serving(command, folder) as client:
        yield client


@pytest.fixture(scope="session")
def app_folder(served: LabelClient, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the served copies of the bundles are."""
    return next(tmp_path_factory.getbasetemp().glob("served*")) / "app" / "model"


@pytest.fixture(scope="session")
def studies(app_folder: Path) -> Path:
    """The served folder of images."""
    return app_folder.parents[1] / "studies"


@pytest.fixture(scope="session")
def stock(
    tmp_path_factory: pytest.TempPathFactory,
    bundles: dict[str, Path],
    volumes: tuple[dict[str, Path], dict[str, Path]],
) -> Iterator[LabelClient]:
    """A server of MONAI Label's own monaibundle app, unchanged, with the segmentation."""
    folder = tmp_path_factory.mktemp("stock")
    app = folder / "monaibundle"
    shutil.copytree(Path(sys.prefix, "monailabel", "sample-apps", "monaibundle"), app)
    shutil.copytree(bundles["blocks_segmentation"], app / "model" / "blocks_segmentation")
    (app / "model" / "blocks_segmentation" / "dataset.json").write_text('{"class_names": ["none", "one", "two"]}')
    (folder / "studies").mkdir()
    for file in volumes[0].values():
        shutil.copy(file, folder / "studies")
    command = ["-m", "monailabel.main", "start_server", "--app", str(app), "--studies", str(folder / "studies")]
    command += ["--conf", "models", "blocks_segmentation", "--conf", "sam2", "false", "--conf", "zoo_source", "ngc"]
    with serving(command, folder) as client:
        yield client
