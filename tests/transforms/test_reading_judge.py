"""The judge of `benchmarks.reading` finds what is wrong with a reading, and passes what is right."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from transforms.phantoms import oblique, voxels, write_enhanced_ct, write_series

from benchmarks.reading import Case, find_cases, judge, read, verdicts


@pytest.fixture(params=["series", "enhanced", "nifti", "mgz"])
def case(request, tmp_path):
    orientation, normal = oblique(20)
    if request.param == "series":
        write_series(tmp_path, voxels(), orientation, np.multiply(normal, 2.5))
    elif request.param == "enhanced":
        write_enhanced_ct(tmp_path / "a.dcm", voxels(), [3, 1, 5, 0, 2, 4], range(1, 7), range(6))
    else:
        kind = nib.Nifti1Image if request.param == "nifti" else nib.MGHImage
        image = kind(voxels().T.astype(np.int16), np.diag([2, 1, 3, 1.0]))
        nib.save(image, tmp_path / f"a.{'nii.gz' if request.param == 'nifti' else 'mgz'}")
    (found,) = find_cases(tmp_path, each=False)
    return found


def test_what_is_right_is_found_right_and_what_is_turned_moved_or_scaled_is_not(case: Case):
    array, meta = read(case)
    assert judge(array, meta, case) == "right"
    moved = np.array(meta["affine"])
    moved[:3, 3] += moved[:3, 2]
    assert judge(array[:, :, ::-1], meta, case) != "right"
    assert judge(array[::-1], meta, case) != "right"
    assert judge(array * 2, meta, case) != "right"
    assert judge(array, {**meta, "affine": moved}, case) != "right"
    assert verdicts(case) == [("right", "")]
