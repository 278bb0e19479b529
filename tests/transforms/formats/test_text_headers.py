"""NRRD and MetaImage, against ITK, which shares no code with the readers."""

from __future__ import annotations

import gzip

import itk
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transforms.formats.volumes import read, said
from transforms.mutations import mutate
from transforms.phantoms import oblique, voxels

from monai_medmerge.errors import MedMergeError, VolumeError
from monai_medmerge.transforms import MedicalImageReader


def write_with_itk(path, array, degrees=0.0, packed=False):
    """Write (z, y, x) voxels with ITK, turned, and return their affine to RAS."""
    image = itk.image_from_array(array)
    axes, normal = oblique(degrees)
    direction = np.stack([axes[:3], axes[3:], normal], axis=1)
    image.SetDirection(direction)
    image.SetSpacing([0.5, 0.75, 2.0])
    image.SetOrigin([10.0, -20.0, 30.0])
    itk.imwrite(image, str(path), compression=packed)
    affine = np.eye(4)
    affine[:3, :3] = direction * [0.5, 0.75, 2.0]
    affine[:3, 3] = [10, -20, 30]
    return np.diag([-1, -1, 1, 1]) @ affine


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("degrees", [0, 25])
@pytest.mark.parametrize("kind", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("suffix", ["nrrd", "nhdr", "mha", "mhd"])
def test_values_and_places_are_those_that_itk_wrote(tmp_path, suffix, kind, degrees, packed):
    volume = voxels(high=250).astype(kind)
    affine = write_with_itk(tmp_path / f"a.{suffix}", volume, degrees, packed)
    array, meta = read(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(array, volume.T)
    assert array.dtype == np.dtype(kind)
    np.testing.assert_allclose(meta["affine"], affine, atol=1e-5)


NRRD = "NRRD0004\ntype: {type}\ndimension: 3\nsizes: 4 3 2\nendian: {endian}\nencoding: {encoding}\n{more}\n"
PLACED = "space: {}\nspace directions: (1,0,0) (0,2,0) (0,0,3)\nspace origin: (10,20,30)\n"
VALUES = np.arange(24).reshape(2, 3, 4)


def write_nrrd(path, more, kind="short", values=VALUES, dtype="<i2", encoding="raw", endian="little"):
    data = values.astype(dtype).tobytes()
    header = NRRD.format(type=kind, endian=endian, encoding=encoding, more=more)
    path.write_bytes(header.encode() + (gzip.compress(data) if encoding == "gzip" else data))
    return path


@pytest.mark.parametrize(
    ("space", "signs"),
    [("left-posterior-superior", (-1, -1, 1)), ("RAS", (1, 1, 1)), ("left-anterior-superior", (-1, 1, 1))],
)
@pytest.mark.parametrize(("dtype", "endian"), [("<i2", "little"), (">i2", "big")])
@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_spaces_and_byte_orders_are_those_of_itk(tmp_path, space, signs, dtype, endian, encoding):
    path = write_nrrd(tmp_path / "a.nrrd", PLACED.format(space), dtype=dtype, encoding=encoding, endian=endian)
    array, meta = read(path)
    np.testing.assert_array_equal(array, VALUES.T)
    np.testing.assert_allclose(
        meta["affine"], np.diag([*signs, 1]) @ [[1, 0, 0, 10], [0, 2, 0, 20], [0, 0, 3, 30], [0, 0, 0, 1]]
    )
    image = itk.imread(str(path))
    np.testing.assert_array_equal(itk.array_from_image(image), VALUES)
    lps = np.diag([-1, -1, 1]) @ meta["affine"][:3]
    np.testing.assert_allclose(lps[:, 3], list(image.GetOrigin()))
    np.testing.assert_allclose(lps[:, :3], itk.array_from_matrix(image.GetDirection()) * list(image.GetSpacing()))


def test_signed_bytes_are_read(tmp_path):
    write_nrrd(tmp_path / "a.nrrd", PLACED.format("RAS"), "signed char", -VALUES, "i1")
    np.testing.assert_array_equal(read(tmp_path / "a.nrrd")[0], -VALUES.T)


@pytest.mark.parametrize("first", [True, False])
def test_volumes_are_chosen_whichever_axis_they_are_in(tmp_path, first):
    values = np.arange(5 * 24).reshape(2, 3, 4, 5) if first else np.arange(5 * 24).reshape(5, 2, 3, 4)
    axes = ["(1,0,0)", "(0,2,0)", "(0,0,3)"]
    kinds, sizes = (["domain"] * 3, [4, 3, 2])
    at = 0 if first else 3
    axes.insert(at, "none"), kinds.insert(at, "vector"), sizes.insert(at, 5)
    header = (
        f"NRRD0005\ntype: int16\ndimension: 4\nspace: LPS\nsizes: {' '.join(map(str, sizes))}\n"
        f"space directions: {' '.join(axes)}\nkinds: {' '.join(kinds)}\nendian: little\nencoding: raw\n"
        "space origin: (0,0,0)\nDWMRI_b-value:=1000\n# a comment\n\n"
    )
    (tmp_path / "a.nrrd").write_bytes(header.encode() + values.astype("<i2").tobytes())
    with pytest.raises(VolumeError, match=r"^a\.nrrd: expected one volume, found 4x3x2x5: choose with volume=0 to 4"):
        read(tmp_path / "a.nrrd")
    wanted = np.moveaxis(values.T, 0, -1) if first else values.T
    np.testing.assert_array_equal(read(tmp_path / "a.nrrd", volume="all")[0], wanted)
    np.testing.assert_array_equal(read(tmp_path / "a.nrrd", volume=3)[0], wanted[..., 3])


@pytest.mark.parametrize("suffix", ["nrrd", "mha"])
def test_colours_are_a_last_axis(tmp_path, suffix):
    colours = voxels((2, 3, 12), high=256).astype(np.uint8).reshape(2, 3, 4, 3)
    itk.imwrite(itk.image_from_array(colours, is_vector=True), str(tmp_path / f"a.{suffix}"))
    array, _ = read(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(array, np.moveaxis(colours, (0, 1, 2), (2, 1, 0)))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("", "a place and an orientation in the patient, found none"),
        (
            "space: scanner-xyz\nspace directions: (1,0,0) (0,1,0) (0,0,1)\n",
            "a place and an orientation in the patient",
        ),
        (PLACED.format("RAS").replace("(0,2,0)", "(2,0,0)"), "an affine that can be inverted"),
        (PLACED.format("RAS") + 'space units: "m" "m" "m"\n', "millimetres, found units of 1000 mm"),
        (PLACED.format("RAS").replace("(0,2,0)", "(0,nan,0)"), "3 finite numbers"),
        (PLACED.format("RAS") + "byte skip: 5\n", "voxels that follow the header"),
        (PLACED.format("RAS") + "data file: /etc/hostname\n", "the name of one file beside the header"),
        (PLACED.format("RAS") + "data file: ..\n", "a name that stays below its folder"),
        (PLACED.format("RAS") + "data file: LIST\n", "the name of one file beside the header"),
        (PLACED.format("RAS") + "data file: absent.raw\n", "a file of voxels beside the header"),
        (PLACED.format("RAS") + "sizes: 1 1 1\n", "fields, each once"),
        (PLACED.format("RAS") + "kinds: complex domain domain\n", None),
    ],
)
def test_what_a_header_lacks_or_says_wrongly_is_refused_by_name(tmp_path, more, said):
    write_nrrd(tmp_path / "a.nrrd", more)
    if said is None:
        assert read(tmp_path / "a.nrrd")[0].shape == (4, 3, 2)
        return
    with pytest.raises(VolumeError, match=rf"^a\.nrrd.*expected {said}"):
        read(tmp_path / "a.nrrd")


def test_policies_let_pass_what_can_be_right(tmp_path):
    write_nrrd(tmp_path / "a.nrrd", "spacings: 1 2 3\n")
    with pytest.warns(UserWarning, match="policy: warn"):
        array, meta = read(tmp_path / "a.nrrd", policies={"no_form": "warn"})
    assert meta["spacing"].tolist() == [1, 2, 3]
    write_nrrd(tmp_path / "b.nrrd", PLACED.format("RAS") + 'space units: "cm" "cm" "cm"\n')
    with pytest.warns(UserWarning, match="policy: repair"):
        array, meta = read(tmp_path / "b.nrrd", policies={"units": "repair"})
    assert meta["affine"].diagonal().tolist() == [10, 20, 30, 1]
    values = VALUES.astype(float)
    values[0, 0, 0] = np.nan
    write_nrrd(tmp_path / "c.nrrd", PLACED.format("RAS"), "float", values, "<f4")
    with pytest.raises(VolumeError, match="finite values, found 1 of 24"):
        read(tmp_path / "c.nrrd")
    with pytest.warns(UserWarning, match="policy: warn"):
        array, _ = read(tmp_path / "c.nrrd", policies={"nonfinite": "warn"})
    assert np.isnan(array[0, 0, 0])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("suffix", ["nrrd", "mha"])
def test_files_that_are_cut_and_claims_of_size_are_refused(tmp_path, suffix, packed):
    path = tmp_path / f"a.{suffix}"
    write_with_itk(path, voxels(), packed=packed)
    whole = path.read_bytes()
    for cut in (1, 10, 100):
        path.write_bytes(whole[:-cut])
        with pytest.raises(VolumeError, match=rf"^a\.{suffix}"):
            read(path)
    path.write_bytes(whole.replace(b"10 8 6", b"30000 30000 30000", 1))
    with pytest.raises(VolumeError, match=r"expected at most 4294967296 bytes"):
        read(path)
    path.write_bytes(whole)
    with pytest.raises(VolumeError, match="expected at most 900 bytes"):
        read(path, max_bytes=900)


@pytest.mark.parametrize(
    ("field", "said"),
    [
        (("TransformMatrix = 1 0 0 0 1 0 0 0 1\n", ""), "a place and an orientation in the patient"),
        (("Offset", "Ignored"), "a place and an orientation in the patient"),
        (("ElementDataFile = LOCAL", "ElementDataFile = ../a.raw"), "the name of one file beside the header"),
        (("ElementDataFile = LOCAL", "ElementDataFile = a%03d.raw 1 6 1"), "the name of one file beside the header"),
        (("BinaryData = True", "BinaryData = False"), "binary voxels"),
        (("ElementSpacing = 0.5", "ElementSpacing = -0.5"), "voxel sizes above zero"),
        (("MET_USHORT", "MET_OTHER"), "integer or real voxels"),
        (("NDims = 3", "NDims = 3\nElementToIntensityFunctionSlope = 2"), "values as they are stored"),
    ],
)
def test_a_metaimage_that_leaves_something_open_is_refused_by_name(tmp_path, field, said):
    write_with_itk(tmp_path / "a.mha", voxels())
    content = (tmp_path / "a.mha").read_bytes()
    (tmp_path / "a.mha").write_bytes(content.replace(*(part.encode() for part in field)))
    with pytest.raises(VolumeError, match=rf"^a\.mha.*expected {said}"):
        read(tmp_path / "a.mha")


@pytest.mark.parametrize("suffix", ["nrrd", "mha", "mhd", "nhdr"])
def test_the_reader_for_everything_takes_them_by_content(tmp_path, suffix):
    write_with_itk(tmp_path / f"a.{suffix}", voxels())
    reader = MedicalImageReader()
    array, meta = reader.get_data(reader.read(tmp_path / f"a.{suffix}"))
    np.testing.assert_array_equal(array, voxels().T)
    assert meta["modality"] == ""


@pytest.mark.parametrize("suffix", ["nrrd", "mha"])
def test_mutated_files_raise_only_our_errors(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    originals = []
    for packed in (False, True):
        write_with_itk(path, voxels(), packed=packed)
        originals.append(path.read_bytes())
    for data in mutate(originals, 300, seed=5, head=300):
        path.write_bytes(data)
        message = said(path)
        assert message.isprintable()
        assert str(tmp_path) not in message


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(text=st.text(max_size=200))
def test_any_text_after_the_magic_gives_one_line_of_ours(tmp_path, text):
    for magic in ("NRRD0004\n", "ObjectType = Image\n"):
        (tmp_path / "a.dat").write_bytes(magic.encode() + text.encode("utf-8", "surrogatepass"))
        with pytest.raises(MedMergeError) as caught:
            read(tmp_path / "a.dat")
        assert str(caught.value).isprintable()
