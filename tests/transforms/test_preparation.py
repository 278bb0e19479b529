"""Bias fields that were put in are found; a low-pass keeps patterns from arising; file windows go by their names."""

from __future__ import annotations

import json

import itk
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Spacingd
from scipy.ndimage import gaussian_filter
from transforms.phantoms import voxels, write_series
from transforms.reading import read

from monai_medmerge.errors import DicomSeriesError, SettingError
from monai_medmerge.transforms import ApplyWindowd, CorrectBiasFieldd, LowPassd, correct_bias_field, low_pass


def biased(shape):
    """Two tissues, a smooth field over them, and both together."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, size) for size in shape], indexing="ij"))
    tissue = np.where((grid**2).sum(0) < 0.3, 200.0, 100.0)
    tissue = gaussian_filter(tissue, 0.7)
    field = np.exp(0.4 * grid[0] - 0.3 * grid[1] ** 2)
    return tissue, field, (tissue * field).astype(np.float32)


@pytest.mark.parametrize("shape", [(24, 22, 20), (48, 44)])
def test_a_field_that_was_put_in_is_removed(shape):
    tissue, _, image = biased(shape)
    corrected = correct_bias_field(image, shrink=2, iterations=(30, 30))
    inner = tuple(slice(3, -3) for _ in shape)

    def spread(values):
        ratio = (values / tissue)[inner]
        return ratio.std() / ratio.mean()

    assert corrected.shape == shape
    assert spread(corrected) < 0.25 * spread(image)


def test_without_shrinking_it_is_what_itk_makes():
    _, _, image = biased((24, 22, 20))
    whole = itk.image_from_array(image)
    mask = itk.image_from_array(np.ones(image.shape, np.uint8))
    n4 = itk.N4BiasFieldCorrectionImageFilter[type(whole), type(mask), type(whole)].New(whole, MaskImage=mask)
    n4.SetNumberOfFittingLevels(2)
    n4.SetMaximumNumberOfIterations([20, 20])
    n4.Update()
    found = correct_bias_field(image, np.ones(image.shape), shrink=1, iterations=(20, 20))
    np.testing.assert_allclose(found, itk.array_from_image(n4.GetOutput()), rtol=1e-3)


def test_the_transform_corrects_each_channel_within_its_mask():
    _, _, image = biased((24, 22, 20))
    mask = MetaTensor(torch.ones(1, 24, 22, 20))
    data = {"image": MetaTensor(torch.as_tensor(np.stack([image, image])), meta={"modality": "MR"}), "mask": mask}
    found = CorrectBiasFieldd("image", "mask", shrink=2, iterations=(5,))(data)["image"]
    alone = correct_bias_field(image, np.ones(image.shape), 2, (5,))
    np.testing.assert_allclose(found[1].numpy(), alone, rtol=1e-5)
    assert found.meta["modality"] == "MR"


@pytest.mark.parametrize(
    ("image", "mask", "arguments"),
    [
        (np.zeros((5, 5, 5)), None, {}),
        (np.ones((5, 5, 5)), np.ones((4, 5, 5)), {}),
        (np.ones(5), None, {}),
        (np.full((5, 5), np.nan), np.ones((5, 5)), {}),
        (np.ones((5, 5)), None, {"shrink": 0}),
        (np.ones((5, 5)), None, {"iterations": ()}),
    ],
)
def test_what_n4_cannot_take_is_refused(image, mask, arguments):
    with pytest.raises(SettingError, match=r"^N4"):
        correct_bias_field(image, mask, **arguments)


def test_stripes_that_larger_voxels_cannot_hold_do_not_come_back_as_others():
    stripes = torch.zeros(1, 120, 20, 4)
    stripes[:, ::3] = 1.0
    data = {"image": MetaTensor(stripes, affine=torch.eye(4))}
    bare = Spacingd("image", (2.0, 1.0, 1.0))(data)["image"]
    smooth = Spacingd("image", (2.0, 1.0, 1.0))(LowPassd("image", (6.0, 1.0, 1.0))(data))["image"]
    assert bare[:, 5:-5].std() > 0.2
    assert smooth[:, 5:-5].std() < 0.02


def test_the_kernel_is_that_of_the_formula_and_other_axes_stay():
    image = torch.as_tensor(voxels().astype(np.float32))[None]
    found = low_pass(image, (1, 2, 3), (2.5, 2, 6))
    width = 2 * np.sqrt(2 * np.log(2))
    sigmas = [np.sqrt(2.5**2 - 1) / width, 0, np.sqrt(2**2 - 1) / width]
    wanted = gaussian_filter(image[0].numpy(), sigmas, mode="nearest", truncate=4)
    np.testing.assert_allclose(found[0].numpy(), wanted, rtol=1e-3)
    np.testing.assert_array_equal(low_pass(image, (1, 1, 1), (1, 0.5, 1)), image)
    with pytest.raises(SettingError, match="3 spacings above zero"):
        low_pass(image, (1, 1), (2, 2))


def test_a_constant_image_stays_and_keeps_its_place():
    image = MetaTensor(torch.full((2, 9, 9, 9), 7.0), affine=torch.diag(torch.tensor([0.5, 0.5, 2.0, 1.0])))
    found = LowPassd("image", (2.0, 2.0, 2.0))({"image": image})["image"]
    torch.testing.assert_close(found.as_tensor(), image.as_tensor(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.affine, image.affine)


def test_windows_of_a_file_go_by_their_names_and_free_text_is_not_kept(tmp_path):
    windows = {"WindowCenter": [-600, 40, 99], "WindowWidth": [1500, 400, 5]}
    write_series(tmp_path, voxels(), WindowCenterWidthExplanation=["Lung", "SOFT_TISSUE", "Doe^Jane"], **windows)
    array, meta = read(tmp_path)
    assert json.loads(meta["voi"])["names"] == ["LUNG", "SOFT TISSUE", ""]
    image = MetaTensor(torch.as_tensor(array), meta=meta)
    found = ApplyWindowd("image", name="lung")({"image": image})["image"]
    torch.testing.assert_close(found, ApplyWindowd("image", preset="lung")({"image": image})["image"])
    with pytest.raises(DicomSeriesError, match="a window named 'BONE' in the file, found LUNG, SOFT TISSUE"):
        ApplyWindowd("image", name="bone")({"image": image})
    with pytest.raises(SettingError, match="two of them"):
        ApplyWindowd("image", name="bone", preset="lung")
