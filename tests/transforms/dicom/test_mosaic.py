"""Siemens mosaics and United Imaging grids, against dcm2niix, nibabel and what the test wrote."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from nibabel.nicom.dicomwrappers import wrapper_from_file
from transforms.objects import write_mosaic, write_vframe
from transforms.phantoms import oblique, voxels
from transforms.reading import read

from monai_medmerge.errors import DicomSeriesError
from monai_medmerge.transforms import SegmentTable, list_series, write_seg

DCM2NIIX = shutil.which("dcm2niix") or shutil.which("dcm2niix", path=str(Path(sys.executable).parent))
REAL = Path(nib.__file__).parent / "nicom/tests/data/siemens_dwi_0.dcm.gz"


def in_order_of(reference, affine, other_affine):
    """The array with the axes of another affine: which voxels of `reference` lie where those of `affine` do."""
    shape = np.array(reference.shape[:3])
    to_other = np.linalg.inv(other_affine) @ affine
    indices = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).reshape(3, -1)
    places = to_other[:3, :3] @ indices + to_other[:3, 3:]
    assert abs(places - np.rint(places)).max() < 0.01
    return np.rint(places).astype(int)


def convert(folder, out):
    """Read with dcm2niix."""
    subprocess.run([DCM2NIIX, "-o", out, "-f", "x", "-b", "n", folder], check=True, capture_output=True)
    return nib.load(next(out.glob("*.nii")))


@pytest.mark.skipif(DCM2NIIX is None, reason="dcm2niix is not installed")
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("count", [2, 7, 9, 16])
def test_values_and_places_are_those_of_dcm2niix(tmp_path, sign, count):
    orientation, normal = oblique(20)
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    write_mosaic(tmp_path / "in/a.dcm", voxels((count, 6, 8)), orientation, np.multiply(normal, sign))
    array, meta = read(tmp_path / "in/a.dcm")
    image = convert(tmp_path / "in", tmp_path / "out")
    places = in_order_of(array, meta["affine"], image.affine)
    np.testing.assert_array_equal(image.get_fdata()[tuple(places)], array.reshape(-1))


def test_each_slice_has_the_place_that_was_written(tmp_path):
    volume = voxels((7, 6, 8))
    array, meta = read(write_mosaic(tmp_path / "a.dcm", volume))
    np.testing.assert_array_equal(array, volume.T)
    np.testing.assert_allclose(meta["affine"], [[-2, 0, 0, 20], [0, -3, 0, 30], [0, 0, 5, 40], [0, 0, 0, 1]], atol=1e-6)
    array, meta = read(write_mosaic(tmp_path / "b.dcm", volume, direction=(0, 0, -1)))
    np.testing.assert_array_equal(array, volume[::-1].T)
    np.testing.assert_allclose(meta["affine"][:3, 3], [20, 30, 40 - 6 * 5], atol=1e-6)


def test_a_real_mosaic_equals_nibabels(tmp_path):
    path = tmp_path / "a.dcm"
    path.write_bytes(gzip.decompress(REAL.read_bytes()))
    wrapper = wrapper_from_file(path)
    array, meta = read(path)
    np.testing.assert_array_equal(array, np.swapaxes(wrapper.get_data(), 0, 1))
    # nibabel's voxels are (row, column, slice), its space is LPS.
    expected = np.diag([-1, -1, 1, 1]) @ wrapper.affine @ np.eye(4)[[1, 0, 2, 3]]
    np.testing.assert_allclose(meta["affine"], expected, atol=1e-3)


def test_mosaics_of_several_times_are_volumes(tmp_path):
    volumes = [voxels((4, 6, 8), seed=k) for k in range(3)]
    shared = {"SeriesInstanceUID": "1.2.3", "StudyInstanceUID": "1.2.4", "FrameOfReferenceUID": "1.2.5"}
    for k, volume in enumerate(volumes):
        write_mosaic(tmp_path / f"{k}.dcm", volume, AcquisitionNumber=k + 1, InstanceNumber=k + 1, **shared)
    assert "3 volumes by AcquisitionNumber" in str(list_series(tmp_path))
    with pytest.raises(DicomSeriesError, match="3 volumes by AcquisitionNumber: choose with volume=0 to 2, or 'all'"):
        read(tmp_path)
    array, meta = read(tmp_path, volume="all")
    np.testing.assert_array_equal(array, np.stack(volumes).T)
    assert meta["original_channel_dim"] == -1
    np.testing.assert_array_equal(read(tmp_path, volume=1)[0], volumes[1].T)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"direction": None}, "SliceNormalVector"),
        ({"direction": (0, 1, 0)}, "SliceNormalVector"),
        ({"direction": None, "creator_count": False}, "number of slices in a mosaic"),
        ({"SpacingBetweenSlices": None}, "SpacingBetweenSlices of a mosaic"),
        ({"ImagePositionPatient": None}, "of a mosaic"),
        ({"PixelSpacing": None}, "of a mosaic"),
        ({"NumberOfFrames": 2}, "one frame in a mosaic"),
    ],
)
def test_a_mosaic_without_what_is_needed_is_refused_by_that_name(tmp_path, attributes, reason):
    with pytest.raises(DicomSeriesError, match=reason) as error:
        read(write_mosaic(tmp_path / "a.dcm", voxels((7, 6, 8)), **attributes))
    assert "mosaic" in str(error.value)


def test_a_mosaic_is_known_by_its_private_header_alone(tmp_path):
    volume = voxels((7, 6, 8))
    path = write_mosaic(tmp_path / "a.dcm", volume, ImageType=["DERIVED", "SECONDARY"])
    np.testing.assert_array_equal(read(path)[0], volume.T)
    path = write_mosaic(
        tmp_path / "b.dcm",
        volume,
        ImageType=["ORIGINAL", "PRIMARY"],
        creator_count=False,
        AcquisitionMatrix=[8, 0, 0, 6],
    )
    np.testing.assert_array_equal(read(path)[0], volume.T)


@pytest.mark.parametrize("count", [3, 7, 20])
def test_a_grid_of_united_imaging_is_unpacked(tmp_path, count):
    volume = voxels((count, 6, 8))
    array, meta = read(write_vframe(tmp_path / "a.dcm", volume))
    np.testing.assert_array_equal(array, volume.T)
    np.testing.assert_allclose(meta["affine"], [[-2, 0, 0, 20], [0, -3, 0, 30], [0, 0, 5, 40], [0, 0, 0, 1]], atol=1e-6)
    with pytest.raises(DicomSeriesError, match="a place for each slice of a mosaic"):
        read(write_vframe(tmp_path / "b.dcm", volume, places=False))


def test_a_mosaic_is_no_source_of_a_segmentation(tmp_path):
    path = write_mosaic(tmp_path / "a.dcm", voxels((7, 6, 8)))
    array, meta = read(path)
    code = {"CodeValue": "1", "CodingSchemeDesignator": "99", "CodeMeaning": "x"}
    segment = {"labelID": 1, "SegmentedPropertyCategoryCodeSequence": code, "SegmentedPropertyTypeCodeSequence": code}
    with pytest.raises(DicomSeriesError, match="a mosaic"):
        write_seg((array > 0).astype(np.uint8), meta["affine"], path, SegmentTable((segment,)), tmp_path / "seg.dcm")


def test_damaged_headers_of_siemens_are_refused_and_not_believed(tmp_path):
    path = write_mosaic(tmp_path / "a.dcm", voxels((7, 6, 8)))
    dataset = pydicom.dcmread(path)
    dataset.private_block(0x29, "SIEMENS CSA HEADER")[0x10].value = b"SV10" + b"\xff" * 60
    dataset.save_as(path)
    with pytest.raises(DicomSeriesError, match="CSA header"):
        read(path)
