"""The codec's own process: a child that dies or hangs costs one frame, not the reader."""

from __future__ import annotations

import os
import signal

import numpy as np
import pydicom
import pytest
from monai.data import DataLoader, Dataset
from monai.transforms import LoadImaged
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLSLossless
from transforms.phantoms import new_secondary_capture, save
from transforms.reading import read

from monai_medmerge.errors import DicomSeriesError
from monai_medmerge.transforms.dicom.codecs import process as codec_process

COMPRESSED = get_testdata_file("MR_small_jp2klossless.dcm")


def test_a_child_that_was_killed_is_replaced():
    expected = pydicom.dcmread(get_testdata_file("MR_small.dcm")).pixel_array.T
    for _ in range(2):
        np.testing.assert_array_equal(read(COMPRESSED)[0][..., 0], expected)
        child = codec_process._child.process
        child.kill()
        child.wait()
    assert child.returncode == -signal.SIGKILL


def test_a_child_that_hangs_is_given_up_and_replaced(monkeypatch):
    read(COMPRESSED)
    monkeypatch.setattr(codec_process, "_SECONDS", 0.5)
    os.kill(codec_process._child.process.pid, signal.SIGSTOP)
    with pytest.raises(DicomSeriesError, match="dies or hangs"):
        read(COMPRESSED)
    monkeypatch.undo()
    assert read(COMPRESSED)[0].max() == 2145


def test_forked_workers_start_children_of_their_own():
    expected = read(COMPRESSED)[0]
    load = LoadImaged("image", reader="monai_medmerge.transforms.DicomSeriesReader")
    loader = DataLoader(Dataset([{"image": COMPRESSED}] * 4, load), batch_size=2, num_workers=2)
    for batch in loader:
        np.testing.assert_array_equal(batch["image"].numpy(), np.stack([expected] * 2))
    np.testing.assert_array_equal(read(COMPRESSED)[0], expected)


@pytest.mark.parametrize("bits", [6, 7])
def test_jpeg_ls_of_few_bits_is_what_the_decoder_lacks_and_no_damage(tmp_path, bits):
    pixels = np.random.default_rng(0).integers(0, 2**bits, (16, 16)).astype(np.uint8)
    dataset = new_secondary_capture(pixels, "MONOCHROME2")
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.compress(JPEGLSLossless, encoding_plugin="pyjpegls", generate_instance_uid=False)
    path = save(dataset, tmp_path / "a.dcm")
    with pytest.raises(DicomSeriesError, match=rf"JPEG-LS of 8 to 16 bits.*GDCM.*found {bits} bits"):
        read(path)


@pytest.mark.parametrize(
    "syntax",
    [
        *("1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.4.111", "1.2.840.10008.1.2.4.112"),  # JPEG XL
        *("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203"),  # HTJ2K
        *("1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.106", "1.2.840.10008.1.2.4.94"),  # MPEG-2, HEVC, JPIP
        "1.2.840.113619.5.2",  # of a vendor
    ],
)
def test_a_syntax_without_a_decoder_is_named(tmp_path, syntax):
    dataset = new_secondary_capture(np.zeros((16, 16), np.uint8), "MONOCHROME2")
    dataset.PixelData = encapsulate([b"\xff\x0a" + b"\0" * 30])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.201"
    path = save(dataset, tmp_path / "a.dcm")
    # pydicom writes no syntax that it does not know.
    path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.4.201\0", syntax.encode().ljust(24, b"\0")))
    with pytest.raises(DicomSeriesError, match=f"a transfer syntax that is supported.*found {syntax}"):
        read(path)


@pytest.mark.parametrize(("stored", "clipped"), [(8, True), (7, False)])
def test_lossy_compression_that_overshoots_is_clipped_and_a_wrong_header_is_not(tmp_path, stored, clipped):
    """JPEG of 12 bits whose highest value, 264, is little above 8 bits and far above 7."""
    path = get_testdata_file("JPGExtended.dcm")
    expected = read(path)[0]
    assert expected.max() == 264
    dataset = pydicom.dcmread(path)
    dataset.BitsStored, dataset.HighBit = stored, stored - 1
    dataset.save_as(tmp_path / "a.dcm")
    if clipped:
        np.testing.assert_array_equal(read(tmp_path / "a.dcm")[0], np.minimum(expected, 255))
    else:
        with pytest.raises(DicomSeriesError, match="values of 7 bits"):
            read(tmp_path / "a.dcm")
