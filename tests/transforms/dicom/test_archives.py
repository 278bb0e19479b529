"""A DICOMDIR of pydicom's test files, and zip files that are whole, damaged, encrypted, or too large."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from transforms.phantoms import voxels, write_series
from transforms.reading import read

from monai_medmerge.errors import DicomSeriesError
from monai_medmerge.transforms import DicomSeriesReader, MedicalImageReader, list_series

MEDIUM = Path(get_testdata_file("DICOMDIR")).parent


def copy_medium(folder):
    shutil.copytree(MEDIUM, folder)
    return folder / "DICOMDIR"


def write_zip(path, folder, names=None):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, (names or {}).get(file.name, file.relative_to(folder)))
    return path


def test_a_dicomdir_stands_for_the_images_that_it_names():
    dataset = pydicom.dcmread(MEDIUM / "DICOMDIR")
    images = [record for record in dataset.DirectoryRecordSequence if record.DirectoryRecordType == "IMAGE"]
    found = list_series(MEDIUM / "DICOMDIR")
    assert sum(len(series.headers) for series in found) == len(images)
    for series in found[:3]:
        array, meta = read(MEDIUM / "DICOMDIR", series_uid=series.uid, policies={"gap": "warn", "duplicate": "repair"})
        alone, same = read([header.path for header in series.headers], policies={"gap": "warn", "duplicate": "repair"})
        np.testing.assert_array_equal(array, alone)
        np.testing.assert_array_equal(meta["affine"], same["affine"])


def test_an_absent_file_and_one_outside_are_refused(tmp_path):
    path = copy_medium(tmp_path / "medium")
    next(file for file in sorted((tmp_path / "medium/77654033/CT2").iterdir())).unlink()
    with pytest.raises(DicomSeriesError, match=r"^DICOMDIR: expected \d+ files that it names, found 1 of them absent"):
        list_series(path)
    dataset = pydicom.dcmread(MEDIUM / "DICOMDIR")
    for record in dataset.DirectoryRecordSequence:
        if record.DirectoryRecordType == "IMAGE":
            record.ReferencedFileID = ["..", "..", "SECRET"]
    dataset.save_as(path)
    with pytest.raises(DicomSeriesError, match=r"^DICOMDIR, ReferencedFileID: expected a name that stays below"):
        list_series(path)


def test_names_in_small_letters_are_found(tmp_path):
    path = copy_medium(tmp_path / "medium")
    for file in sorted((tmp_path / "medium").rglob("*"), reverse=True):
        if file.name != "DICOMDIR":
            file.rename(file.with_name(file.name.lower()))
    assert len(list_series(path)) == len(list_series(MEDIUM / "DICOMDIR"))


@pytest.mark.parametrize("inside", ["", "study/series/"])
def test_a_zip_of_a_series_is_read_and_nothing_stays(tmp_path, inside, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    write_series(tmp_path / "in" / inside, voxels())
    (tmp_path / "in/readme.txt").write_text("no image")
    path = write_zip(tmp_path / "a.zip", tmp_path / "in")
    array, _ = read(path)
    np.testing.assert_array_equal(array + 1024, voxels().T)
    reader = MedicalImageReader()
    np.testing.assert_array_equal(reader.get_data(reader.read(path))[0], array)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_series_of_a_zip_are_listed_and_chosen(tmp_path):
    write_series(tmp_path / "in/a", voxels(seed=1))
    write_series(tmp_path / "in/b", voxels(seed=2))
    path = write_zip(tmp_path / "a.zip", tmp_path / "in")
    found = list_series(path)
    assert len(found) == 2
    with pytest.raises(DicomSeriesError, match="expected one series, found 2"):
        read(path)
    array, _ = read(path, series_uid=found[1].digest)
    np.testing.assert_array_equal(array + 1024, voxels(seed=2).T)


def test_names_of_a_zip_lead_nowhere(tmp_path):
    files = write_series(tmp_path / "in", voxels((3, 4, 5)))
    names = {files[0].name: "../../escaped.dcm", files[1].name: "/escaped.dcm", files[2].name: "x" * 300 + ".dcm"}
    (tmp_path / "below").mkdir()
    path = write_zip(tmp_path / "below/a.zip", tmp_path / "in", names)
    array, _ = read(path)
    np.testing.assert_array_equal(array + 1024, voxels((3, 4, 5)).T)
    assert not list(tmp_path.rglob("escaped*"))


def test_zips_without_images_damaged_encrypted_or_too_large_are_refused(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/readme.txt").write_text("no image")
    with pytest.raises(DicomSeriesError, match=r"^a\.zip: expected a zip with DICOM files"):
        read(write_zip(tmp_path / "a.zip", tmp_path / "in"))
    write_series(tmp_path / "in", voxels())
    path = write_zip(tmp_path / "b.zip", tmp_path / "in")
    with pytest.raises(DicomSeriesError, match=r"^b\.zip: expected at most 2000 bytes unpacked"):
        read(path, max_bytes=2000)
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    with pytest.raises(DicomSeriesError, match=r"^b\.zip: expected an intact zip file"):
        read(path)
    at = whole.index(b"PK\x01\x02")
    path.write_bytes(whole[: at + 8] + b"\x01" + whole[at + 9 :])
    with pytest.raises(DicomSeriesError, match=r"^b\.zip: expected a zip that is not encrypted"):
        read(path)
    spoilt = bytearray(whole)
    spoilt[len(whole) // 3] ^= 255
    path.write_bytes(spoilt)
    with pytest.raises(DicomSeriesError, match=r"^b\.zip"):
        read(path)


def test_a_bomb_is_stopped_at_the_limit(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.dcm", bytes(128) + b"DICM" + bytes(2**26))
    with pytest.raises(DicomSeriesError, match=r"^a\.zip: expected at most 1048576 bytes unpacked"):
        read(tmp_path / "a.zip", max_bytes=2**20)


def test_a_zip_is_no_source_to_reference(tmp_path):
    write_series(tmp_path / "in", voxels())
    with pytest.raises(DicomSeriesError, match=r"^a\.zip: expected files that stay"):
        DicomSeriesReader().locate(write_zip(tmp_path / "a.zip", tmp_path / "in"))
