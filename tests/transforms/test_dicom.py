"""DicomSeriesReader against independent oracles: pydicom's pixel data with its LUTs applied, and ITK's geometry."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from monai.data import DataLoader, Dataset, ITKReader
from monai.transforms import LoadImaged
from pydicom.data import get_testdata_file
from pydicom.pixels import apply_color_lut, apply_modality_lut
from transforms.phantoms import (
    SECRETS,
    lookup_table,
    new_dataset,
    new_secondary_capture,
    oblique,
    save,
    set_pixels,
    voxels,
    write_enhanced_ct,
    write_series,
)

from monai_medmerge.errors import DicomSeriesError, MedMergeError, SettingError
from monai_medmerge.transforms import DicomSeriesReader, list_series

FILES = sorted((Path(pydicom.__file__).parent / "data/test_files").glob("*.dcm"))
FOLDERS = sorted(path for path in (FILES[0].parent / "dicomdirtests").rglob("*") if path.is_dir())

# Objects that are no images or are damaged, and a word of the reason that the error gives.
REFUSED = {
    "ExplVR_BigEndNoMeta.dcm": "Part 10",
    "ExplVR_LitEndNoMeta.dcm": "Part 10",
    "JPEG2000-embedded-sequence-delimiter.dcm": "codestream",
    "MR_truncated.dcm": "8192 bytes",
    "UN_sequence.dcm": "Rows",
    "badVR.dcm": "NumberOfFrames",
    "empty_charset_LEI.dcm": "Rows",
    "liver_1frame.dcm": "segmentation",
    "liver_expb_1frame.dcm": "segmentation",
    "meta_missing_tsyntax.dcm": "Rows",
    "nested_priv_SQ.dcm": "Rows",
    "no_meta.dcm": "Part 10",
    "no_meta_group_length.dcm": "Rows",
    "priv_SQ.dcm": "Rows",
    "reportsi.dcm": "SR Storage without Rows",
    "reportsi_with_empty_number_tags.dcm": "SR Storage without Rows",
    "rtplan.dcm": "RT Plan Storage without Rows",
    "rtplan_truncated.dcm": "RT Plan Storage without Rows",
    "rtstruct.dcm": "Part 10",
    "test-SR.dcm": "SR Storage without Rows",
    "waveform_ecg.dcm": "Waveform Storage without Rows",
}


def read(path, **arguments):
    reader = DicomSeriesReader(**arguments)
    return reader.get_data(reader.read(path))


def read_with_itk(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader = ITKReader()
        return reader.get_data(reader.read(path))


def expected_values(dataset: pydicom.Dataset) -> np.ndarray:
    """pydicom's pixel data with palette, modality LUT or rescaling and dose scaling, in axes (x, y, z[, RGB])."""
    pixels = dataset.pixel_array
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, dataset)
    elif dataset.SamplesPerPixel == 1:
        pixels = apply_modality_lut(pixels, dataset) * float(dataset.get("DoseGridScaling", 1))
    color = pixels.shape[-1] == 3 and dataset.Columns != 3 or dataset.PhotometricInterpretation != "MONOCHROME2"
    if pixels.ndim == (3 if color else 2):
        pixels = pixels[None]
    return np.moveaxis(pixels, (0, 1, 2), (2, 1, 0))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_pydicom_file_is_read_right_or_refused_with_a_reason(path):
    if path.name in REFUSED:
        with pytest.raises(DicomSeriesError, match=REFUSED[path.name]) as error:
            read(path)
        assert path.name in str(error.value)
        assert str(path.parent) not in str(error.value)
        return
    array, meta = read(path)
    if path.name in ("JPEG-lossy.dcm", "JPGExtended.dcm"):
        # pydicom has no decoder for JPEG of 12 bits; ITK has its own.
        np.testing.assert_array_equal(array, read_with_itk(path)[0])
    else:
        values = expected_values(pydicom.dcmread(path))
        assert array.shape == values.shape
        np.testing.assert_allclose(array, values, rtol=1e-6)
    itk_affine = itk_affine_of(path)
    if itk_affine is not None:
        np.testing.assert_allclose(meta["affine"], itk_affine, atol=1e-4)


def itk_affine_of(path):
    """ITK's affine, None for the eight images that ITK cannot read: RGB of 16 or 32 bits and RTDOSE of one frame."""
    if path.name.startswith(("SC_rgb_rle_16bit", "SC_rgb_rle_32bit")) or path.stem.endswith("_1frame"):
        return None
    return read_with_itk(path)[1]["affine"]


def holds_images(folder):
    """Whether a folder holds files other than DICOMDIR, README and the IM files, whose pixels were taken out."""
    return any(path.is_file() and path.name[:2] not in ("DI", "RE", "IM") for path in folder.iterdir())


@pytest.mark.parametrize("folder", [folder for folder in FOLDERS if holds_images(folder)], ids=lambda path: path.name)
def test_every_series_of_the_dicomdir_tests_is_read_like_itk_or_refused(folder):
    """Values and affine equal ITK's, which inverts the three MONOCHROME1 radiographs among them over 12 bits."""
    # Scouts and stacks of several orientations, each with a word of the reason.
    refused = {"CT2": "evenly spaced", "CT2N": "one orientation", "MR700": "one orientation", "MR2": "one orientation"}
    for series in list_series(folder):
        try:
            array, meta = read(folder, series_uid=series.digest)
        except DicomSeriesError as error:
            assert refused[folder.name] in str(error)
            continue
        reader = ITKReader(series_name=series.uid)
        files = [str(header.path) for header in series.headers]
        itk_array, itk_meta = read_with_itk(folder) if len(list_series(folder)) == 1 else read_with_itk(files[0])
        np.testing.assert_allclose(array, itk_array, rtol=1e-6)
        np.testing.assert_allclose(meta["affine"], itk_meta["affine"], atol=1e-4)


def test_a_folder_of_several_series_is_refused_with_their_list():
    folder = next(path for path in FOLDERS if path.name == "MR1")
    with pytest.raises(DicomSeriesError, match=r"found 3, choose by .*: (\w{10} \(MR, 1 file, 16x16\)(; )?){3}"):
        read(folder)


def test_objects_without_pixels_and_folders_without_images_are_refused():
    tiny = next(path for path in FOLDERS if path.name == "TINY_ALPHA")
    with pytest.raises(DicomSeriesError, match="DICOM files"):
        read(tiny)
    with pytest.raises(DicomSeriesError, match="CT Image Storage without Rows"):
        read(tiny / "PT000000/ST000000/SE000000")
