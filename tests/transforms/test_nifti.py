"""CheckedNiftiReader against nibabel, and every contradiction that a header can hold."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from transforms.phantoms import oblique, voxels

from monai_medmerge.errors import NiftiError, SettingError
from monai_medmerge.transforms import CheckedNiftiReader

OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = np.array([oblique()[0][:3], oblique()[0][3:], oblique()[1]]).T * [1, 2, 3]


def read(path, **arguments):
    reader = CheckedNiftiReader(**arguments)
    return reader.get_data(reader.read(path))


def write(path, array, affine=OBLIQUE, **header):
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units(header.pop("units", "mm"))
    image.header.set_slope_inter(*header.pop("scaling", (None, None)))
    for name, form in header.items():
        getattr(image, f"set_{name}")(*form)
    nib.save(image, path)
    return path


@given(
    array=hnp.arrays(
        st.sampled_from(["uint8", "int16", "uint16", "int32", "float32", "float64"]),
        hnp.array_shapes(min_dims=3, max_dims=3, max_side=4),
        elements=st.integers(0, 200),
    ),
    scaling=st.sampled_from([(None, None), (1, 0), (2, -10), (0.5, 3)]),
)
@settings(max_examples=40, deadline=None)
def test_values_and_affine_equal_nibabels(tmp_path_factory, array, scaling):
    path = write(tmp_path_factory.mktemp("nifti") / "a.nii.gz", array, scaling=scaling)
    image = nib.load(path)
    values, meta = read(path)
    np.testing.assert_allclose(values, image.get_fdata(), rtol=1e-6)
    np.testing.assert_allclose(meta["affine"], image.affine)
    if scaling in ((None, None), (1, 0)):
        assert values.dtype == array.dtype


def test_real_volumes_equal_nibabels():
    if not os.environ.get("MEDMERGE_DATA"):
        pytest.skip("MEDMERGE_DATA does not name a folder of real volumes")
    for path in sorted((Path(os.environ["MEDMERGE_DATA"]) / "hippocampus").glob("*Tr/*.nii.gz"))[::20]:
        values, meta = read(path)
        np.testing.assert_array_equal(values, nib.load(path).get_fdata())
        np.testing.assert_array_equal(meta["affine"], nib.load(path).affine)


def test_forms_that_disagree_are_refused_or_chosen(tmp_path):
    path = write(tmp_path / "a.nii", voxels(), sform=(OBLIQUE, 1), qform=(np.diag([1, 2, 3, 1]), 1))
    with pytest.raises(NiftiError, match="sform and qform to agree"):
        read(path)
    for form, expected in (("sform", OBLIQUE), ("qform", np.diag([1, 2, 3, 1]))):
        with pytest.warns(UserWarning, match=f"policy: {form}"):
            np.testing.assert_allclose(read(path, policies={"forms": form})[1]["affine"], expected, atol=1e-5)


def test_a_file_without_orientation_is_refused_or_guessed_as_nibabel_guesses(tmp_path):
    path = write(tmp_path / "a.nii", voxels(), affine=None)
    with pytest.raises(NiftiError, match="neither qform_code nor sform_code"):
        read(path)
    with pytest.warns(UserWarning, match="an orientation"):
        np.testing.assert_allclose(read(path, policies={"no_form": "warn"})[1]["affine"], nib.load(path).affine)


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1000), ("micron", 0.001)])
def test_other_units_are_refused_or_converted(tmp_path, unit, factor):
    path = write(tmp_path / "a.nii", voxels(), units=unit)
    with pytest.raises(NiftiError, match="millimetres"):
        read(path)
    with pytest.warns(UserWarning, match="policy: repair"):
        _, meta = read(path, policies={"units": "repair"})
    np.testing.assert_allclose(meta["spacing"], np.array([1, 2, 3]) * factor, rtol=1e-5)


def test_voxel_sizes_that_contradict_the_affine_are_refused(tmp_path):
    image = nib.Nifti1Image(voxels(), None)
    image.header.set_sform(OBLIQUE, 1)
    image.header["pixdim"][1:4] = [1, 1, 1]
    (tmp_path / "a.nii").write_bytes(image.to_bytes())
    with pytest.raises(NiftiError, match="voxel sizes that agree"):
        read(tmp_path / "a.nii")


def test_a_volume_of_four_dimensions_must_be_chosen(tmp_path):
    array = np.random.default_rng(0).integers(0, 99, (4, 5, 6, 3)).astype(np.int16)
    path = write(tmp_path / "a.nii.gz", array)
    with pytest.raises(NiftiError, match="volume=0 to 2"):
        read(path)
    np.testing.assert_array_equal(read(path, volume=1)[0], array[..., 1])
    channels, meta = read(path, volume="all")
    np.testing.assert_array_equal(channels, array)
    assert (meta["original_channel_dim"], tuple(meta["spatial_shape"])) == (-1, (4, 5, 6))
    with pytest.raises(NiftiError, match="below 3"):
        read(path, volume=3)
    with pytest.raises(SettingError, match="volume"):
        CheckedNiftiReader(volume=-1)


def test_rgb_becomes_channels(tmp_path):
    colors = np.random.default_rng(0).integers(0, 255, (4, 5, 6, 3)).astype(np.uint8)
    rgb = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    path = write(tmp_path / "a.nii", np.ascontiguousarray(colors).view(rgb)[..., 0])
    values, meta = read(path)
    np.testing.assert_array_equal(values, colors)
    assert meta["original_channel_dim"] == -1


def test_complex_voxels_and_pairs_are_refused(tmp_path):
    with pytest.raises(NiftiError, match="complex64"):
        read(write(tmp_path / "a.nii", voxels().astype(np.complex64)))
    nib.save(nib.Nifti1Pair(voxels(), OBLIQUE), tmp_path / "b.hdr")
    with pytest.raises(NiftiError, match="a pair of"):
        read(tmp_path / "b.hdr")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_truncated_files_are_refused(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}", voxels((20, 20, 20)))
    data = path.read_bytes()
    for keep in (0, 5, 300, len(data) // 2, len(data) - 9, len(data) - 1):
        path.write_bytes(data[:keep])
        with pytest.raises(NiftiError):
            read(path)


def test_a_wrong_checksum_a_bomb_and_a_huge_header_are_refused(tmp_path):
    path = write(tmp_path / "a.nii.gz", voxels())
    data = bytearray(path.read_bytes())
    data[-6] ^= 1
    path.write_bytes(data)
    with pytest.raises(NiftiError, match="fails to parse"):
        read(path)
    plain = gzip.decompress(write(path, voxels()).read_bytes())
    path.write_bytes(gzip.compress(plain + bytes(50_000_000)))
    with pytest.raises(NiftiError, match="many more"):
        read(path)
    huge = bytearray(plain)
    huge[40:56] = np.array([3, *[32767] * 7], "<i2").tobytes()
    path.write_bytes(gzip.compress(huge))
    with pytest.raises(NiftiError, match="max_bytes"):
        read(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_that_are_not_finite_are_refused_or_kept(tmp_path, value):
    array = voxels().astype(np.float32)
    array[1, 2, 3] = value
    path = write(tmp_path / "a.nii.gz", array)
    with pytest.raises(NiftiError, match=rf"^a\.nii\.gz: expected finite values, found 1 of {array.size}"):
        read(path)
    with pytest.warns(UserWarning, match="policy: warn"):
        np.testing.assert_array_equal(read(path, policies={"nonfinite": "warn"})[0], array)


@pytest.mark.parametrize("size", [0, -3])
def test_voxel_sizes_that_a_qform_cannot_use_are_refused(tmp_path, size):
    path = write(tmp_path / "a.nii", voxels(), qform=(np.diag([1, 2, 3, 1]), 1), sform=(None, 0))
    np.testing.assert_allclose(read(path)[1]["affine"], np.diag([1, 2, 3, 1]))
    data = bytearray(path.read_bytes())
    data[88:92] = np.float32(size).tobytes()
    path.write_bytes(data)
    with pytest.raises(NiftiError, match="pixdim: expected voxel sizes above zero"):
        read(path)


def test_a_slice_needs_no_third_voxel_size(tmp_path):
    path = write(tmp_path / "a.nii", voxels()[0], qform=(np.diag([1, 2, 3, 1]), 1), sform=(None, 0))
    data = bytearray(path.read_bytes())
    data[88:92] = bytes(4)
    path.write_bytes(data)
    np.testing.assert_array_equal(read(path)[0], voxels()[0])


@pytest.mark.parametrize("offset", [112, 116])
def test_infinite_scaling_is_refused(tmp_path, offset):
    path = write(tmp_path / "a.nii", voxels(), scaling=(2, 1))
    data = bytearray(path.read_bytes())
    data[offset : offset + 4] = np.float32(np.inf).tobytes()
    path.write_bytes(data)
    with pytest.raises(NiftiError, match="a finite scl_slope"):
        read(path)


@pytest.mark.parametrize("size", [0, 100, 400, 5000])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("image_class", [nib.Nifti1Image, nib.Nifti2Image])
def test_extensions_of_any_size_are_passed_over(tmp_path, size, suffix, image_class):
    image = image_class(voxels(), OBLIQUE)
    image.header.set_xyzt_units("mm")
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * size))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("afni", b"<AFNI_attributes/>" * 20))
    nib.save(image, path := tmp_path / f"a{suffix}")
    array, meta = read(path)
    np.testing.assert_array_equal(array, voxels())
    np.testing.assert_allclose(meta["affine"], nib.load(path).affine)


def test_a_malformed_extension_does_not_matter(tmp_path):
    image = nib.Nifti1Image(voxels(), OBLIQUE)
    image.header.set_xyzt_units("mm")
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 400))
    nib.save(image, path := tmp_path / "a.nii")
    data = bytearray(path.read_bytes())
    data[352:356] = (7).to_bytes(4, "little")
    path.write_bytes(data)
    np.testing.assert_array_equal(read(path)[0], voxels())


@pytest.mark.parametrize("quaternion", [(0.8, 0.5, 0.4), (float("nan"), 0, 0), (2, 0, 0)])
def test_a_qform_that_cannot_be_computed_disagrees_with_the_sform(tmp_path, quaternion):
    path = write(tmp_path / "a.nii", voxels(), sform=(OBLIQUE, 1), qform=(OBLIQUE, 1))
    data = bytearray(path.read_bytes())
    data[256:268] = np.array(quaternion, "<f4").tobytes()
    path.write_bytes(data)
    for policies in (None, {"forms": "qform"}):
        with pytest.raises(NiftiError, match="a qform that cannot be computed"):
            read(path, policies=policies)
    with pytest.warns(UserWarning, match="policy: sform"):
        array, meta = read(path, policies={"forms": "sform"})
    np.testing.assert_array_equal(array, voxels())
    np.testing.assert_allclose(meta["affine"], OBLIQUE, atol=1e-5)
    data[254:256] = bytes(2)
    path.write_bytes(data)
    with pytest.raises(NiftiError, match="a qform that can be computed"):
        read(path)


@pytest.fixture
def four(tmp_path):
    """Four volumes, two seconds apart."""
    image = nib.Nifti1Image(np.arange(4 * 24, dtype=np.int16).reshape(2, 3, 4, 4), np.eye(4))
    image.header.set_xyzt_units("mm", "msec")
    image.header.set_zooms((1, 1, 1, 2000))
    nib.save(image, tmp_path / "a.nii.gz")
    return tmp_path / "a.nii.gz"


def volumes_of(path, volume="all"):
    reader = CheckedNiftiReader(volume=volume)
    return json.loads(reader.get_data(reader.read(path))[1]["volumes"])


def test_what_tells_volumes_apart_is_in_the_metadata(four):
    assert volumes_of(four) == {"dimension": "time", "unit": "s", "values": [0, 2, 4, 6], "also": {}, "of": 4}
    four.with_name("a.json").write_text(json.dumps({"RepetitionTime": 3, "PatientName": "Doe"}))
    assert volumes_of(four)["values"] == [0, 3, 6, 9]
    four.with_name("a.json").write_text(json.dumps({"VolumeTiming": [0, 1, 5, 6]}))
    assert volumes_of(four, 2)["values"] == [5]
    four.with_name("a.bval").write_text("0 1000 1000 2000\n")
    assert volumes_of(four) == {
        "dimension": "DiffusionBValue",
        "unit": "s/mm2",
        "values": [0, 1000, 1000, 2000],
        "also": {},
        "of": 4,
    }


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.bval", "0 1000"),
        ("a.bval", "0 1000 nan 3"),
        ("a.bval", "Doe"),
        ("a.json", "no json"),
        ("a.json", "[" * 100_000),
        ("a.json", '{"VolumeTiming": [1, 2]}'),
        ("a.json", '{"RepetitionTime": "Doe"}'),
        ("a.json", "[1]"),
    ],
)
def test_a_file_beside_that_is_damaged_or_of_another_number_is_refused_by_name(four, name, content):
    four.with_name(name).write_text(content)
    with pytest.raises(NiftiError, match=rf"^{name}: expected") as caught:
        volumes_of(four)
    assert "Doe" not in str(caught.value)
