"""Thousands of damaged files: only this package's errors, nothing slower than five seconds, and no crash."""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from transforms.mutations import mutate
from transforms.phantoms import voxels, write_enhanced_ct

from monai_medmerge.errors import MedMergeError
from monai_medmerge.transforms import CheckedNiftiReader, DicomSeriesReader

LONGEST_SECONDS = 5


def read_all(reader, mutants, path):
    """Read every mutant; return how many were read and the errors of the rest."""
    intact, errors = 0, []
    for data in mutants:
        path.write_bytes(data)
        start = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                array, meta = reader.get_data(reader.read(path))
        except MedMergeError as error:
            errors.append(str(error))
        else:
            intact += 1
            assert np.isfinite(meta["affine"]).all()
            assert array.size > 0
        assert time.perf_counter() - start < LONGEST_SECONDS
    return intact, errors


def test_two_thousand_mutated_dicom_files(tmp_path):
    folder = Path(pydicom.__file__).parent / "data/test_files"
    originals = [path.read_bytes() for path in sorted(folder.glob("*.dcm")) if path.stat().st_size < 100_000]
    enhanced = write_enhanced_ct(tmp_path / "enhanced.dcm", voxels(), [3, 0, 5, 1, 4, 2], [1] * 6, [0] * 6)
    originals += [enhanced.read_bytes()] * 3
    policies = {"gap": "repair", "tilt": "repair", "duplicate": "repair", "localizer": "repair", "unlocated": "warn"}
    reader = DicomSeriesReader(policies=policies)
    intact, errors = read_all(reader, mutate(originals, 2000, seed=20), tmp_path / "mutant.dcm")
    # Damage to a private or a patient's element leaves the image intact; most other damage must be noticed.
    assert intact > 100
    assert len(errors) > 1000
    assert all(message.startswith("mutant.dcm") for message in errors)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_mutated_nifti_files(tmp_path, suffix):
    originals = []
    for number, (dtype, shape) in enumerate([("int16", (9, 8, 7)), ("float32", (5, 6, 7, 2)), ("uint8", (12, 11, 10))]):
        image_class = nib.Nifti2Image if number == 2 else nib.Nifti1Image
        image = image_class(voxels(shape).astype(dtype) if len(shape) == 3 else np.ones(shape, dtype), np.eye(4))
        image.header.set_xyzt_units("mm")
        image.header.set_slope_inter(*((2, 5) if number == 0 else (None, None)))
        nib.save(image, tmp_path / f"original{suffix}")
        originals.append((tmp_path / f"original{suffix}").read_bytes())
    reader = CheckedNiftiReader(volume="all", policies={"forms": "qform", "no_form": "warn", "units": "repair"})
    mutants = mutate(originals, 250, seed=21, head=400)
    intact, errors = read_all(reader, mutants, tmp_path / f"mutant{suffix}")
    assert intact > (50 if suffix == ".nii" else 0)
    assert len(errors) > 50
