from __future__ import annotations

import struct
import tracemalloc
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import DataLoader, Dataset
from monai.transforms import Compose, LoadImaged
from PIL import Image
from transforms.phantoms import new_secondary_capture, save, voxels, write_series

from monai_medmerge.errors import DatasetError, DicomSeriesError, MedMergeError, NiftiError
from monai_medmerge.transforms import (
    CheckedNiftiReader,
    DicomSeriesReader,
    MedicalImageReader,
    NormalizePhotometricd,
)

READER = "monai_medmerge.transforms.MedicalImageReader"
GRAY = voxels(high=256)[0].astype(np.uint8)


def read(path):
    reader = MedicalImageReader()
    return reader.get_data(reader.read(path))


def test_pictures_and_single_frames_have_the_same_axes(tmp_path):
    Image.fromarray(GRAY).save(tmp_path / "a.png")
    save(new_secondary_capture(GRAY, "MONOCHROME2"), tmp_path / "b.dcm")
    for name in ("a.png", "b.dcm"):
        array, meta = read(tmp_path / name)
        np.testing.assert_array_equal(array, GRAY.T)
        assert tuple(meta["spatial_shape"]) == (10, 8)
        assert meta["affine"].shape == (4, 4)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "jpg"])
def test_formats_are_told_by_content_whatever_the_suffix(tmp_path, suffix):
    Image.fromarray(np.full((8, 10, 3), 77, np.uint8)).save(tmp_path / f"a.{suffix}")
    (tmp_path / f"a.{suffix}").rename(tmp_path / "a.dat")
    array, meta = read(tmp_path / "a.dat")
    np.testing.assert_allclose(array, np.full((10, 8, 3), 77), atol=1)
    assert meta["photometric_interpretation"] == "RGB"


@pytest.mark.parametrize("mode", ["P", "1", "LA", "RGBA", "CMYK"])
def test_palettes_alpha_and_bits_become_gray_or_rgb(tmp_path, mode):
    suffix = "tif" if mode == "CMYK" else "png"
    Image.fromarray(np.full((8, 10, 3), 255, np.uint8)).convert(mode).save(tmp_path / f"a.{suffix}")
    array, _ = read(tmp_path / f"a.{suffix}")
    assert array.shape == ((10, 8) if mode in ("1", "LA") else (10, 8, 3))
    assert array.min() > 250


def test_a_mixed_folder_becomes_batches(tmp_path):
    Image.fromarray(GRAY).save(tmp_path / "a.png")
    Image.fromarray(np.stack([GRAY] * 3, axis=-1)).save(tmp_path / "b.png")
    save(new_secondary_capture(GRAY, "MONOCHROME2"), tmp_path / "c.dcm")
    save(new_secondary_capture(255 - GRAY, "MONOCHROME1"), tmp_path / "d.dcm")
    load = Compose([LoadImaged("image", reader=READER, ensure_channel_first=True), NormalizePhotometricd("image")])
    data = Dataset([{"image": str(path)} for path in sorted(tmp_path.iterdir())], load)
    batch = next(iter(DataLoader(data, batch_size=4)))["image"]
    np.testing.assert_allclose(batch.numpy(), np.stack([GRAY.T[None]] * 4), atol=1e-3)


def test_series_and_nifti_are_volumes(tmp_path):
    write_series(tmp_path / "series", voxels())
    nib.save(nib.Nifti1Image(voxels().T, np.diag([1, 2, 3, 1])), tmp_path / "a.nii.gz")
    series, _ = read(tmp_path / "series")
    nifti, meta = read(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(series + 1024, nifti)
    assert meta["spacing"].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("a.png", b"\x89PNG\r\n\x1a\nbroken", DatasetError),
        ("a.png", b"", DatasetError),
        ("a.txt", b"text", DatasetError),
        ("a.dcm", bytes(128) + b"DICMbroken", DicomSeriesError),
        ("a.nii.gz", b"\x1f\x8bbroken", NiftiError),
    ],
)
def test_damaged_files_are_refused_by_name_even_through_load_imaged(tmp_path, name, content, error):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=f"^{name}"):
        LoadImaged("image", reader=READER)({"image": str(tmp_path / name)})


def test_a_truncated_picture_and_an_absent_file_are_refused(tmp_path):
    Image.fromarray(voxels((1, 64, 64), high=256)[0].astype(np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:2000])
    with pytest.raises(DatasetError, match=r"^a\.png"):
        read(tmp_path / "a.png")
    with pytest.raises(MedMergeError, match=r"^none\.png"):
        read(tmp_path / "none.png")


