"""MGH, Analyze and PAR/REC: nibabel's own test files, and what is damaged, open or beside them."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from transforms.formats.volumes import read, said
from transforms.mutations import mutate
from transforms.phantoms import voxels

from monai_medmerge.errors import MedMergeError, VolumeError
from monai_medmerge.transforms import MedicalImageReader

DATA = Path(nib.__file__).parent / "tests/data"
PAR = DATA / "phantom_EPI_asc_CLEAR_2_1.PAR"
AFFINE = np.array([[0, -2.0, 0, 10], [1, 0, 0, 20], [0, 0, 3, -30], [0, 0, 0, 1]])


@pytest.mark.parametrize("suffix", ["mgh", "mgz"])
@pytest.mark.parametrize("kind", ["uint8", "int16", "int32", "float32"])
def test_mgh_equals_what_was_written(tmp_path, suffix, kind):
    volume = voxels(high=250).T.astype(kind)
    nib.save(nib.MGHImage(volume, AFFINE), tmp_path / f"a.{suffix}")
    array, meta = read(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(array, volume)
    assert array.dtype == np.dtype(kind)
    np.testing.assert_allclose(meta["affine"], AFFINE, atol=1e-5)


def test_nibabels_own_mgz_is_four_volumes():
    with pytest.raises(VolumeError, match="one volume, found 3x4x5x2"):
        read(DATA / "test.mgz")
    array, meta = read(DATA / "test.mgz", volume="all")
    image = nib.load(DATA / "test.mgz")
    np.testing.assert_allclose(array, image.dataobj)
    np.testing.assert_allclose(meta["affine"], image.affine)


def test_an_mgh_without_a_place_or_its_end_is_refused(tmp_path):
    nib.save(nib.MGHImage(voxels().T.astype(np.int16), AFFINE), tmp_path / "a.mgh")
    content = bytearray((tmp_path / "a.mgh").read_bytes())
    (tmp_path / "b.mgz").write_bytes(gzip.compress(bytes(content[:-60])))
    with pytest.raises(VolumeError, match=r"^b\.mgz: expected 960 bytes of voxels"):
        read(tmp_path / "b.mgz")
    (tmp_path / "c.mgz").write_bytes(gzip.compress(bytes(content))[:-20])
    with pytest.raises(VolumeError, match=r"^c\.mgz"):
        read(tmp_path / "c.mgz")
    content[28:30] = bytes(2)
    (tmp_path / "d.mgh").write_bytes(content)
    with pytest.raises(VolumeError, match=r"^d\.mgh: expected a place and an orientation"):
        read(tmp_path / "d.mgh")
    content[4:8] = b"\x7f\xff\xff\xff"
    (tmp_path / "e.mgh").write_bytes(content)
    with pytest.raises(VolumeError, match=r"^e\.mgh: expected at most 4294967296 bytes"):
        read(tmp_path / "e.mgh")


def test_analyze_has_no_place_and_spms_matrix_gives_one(tmp_path):
    volume = voxels().T.astype(np.int16)
    nib.save(nib.AnalyzeImage(volume, None), tmp_path / "a.hdr")
    with pytest.raises(VolumeError, match=r"^a\.hdr: expected a place and an orientation"):
        read(tmp_path / "a.hdr")
    with pytest.warns(UserWarning, match="policy: warn"):
        array, meta = read(tmp_path / "a.hdr", policies={"no_form": "warn"})
    np.testing.assert_array_equal(array, volume)
    nib.save(nib.Spm99AnalyzeImage(volume, AFFINE), tmp_path / "b.hdr")
    array, meta = read(tmp_path / "b.hdr")
    np.testing.assert_array_equal(array, volume)
    np.testing.assert_allclose(meta["affine"], AFFINE, atol=1e-5)


def test_scaled_voxels_are_float32(tmp_path):
    volume = (voxels().T * 0.25 - 100).astype(np.float32)
    image = nib.Spm99AnalyzeImage(volume + 100, AFFINE)
    image.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "a.hdr")
    array, _ = read(tmp_path / "a.hdr")
    assert array.dtype == np.float32
    np.testing.assert_allclose(array, volume + 100, atol=0.05)


def test_a_pair_of_nifti_is_checked_as_nifti_is(tmp_path):
    image = nib.Nifti1Pair(voxels().T, AFFINE)
    image.set_qform(np.eye(4), 1)
    nib.save(image, tmp_path / "a.hdr")
    with pytest.raises(MedMergeError, match=r"^a\.hdr: expected sform and qform to agree"):
        read(tmp_path / "a.hdr")
    with pytest.warns(UserWarning, match="policy: sform"):
        array, meta = read(tmp_path / "a.hdr", policies={"forms": "sform", "spacing": "warn"})
    np.testing.assert_array_equal(array, voxels().T)
    np.testing.assert_allclose(meta["affine"], AFFINE)


def test_a_pair_that_lacks_voxels_is_refused(tmp_path):
    nib.save(nib.Nifti1Pair(voxels().T, AFFINE), tmp_path / "a.hdr")
    data = (tmp_path / "a.img").read_bytes()
    (tmp_path / "a.img").write_bytes(data[:-8])
    with pytest.raises(VolumeError, match=r"^a\.hdr: expected 960 bytes of voxels, as the header says, found 952"):
        read(tmp_path / "a.hdr")
    (tmp_path / "a.img").unlink()
    with pytest.raises(VolumeError, match=r"^a\.hdr: expected a file \.img beside the header"):
        read(tmp_path / "a.hdr")


@pytest.mark.parametrize("name", ["phantom_EPI_asc_CLEAR_2_1.PAR", "phantom_varscale.PAR"])
def test_par_and_rec_equal_nibabels(name):
    image = nib.load(DATA / name, strict_sort=True)
    array, meta = read(DATA / name, volume="all")
    np.testing.assert_allclose(array, image.dataobj, rtol=1e-6)
    np.testing.assert_allclose(meta["affine"], image.affine)
    described = json.loads(meta["volumes"])
    assert described == {} or described["of"] == image.shape[3]


def test_times_of_a_par_are_volumes_with_a_name():
    with pytest.raises(VolumeError, match="one volume, found 64x64x9x3"):
        read(PAR)
    array, meta = read(PAR, volume=1)
    assert array.shape == (64, 64, 9)
    assert json.loads(meta["volumes"])["dimension"] == "dynamic scan number"


def test_a_rec_that_is_absent_or_short_is_refused(tmp_path):
    shutil.copy(PAR, tmp_path / "a.PAR")
    with pytest.raises(VolumeError, match=r"^a\.PAR: expected a REC file beside the PAR"):
        read(tmp_path / "a.PAR")
    (tmp_path / "a.REC").write_bytes(PAR.with_suffix(".REC").read_bytes()[:-2])
    with pytest.raises(VolumeError, match=r"^a\.PAR: expected a REC file of \d+ bytes"):
        read(tmp_path / "a.PAR", volume=0)


def test_the_reader_for_everything_takes_them_by_content(tmp_path):
    reader = MedicalImageReader(volume={"volume": 0})
    assert reader.get_data(reader.read(PAR))[0].shape == (64, 64, 9)
    nib.save(nib.MGHImage(voxels().T.astype(np.int16), AFFINE), tmp_path / "a.mgz")
    nib.save(nib.Nifti1Image(voxels().T, AFFINE), tmp_path / "b.nii.gz")
    for name in ("a.mgz", "b.nii.gz"):
        np.testing.assert_array_equal(reader.get_data(reader.read(tmp_path / name))[0], voxels().T)


@pytest.mark.parametrize("suffix", ["mgh", "hdr", "PAR"])
def test_mutated_headers_raise_only_our_errors(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    if suffix == "PAR":
        shutil.copy(PAR.with_suffix(".REC"), tmp_path / "a.REC")
        shutil.copy(PAR, path)
    else:
        kind = nib.MGHImage if suffix == "mgh" else nib.Spm99AnalyzeImage
        nib.save(kind(voxels().T.astype(np.int16), AFFINE), path)
    for data in mutate([path.read_bytes()], 150, seed=3, head=350):
        path.write_bytes(data)
        message = said(path, volume="all")
        assert message.isprintable()
        assert str(tmp_path) not in message
