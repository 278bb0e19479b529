"""Labels come back onto the voxels of their source: exactly where grids agree, by the nearest voxel elsewhere."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Orientationd, Spacingd, SpatialPadd
from scipy.ndimage import affine_transform
from transforms.phantoms import oblique, voxels, write_series
from transforms.reading import read

from monai_medmerge.errors import SettingError
from monai_medmerge.transforms import LabelsToSourced, labels_onto_grid

READER = "monai_medmerge.transforms.MedicalImageReader"


def turned(degrees, steps, origin=(5, -7, 11), shear=0.0):
    axes, normal = oblique(degrees)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([axes[:3], axes[3:], normal + shear * np.array(axes[3:])], axis=1) * steps
    affine[:3, 3] = origin
    return affine


axes_orders = st.permutations(range(3))
signs = st.tuples(*[st.sampled_from((1, -1))] * 3)


@settings(deadline=None, max_examples=40)
@given(
    order=axes_orders,
    flips=signs,
    degrees=st.floats(-40, 40),
    steps=st.tuples(*[st.floats(0.3, 5)] * 3),
    shear=st.floats(-0.4, 0.4),
    seed=st.integers(0, 99),
)
def test_grids_of_the_same_voxels_are_exact_there_and_back(order, flips, degrees, steps, shear, seed):
    """Flipped, permuted and padded, as networks have them: every label comes back, on oblique and sheared grids too."""
    labels = np.random.default_rng(seed).integers(0, 300, (5, 6, 7)).astype(np.uint16)
    affine = turned(degrees, steps, shear=shear)
    change = np.eye(4)
    change[:3, :3] = np.eye(3)[:, order] * flips
    moved_shape = tuple(labels.shape[axis] + 4 for axis in order)
    # The new grid's first voxel lies where all of the old one is inside, with two more on each side.
    change[:3, 3] = [
        (-2 if sign > 0 else size + 1) for size, sign in zip(labels.shape, (change[:3, :3]).sum(1), strict=True)
    ]
    moved = labels_onto_grid(labels, affine, moved_shape, affine @ change)
    assert np.count_nonzero(moved) == np.count_nonzero(labels)
    np.testing.assert_array_equal(labels_onto_grid(moved, affine @ change, labels.shape, affine), labels)


def test_coarser_and_turned_grids_take_the_nearest_label_as_scipy_does():
    labels = np.random.default_rng(0).integers(0, 9, (20, 24, 16))
    affine, target = turned(0, (1, 1, 2)), turned(17, (1.3, 0.9, 2.7))
    found = labels_onto_grid(labels, affine, (14, 20, 10), target)
    change = np.linalg.inv(affine) @ target
    by_scipy = affine_transform(labels, change[:3, :3], change[:3, 3], (14, 20, 10), order=0, mode="grid-constant")
    assert (found != by_scipy).mean() < 0.01
    assert set(np.unique(found)) <= set(range(9))


def test_affines_and_shapes_that_do_not_do_are_refused():
    labels = np.zeros((2, 2, 2), int)
    with pytest.raises(SettingError, match="affines that can be inverted"):
        labels_onto_grid(labels, np.zeros((4, 4)), (2, 2, 2), np.eye(4))
    with pytest.raises(SettingError, match="labels and a grid"):
        labels_onto_grid(labels[0], np.eye(4), (2, 2, 2), np.eye(4))


@pytest.mark.parametrize("kind", ["nifti", "dicom"])
def test_a_prediction_on_resampled_axes_comes_back_on_its_source(tmp_path, kind):
    volume = np.repeat(np.repeat(voxels((3, 4, 5), high=4), 4, 1), 4, 2)
    orientation, normal = oblique(20)
    if kind == "dicom":
        write_series(tmp_path / "in", volume, orientation, np.multiply(normal, 2.5))
        source = tmp_path / "in"
        affine = read(source)[1]["affine"]
    else:
        source = tmp_path / "a.nii.gz"
        affine = turned(20, (0.6, 0.8, 2.5))
        nib.save(nib.Nifti1Image(volume.T, affine), source)
    prepare = Compose(
        [
            LoadImaged("image", reader=READER),
            EnsureChannelFirstd("image"),
            Orientationd("image", "PLI", labels=None),
            SpatialPadd("image", (30, 30, 30)),
        ]
    )
    item = prepare({"image": str(source)})
    prediction = MetaTensor((item["image"] > 1).to(torch.uint8), affine=item["image"].affine, meta=item["image"].meta)
    back = LabelsToSourced("pred")({"pred": prediction, "source": str(source)})["pred"]
    stored = volume.T.astype(int) - (1024 if kind == "dicom" else 0)
    np.testing.assert_array_equal(back[0].numpy(), stored > 1)
    np.testing.assert_allclose(back.affine.numpy(), affine, atol=1e-5)
    # Finer voxels between: none of the labels is lost, none arises, and none moves.
    finer = Spacingd("pred", (0.3, 0.4, 1.25), mode="nearest")({"pred": prediction})["pred"]
    back = LabelsToSourced("pred")({"pred": finer, "source": str(source)})["pred"]
    assert (back[0].numpy() != (stored > 1)).mean() < 0.02


def test_a_label_map_without_a_source_is_refused():
    with pytest.raises(SettingError, match="the path of the source"):
        LabelsToSourced("pred")({"pred": MetaTensor(torch.zeros(1, 2, 2, 2))})
    with pytest.raises(SettingError, match=r"a MetaTensor \(1, x, y, z\)"):
        LabelsToSourced("pred")({"pred": torch.zeros(1, 2, 2, 2), "source": "a.nii"})
