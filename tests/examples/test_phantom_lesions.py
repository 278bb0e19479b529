"""Phantoms: valid ultrasound DICOM files, the same bytes every time, with the looks their classes are named for."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from monai.data import ITKReader, PydicomReader
from monai.transforms import LoadImage
from pydicom.uid import ExplicitVRLittleEndian, UltrasoundImageStorage

from monai_medmerge.data.datasets import load_datalist
from monai_medmerge.errors import DatasetError

# Examples are scripts beside the package, not part of it.
_path = Path(__file__).parents[2] / "examples" / "phantom_lesions.py"
_spec = importlib.util.spec_from_file_location("phantom_lesions", _path)
assert _spec is not None
assert _spec.loader is not None
phantoms = sys.modules["phantom_lesions"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(phantoms)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return phantoms.write_phantoms(tmp_path_factory.mktemp("made") / "phantoms", 6, 3, 4, size=64, seed=5)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_list_has_every_image_and_all_classes(folder):
    sections = {section: load_datalist(folder, section) for section in ("training", "validation", "test")}
    assert {section: [item["label"] for item in items] for section, items in sections.items()} == {
        "training": [0, 1, 2, 0, 1, 2],
        "validation": [0, 1, 2],
        "test": [0, 1, 2, 0],
    }
    assert len(list(folder.rglob("*.dcm"))) == 13


def test_the_same_seed_gives_the_same_bytes(folder, tmp_path):
    assert contents(phantoms.write_phantoms(tmp_path / "a", 6, 3, 4, size=64, seed=5)) == contents(folder)
    other = contents(phantoms.write_phantoms(tmp_path / "b", 6, 3, 4, size=64, seed=6))
    assert all(other[name] != content for name, content in contents(folder).items())


def test_an_image_does_not_depend_on_how_many_there_are(folder, tmp_path):
    fewer = contents(phantoms.write_phantoms(tmp_path / "fewer", 2, 1, 1, size=64, seed=5))
    del fewer["dataset.json"]
    assert fewer.items() <= contents(folder).items()


def test_every_file_is_a_valid_ultrasound_image(folder, monkeypatch):
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.RAISE)
    files = sorted(folder.rglob("*.dcm"))
    images = [pydicom.dcmread(path) for path in files]
    for image in images:
        assert image.SOPClassUID == image.file_meta.MediaStorageSOPClassUID == UltrasoundImageStorage
        assert image.SOPInstanceUID == image.file_meta.MediaStorageSOPInstanceUID
        assert image.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        assert (image.Modality, image.PhotometricInterpretation, image.SamplesPerPixel) == ("US", "MONOCHROME2", 1)
        assert (image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation) == (8, 8, 7, 0)
        assert image.pixel_array.shape == (64, 64)
        assert image.pixel_array.std() > 10
        for element in image.iterall():  # every value in the range and form of its VR
            assert element.VR != "UI" or element.value.is_valid
        # PS3.3, C.8.5.6 and the general modules: type 1 and 2 elements
        for keyword in ("ImageType", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"):
            assert keyword in image
        for keyword in ("AccessionNumber", "ReferringPhysicianName", "SeriesNumber", "InstanceNumber", "Manufacturer"):
            assert keyword in image
        assert (str(image.PatientName), image.PatientID, image.PatientBirthDate) == ("PHANTOM", "PHANTOM", "")
    assert len({image.SOPInstanceUID for image in images}) == len(files)
    assert len({image.SeriesInstanceUID for image in images}) == 3  # one for each section


# ITK takes a single-frame file for a volume of one slice.
@pytest.mark.parametrize("reader", [PydicomReader, ITKReader])
def test_monai_reads_what_was_simulated(folder, reader):
    for item in load_datalist(folder, "training"):
        index = int(Path(item["image"]).stem)
        simulated = phantoms.simulate(item["label"], 64, np.random.default_rng([5, 0, index]))
        read = LoadImage(reader=reader, image_only=True, ensure_channel_first=True)(item["image"])
        np.testing.assert_array_equal(read.numpy().reshape(64, 64), simulated.T)


def test_classes_look_as_described():
    size, count = 64, 40
    behind, spread = {}, {}
    for label, name in enumerate(phantoms.CLASS_NAMES):
        images = np.stack([phantoms.simulate(label, size, np.random.default_rng([9, i])) for i in range(count)])
        deep = images[:, 45:, :].astype(float).mean(axis=1)
        behind[name] = np.mean(deep[:, 24:40].mean(axis=1) - np.hstack([deep[:, :12], deep[:, -12:]]).mean(axis=1))
        outlines = [phantoms.outline(phantoms.LESIONS[name], size, np.random.default_rng([9, i])) for i in range(count)]
        spread[name] = np.mean([mask.sum(1).std() / mask.sum(0).std() for mask in outlines])
    assert behind["cyst"] > 5 > behind["benign"] > -5 > behind["malignant"]
    assert spread["malignant"] < spread["cyst"]
    assert spread["malignant"] < spread["benign"]


def test_a_folder_with_content_is_left_alone(folder):
    before = contents(folder)
    with pytest.raises(DatasetError, match="phantoms: expected a folder that is absent or empty"):
        phantoms.write_phantoms(folder, 1, 1, 1)
    assert contents(folder) == before
