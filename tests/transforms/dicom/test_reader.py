"""DicomSeriesReader against independent oracles: pydicom's pixel data with its LUTs applied, and ITK's geometry."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from monai.data import DataLoader, Dataset
from monai.transforms import LoadImaged
from pydicom.dataelem import RawDataElement
from pydicom.pixels import apply_color_lut, apply_modality_lut
from pydicom.uid import DeflatedExplicitVRLittleEndian
from transforms.phantoms import PATIENT, SECRETS, new_dataset, save, set_pixels, voxels, write_series
from transforms.reading import read, read_with_itk

from monai_medmerge.errors import DicomSeriesError, SettingError
from monai_medmerge.transforms import DicomSeriesReader, list_series
from monai_medmerge.transforms.dicom import headers as dicom_headers

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


def expected_values(dataset: pydicom.Dataset) -> np.ndarray:
    """pydicom's pixel data with palette, modality LUT or rescaling and dose scaling, in axes (x, y, z[, RGB])."""
    pixels = dataset.pixel_array
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, dataset)
    elif dataset.SamplesPerPixel == 1:
        pixels = apply_modality_lut(pixels, dataset) * float(dataset.get("DoseGridScaling", 1))
    color = (pixels.shape[-1] == 3 and dataset.Columns != 3) or dataset.PhotometricInterpretation != "MONOCHROME2"
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
        if folder.name in refused and len(series.headers) > 1:
            with pytest.raises(DicomSeriesError, match=refused[folder.name]):
                read(folder, series_uid=series.digest)
            continue
        array, meta = read(folder, series_uid=series.digest)
        # In a folder of several series only those of one file get this far.
        alone = len(list_series(folder)) == 1
        itk_array, itk_meta = read_with_itk(folder if alone else series.headers[0].path)
        np.testing.assert_allclose(array, itk_array, rtol=1e-6)
        np.testing.assert_allclose(meta["affine"], itk_meta["affine"], atol=1e-4)


def test_a_folder_of_several_series_is_refused_with_their_list():
    folder = next(path for path in FOLDERS if path.name == "MR1")
    with pytest.raises(DicomSeriesError, match=r"found 3, choose by .*: (\w{10} \(MR, 1 file, 16x16\)(; )?){3}"):
        read(folder)


def test_a_printed_list_of_series_is_short_and_names_no_uid():
    found = list_series(next(path for path in FOLDERS if path.name == "MR1"))
    printed = str(found)
    assert all(series.digest in printed and series.uid not in printed for series in found)
    assert len(printed) < 100 * len(found)


def test_objects_without_pixels_and_folders_without_images_are_refused():
    tiny = next(path for path in FOLDERS if path.name == "TINY_ALPHA")
    with pytest.raises(DicomSeriesError, match="DICOM files"):
        read(tiny)
    with pytest.raises(DicomSeriesError, match="CT Image Storage without Rows"):
        read(tiny / "PT000000/ST000000/SE000000")


@pytest.mark.parametrize("series", ["11-T1post-18670", "36468-FLAIRreg-58706", "../Study1/13_HCropVolume"])
def test_real_series_equal_itk(series):
    folder = real_study() / series
    array, meta = read(folder)
    itk_array, itk_meta = read_with_itk(folder)
    np.testing.assert_array_equal(array, itk_array)
    np.testing.assert_allclose(meta["affine"], itk_meta["affine"], atol=1e-4)


def test_two_real_series_in_one_folder_are_refused_without_a_choice_and_right_with_one(tmp_path):
    folders = [real_study() / name for name in ("11-T1post-18670", "36468-FLAIRreg-58706")]
    for folder in folders:
        for path in folder.iterdir():
            (tmp_path / f"{folder.name}-{path.name}").symlink_to(path)
    with pytest.raises(DicomSeriesError, match="expected one series, found 2"):
        read(tmp_path)
    for folder, description in zip(folders, ("t1|post", "flair"), strict=True):
        expected, meta = read(folder)
        array, chosen = read(tmp_path, description=description)
        np.testing.assert_array_equal(array, expected)
        np.testing.assert_array_equal(chosen["affine"], meta["affine"])


def real_study() -> Path:
    if not os.environ.get("MEDMERGE_DATA"):
        pytest.skip("MEDMERGE_DATA does not name a folder of real series")
    return Path(os.environ["MEDMERGE_DATA"]) / "dicom/Study3"


def test_load_imaged_takes_the_reader_by_its_dotted_path_and_never_falls_back(tmp_path):
    write_series(tmp_path / "good", voxels())
    write_series(tmp_path / "bad", voxels(), origin=(0, 0, 0))
    next((tmp_path / "bad").iterdir()).write_bytes(b"no DICOM")
    load = LoadImaged(keys="image", reader="monai_medmerge.transforms.DicomSeriesReader", ensure_channel_first=True)
    image = load({"image": str(tmp_path / "good")})["image"]
    assert image.shape == (1, 10, 8, 6)
    np.testing.assert_array_equal(image[0].numpy(), voxels().T.astype(np.float32) - 1024)
    with pytest.raises(DicomSeriesError, match="as its name says"):
        load({"image": str(tmp_path / "bad")})


