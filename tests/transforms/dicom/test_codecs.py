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
