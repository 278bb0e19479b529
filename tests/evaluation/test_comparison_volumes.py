"""Comparison of label maps by Dice: counted by hand, planted truths, and healthy cases."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.networks.nets import UNet
from torch import nn

from monai_medmerge.errors import DatasetError
from monai_medmerge.evaluation.bootstrap import Resampling
from monai_medmerge.evaluation.comparison.cases import ALL, CLASS
from monai_medmerge.evaluation.comparison.networks import compare
from monai_medmerge.evaluation.comparison.volumes import compare_dice, dice
from monai_medmerge.evaluation.gate import FAILED, PASSED, UNDECIDED, check

FAST = Resampling(samples=300)


def test_dice_is_counted_by_hand() -> None:
    truth = torch.zeros(3, 1, 4, 4, dtype=torch.long)
    truth[:2, :, :2] = 1
    said = truth.clone()
    said[1, :, 1] = 0
    said[2, :, 0, 0] = 1
    assert dice(said, truth, 3)[:, 0].tolist() == pytest.approx([1, 2 / 3, 0])
    assert np.isnan(dice(said, truth, 3)[:, 1]).all()


@pytest.mark.parametrize("strange", [255, 3, -1])
def test_a_label_that_is_no_class_is_refused(strange: int) -> None:
    truth = torch.zeros(1, 1, 4, 4)
    truth[..., 0] = strange
    with pytest.raises(DatasetError, match=f"label: expected labels from 0 to 2, found {strange} among them"):
        dice(torch.zeros_like(truth), MetaTensor(truth), 3)


@pytest.mark.parametrize("names", [["x"], ["background", "x", "y", "z"]])
def test_names_that_are_not_one_per_class_are_refused(names: list[str]) -> None:
    network = nn.Conv2d(1, 3, 1)
    data = [(torch.rand(2, 1, 8, 8), torch.randint(3, (2, 1, 8, 8)))]
    with pytest.raises(DatasetError, match="class_names: expected 3 class names, or 2 without the background"):
        compare(network, network, data, names, changes={}, samples=50)


def test_segmentations_are_compared_by_dice() -> None:
    torch.manual_seed(0)
    network = UNet(2, 1, 3, (4, 8), (2,)).eval()
    images = torch.randn(8, 1, 16, 16)
    with torch.no_grad():
        truth = network(images).argmax(1, keepdim=True)
    other = UNet(2, 1, 3, (4, 8), (2,))
    training = [(images, truth)]
    found = compare(
        network, other, training, ["background", "anterior", "posterior"], training_data=training, samples=100
    )
    assert found.class_names == ("anterior", "posterior")
    assert all(row.found.reference.value == pytest.approx(1) for row in found.rows if row.measure == "Dice")
    distances = found.select(CLASS, "surface distance 95 %")
    assert all(row.found.reference.value == 0 for row in distances)
    assert {row.group for row in found.select(CLASS, "lesions invented")} == {"anterior", "posterior"}
    assert found.negative_flips.value == 1
    assert next(found.change for found in found.stability).startswith("noise")
    result = check(found, {"limits": {"class_drop": {"limit": 0.05, "minimum_cases": 5}, "calibration_error": 0.1}})
    assert {v.outcome for v in result.verdicts if v.limit == "class_drop"} == {FAILED}
    assert {v.outcome for v in result.verdicts if v.limit == "calibration_error"} == {UNDECIDED}
    assert json.dumps(found.as_dict(), allow_nan=False)
    same = compare(network, network, training, ["anterior", "posterior"], samples=100)
    assert check(same, {"limits": {"class_drop": {"limit": 0.0, "minimum_cases": 5}}}).outcome == PASSED


def test_a_class_that_a_case_lacks_does_not_count() -> None:
    values = np.array([[0.8, np.nan], [0.6, 0.4], [np.nan, np.nan]])
    found = compare_dice(values, values - 0.1, values, ["a", "b"], resampling=FAST)
    (row,) = found.select(ALL, "Dice")
    assert row.found.reference.value == pytest.approx((0.8 + 0.5) / 2)
    assert [row.cases for row in found.select(CLASS, "Dice")] == [2, 1]
    assert found.negative_flips.value == pytest.approx(2 / 3)


def test_a_lesion_that_is_invented_in_a_healthy_case_counts_against_whoever_invents_it() -> None:
    # The first half is healthy: nothing to find, and nothing found by the reference.
    sound = np.where(np.arange(200)[:, None] < 100, np.nan, 0.9)
    inventive = np.where(np.isnan(sound), 0.0, sound)
    worse = compare_dice(sound, inventive, sound, ["tumour"], resampling=FAST)
    assert worse.negative_flips.value == 0.5
    assert (worse.flipped[0].reference, worse.flipped[0].candidate) == ("1.000", "0.000")
    (row,) = worse.select(CLASS, "Dice")
    assert row.cases == 200
    assert row.found.difference.value == pytest.approx(-0.5)
    assert check(worse).outcome == FAILED
    better = compare_dice(inventive, sound, sound, ["tumour"], resampling=FAST)
    assert (better.negative_flips.value, better.positive_flips.value) == (0, 0.5)
    few = sound.copy()
    few[:2] = 0
    limits = {"limits": {"negative_flips": 0.0, "class_drop": 0.01}}
    verdicts = {
        v.limit: v.outcome for v in check(compare_dice(sound, few, sound, ["t"], resampling=FAST), limits).verdicts
    }
    assert verdicts == {"negative_flips": FAILED, "class_drop": FAILED}
    healthy = compare_dice(sound[:100], inventive[:100], sound[:100], ["tumour"], resampling=FAST)
    assert {v.outcome for v in check(healthy, limits).verdicts} == {FAILED}