def test_images_of_different_kinds_collate_in_one_batch(tmp_path):
    write_series(tmp_path / "a", voxels(seed=1))
    write_series(tmp_path / "b", voxels(seed=2), WindowCenter=[40, 50], WindowWidth=[400, 500])
    load = LoadImaged(keys="image", reader="monai_medmerge.transforms.DicomSeriesReader")
    data = Dataset([{"image": str(tmp_path / name)} for name in "ab"], load)
    batch = next(iter(DataLoader(data, batch_size=2)))["image"]
    assert batch.shape == (2, 10, 8, 6)
    assert batch.meta["voi"][1] != batch.meta["voi"][0]


def test_nothing_of_the_patient_leaves_the_reader(tmp_path, caplog, capsys, recwarn):
    """A planted name, id and dates are in no metadata, error, warning, log or output, even of damaged files."""
    damaged = ("PixelSpacing", "RescaleSlope", "WindowCenter", "PhotometricInterpretation", "SOPClassUID", "Rows")
    texts = {"RescaleType": PATIENT, "SeriesDescription": PATIENT, "WindowCenter": 1, "WindowWidth": 9}
    paths = write_series(tmp_path / "series", voxels(), **texts)
    for keyword in damaged:
        dataset = pydicom.dcmread(paths[0])
        raw = PATIENT.encode() + b" "
        dataset[keyword] = RawDataElement(dataset[keyword].tag, "LO", len(raw), raw, 0, False, True, True)
        save(dataset, tmp_path / f"{keyword}.dcm")

    caplog.set_level(logging.DEBUG)
    caplog.clear()
    recwarn.clear()
    warnings.simplefilter("always")
    _, meta = read(tmp_path / "series", salt="s")
    said = [repr(meta)]
    for keyword in damaged:
        path = tmp_path / f"{keyword}.dcm"
        if keyword == "SOPClassUID":
            said.append(repr(read(path)))
            continue
        with pytest.raises(DicomSeriesError, match=keyword) as error:
            read(path)
        said.append(repr([error.value, error.value.__context__, error.value.__cause__]))
    said += [record.getMessage() for record in caplog.records] + [str(warning.message) for warning in recwarn]
    said += list(capsys.readouterr())
    for secret in SECRETS:
        assert not any(secret in text for text in said), secret
    assert {"series_hash", "study_hash"} <= meta.keys()


def test_settings_that_are_not_understood_are_refused():
    with pytest.raises(SettingError, match="gap, duplicate, tilt"):
        DicomSeriesReader(policies={"gaps": "warn"})
    with pytest.raises(SettingError, match="error, repair"):
        DicomSeriesReader(policies={"duplicate": "warn"})
    with pytest.raises(SettingError, match="monochrome1"):
        DicomSeriesReader(monochrome1="flip")


def test_a_huge_image_is_refused_before_anything_is_allocated(tmp_path):
    dataset = new_dataset()
    set_pixels(dataset, voxels()[0])
    dataset.Rows = dataset.Columns = 65535
    dataset.NumberOfFrames = 2**30
    with pytest.raises(DicomSeriesError, match="max_bytes"):
        read(save(dataset, tmp_path / "huge.dcm"))


def test_a_deflated_file_that_inflates_without_end_is_refused(tmp_path, monkeypatch):
    dataset = new_dataset()
    set_pixels(dataset, voxels((40, 200, 200)) * 0)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = save(dataset, tmp_path / "deflated.dcm")
    assert path.stat().st_size < 10_000
    monkeypatch.setattr(dicom_headers, "_MAX_INFLATED", 2**20)
    with pytest.raises(DicomSeriesError, match="after inflation"):
        read(path)


@pytest.mark.parametrize("name", ["IM{:04d}", "1.2.840.{}", "{}.dcm"])
@pytest.mark.parametrize("keep", [0, 100])
def test_a_damaged_slice_at_the_end_of_a_series_is_refused(tmp_path, name, keep):
    for path in write_series(tmp_path, voxels()):
        path.rename(tmp_path / name.format(int(path.stem)))
    (tmp_path / "readme.txt").write_text("passed over")
    (tmp_path / "._IM0009").write_bytes(b"of another system")
    reader = DicomSeriesReader()
    assert reader.get_data(reader.read(tmp_path))[0].shape == (10, 8, 6)
    last = reader.locate(tmp_path).frames[-1].header.path
    last.write_bytes(last.read_bytes()[:keep])
    with pytest.raises(DicomSeriesError, match=rf"^{last.name}: expected a DICOM file, as its name says"):
        reader.get_data(reader.read(tmp_path))