def png_of_16_bits(colour_type, samples):
    """A PNG of 8x10 pixels of 16 bits, put together by hand: Pillow writes no such colours."""
    rows = np.full((8, 10 * samples), 1000, ">u2")
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    chunks = (b"IHDR", struct.pack(">IIBBBBB", 10, 8, 16, colour_type, 0, 0, 0)), (b"IDAT", pixels), (b"IEND", b"")
    return png_of(chunks)


def png_of(chunks):
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def empty_png(width, height):
    """A PNG whose header claims a size, and whose pixels are zeros of that size, packed a thousandfold."""
    packer = zlib.compressobj(9)
    row = bytes(1 + 3 * width)
    data = b"".join([*(packer.compress(row) for _ in range(height)), packer.flush()])
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return png_of(chunks)


@pytest.mark.parametrize("size", [(13_000, 13_000), (60_000, 60_000)])
def test_a_small_file_that_claims_a_huge_picture_is_refused_before_it_is_decoded(tmp_path, size):
    small = empty_png(10, 8)
    claim = b"IHDR" + struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(small[:12] + claim + struct.pack(">I", zlib.crc32(claim)) + small[33:])
    tracemalloc.start()
    with pytest.raises(DatasetError, match=r"^a\.png: expected at most 89478485 pixels \(max_pixels\), found"):
        read(tmp_path / "a.png")
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_the_limit_of_pixels_is_a_setting(tmp_path):
    (tmp_path / "a.png").write_bytes(empty_png(100, 80))
    reader = MedicalImageReader(picture={"max_pixels": 8000})
    assert reader.get_data(reader.read(tmp_path / "a.png"))[0].shape == (100, 80, 3)
    reader = MedicalImageReader(picture={"max_pixels": 7999})
    with pytest.raises(DatasetError, match=r"expected at most 7999 pixels .*, found 100 x 80"):
        reader.get_data(reader.read(tmp_path / "a.png"))


@pytest.mark.parametrize("name", ["x" * 5000, "a\nb\x1b[31m.png", "\udcff\udcfe.png", "nul\0.png"])
@pytest.mark.parametrize("reader_class", [MedicalImageReader, DicomSeriesReader, CheckedNiftiReader])
@pytest.mark.parametrize("exists", [False, True])
def test_names_of_any_letters_give_one_line_of_ours(tmp_path, name, reader_class, exists):
    if exists:
        try:
            (tmp_path / name).write_bytes(b"no image")
        except (OSError, ValueError):
            pytest.skip("no such name can be")
    reader = reader_class()
    with pytest.raises(MedMergeError) as caught:
        reader.get_data(reader.read(tmp_path / name))
    said = str(caught.value)
    assert said.isprintable()
    assert said.encode()
    assert len(said) < 600
    assert str(tmp_path) not in said


@settings(deadline=None)
@given(st.text(max_size=300))
def test_any_name_gives_one_line_of_ours(name):
    with pytest.raises(MedMergeError) as caught:
        read(Path("none") / f"{name}.none")
    assert str(caught.value).isprintable()


def test_16_bits_are_read_in_gray_and_refused_in_colour(tmp_path):
    (tmp_path / "a.png").write_bytes(png_of_16_bits(0, 1))
    assert np.unique(read(tmp_path / "a.png")[0]).tolist() == [1000]
    # RGB, gray and RGB with alpha.
    for colour_type, samples in ((2, 3), (4, 2), (6, 4)):
        (tmp_path / "a.png").write_bytes(png_of_16_bits(colour_type, samples))
        with pytest.raises(DatasetError, match=r"^a\.png: expected colours of 8 bits"):
            read(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_several_pages_are_refused(tmp_path, suffix):
    first, *others = (Image.fromarray(np.full((8, 10), n, np.uint8)) for n in range(3))
    first.save(tmp_path / f"a.{suffix}", save_all=True, append_images=others)
    with pytest.raises(DatasetError, match=rf"^a\.{suffix}: expected a picture of one page, found 3"):
        read(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize(("orientation", "turned"), [(1, GRAY), (3, GRAY[::-1, ::-1]), (6, np.rot90(GRAY, -1))])
def test_pictures_stand_as_exif_says(tmp_path, orientation, turned):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(GRAY).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read(tmp_path / "a.png")[0], turned.T)


def test_pixels_that_are_not_finite_are_refused_or_kept(tmp_path):
    pixels = GRAY.astype(np.float32)
    pixels[2, 3] = np.nan
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    with pytest.raises(DatasetError, match="expected finite values, found 1 of 80"):
        read(tmp_path / "a.tif")
    reader = MedicalImageReader(picture={"policies": {"nonfinite": "warn"}})
    with pytest.warns(UserWarning, match="policy: warn"):
        np.testing.assert_array_equal(reader.get_data(reader.read(tmp_path / "a.tif"))[0], pixels.T)
