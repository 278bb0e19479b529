"""Comparison and gate: planted truths, scikit-learn's figures, and no name of a patient anywhere."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from sklearn import metrics
from torch import Tensor, nn

from monai_medmerge.errors import DatasetError, SettingError
from monai_medmerge.evaluation.bootstrap import Resampling
from monai_medmerge.evaluation.comparison.cases import ALL, CLASS, Naming
from monai_medmerge.evaluation.comparison.networks import compare
from monai_medmerge.evaluation.comparison.predictions import cohens_kappa, compare_predictions
from monai_medmerge.evaluation.comparison.rows import Comparison
from monai_medmerge.evaluation.comparison.volumes import compare_dice
from monai_medmerge.evaluation.gate import DEFAULT_LIMITS, FAILED, PASSED, UNDECIDED, check
from monai_medmerge.evaluation.prediction import predict
from monai_medmerge.evaluation.reliability import calibration, temperature

CLASSES = ["normal", "bacterial", "viral"]
FAST = Resampling(samples=300)


def answers(labels: np.ndarray, seed: int = 0, right: float = 0.85) -> np.ndarray:
    """Probabilities (case, class) of a network that is right that often, and about as sure."""
    rng = np.random.default_rng(seed)
    said = np.where(rng.random(len(labels)) < right, labels, (labels + rng.integers(1, 3, len(labels))) % 3)
    sure = rng.uniform(0.7, 1.0, len(labels))
    found = np.repeat((1 - sure)[:, None] / 2, 3, axis=1)
    found[np.arange(len(labels)), said] = sure
    return found


LABELS = np.arange(600) % 3
REFERENCE = answers(LABELS)


def damaged(fraction: float, label: int = 1) -> np.ndarray:
    """The reference, with that part of one class's right answers turned into the other classes."""
    found = REFERENCE.copy()
    right = np.flatnonzero((label == LABELS) & (REFERENCE.argmax(1) == label))
    hit = right[: round(fraction * len(right))]
    for n, case in enumerate(hit):
        other = (label + 1 + n % 2) % 3
        found[case, [label, other]] = found[case, [other, label]]
    return found


def other_than(probabilities: np.ndarray) -> np.ndarray:
    """The same answers, a little less sure: another network, that is no worse."""
    return 0.99 * probabilities + 0.01 / 3


def test_figures_are_those_of_scikit_learn() -> None:
    candidate = answers(LABELS, seed=5, right=0.8)
    found = compare_predictions(REFERENCE, candidate, LABELS, CLASSES, resampling=FAST)
    now = candidate.argmax(1)
    expected = {
        "macro F1": metrics.f1_score(LABELS, now, average="macro"),
        "accuracy": metrics.accuracy_score(LABELS, now),
        "AUC": metrics.roc_auc_score(LABELS, candidate, multi_class="ovr"),
    }
    for name, value in expected.items():
        (row,) = found.select(ALL, name)
        assert row.found.candidate.value == pytest.approx(value)
        assert row.found.difference.low <= row.found.difference.value <= row.found.difference.high
    for measure, function in (("recall", metrics.recall_score), ("precision", metrics.precision_score)):
        values = [row.found.candidate.value for row in found.select(CLASS, measure)]
        assert values == pytest.approx(function(LABELS, now, average=None).tolist())
    assert found.kappa == pytest.approx(metrics.cohen_kappa_score(REFERENCE.argmax(1), now))
    flips = (REFERENCE.argmax(1) == LABELS) & (now != LABELS)
    assert [case.name for case in found.flipped] == [f"case {n}" for n in np.flatnonzero(flips)]
    assert found.negative_flips.value == pytest.approx(flips.mean())
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["cases"] == 600
    assert "class viral: recall" in str(found)


def test_an_equal_candidate_passes() -> None:
    found = compare_predictions(REFERENCE, REFERENCE, LABELS, CLASSES, {"site": ["a", "b"] * 300}, resampling=FAST)
    result = check(found)
    assert (result.outcome, result.exit_status) == (PASSED, 0)
    assert {v.limit for v in result.verdicts} >= {"overall_drop", "class_drop", "group_drop", "negative_flips"}
    assert "default, not chosen by the site" in str(result)
    assert check(found, {"limits": DEFAULT_LIMITS, "evidence": "interval"}).verdicts[0].outcome == PASSED


@pytest.mark.parametrize("label", range(3))
def test_a_class_that_is_damaged_fails_and_no_other(label: int) -> None:
    found = compare_predictions(REFERENCE, damaged(0.1, label), LABELS, CLASSES, resampling=FAST)
    result = check(found, {"limits": {"class_drop": 0.02, "calibration_error": 0.1}})
    failed = [v.what for v in result.verdicts if v.outcome == FAILED]
    assert failed == [f"drop in recall of {CLASSES[label]}"]
    assert (result.outcome, result.exit_status) == (FAILED, 1)


def test_ten_cases_are_undecided() -> None:
    few = slice(0, 10)
    for candidate in (other_than(REFERENCE), damaged(1.0)):
        result = check(compare_predictions(REFERENCE[few], candidate[few], LABELS[few], CLASSES, resampling=FAST))
        assert (result.outcome, result.exit_status) == (UNDECIDED, 3)
        assert all("not enough evidence" in v.reason for v in result.verdicts)


def test_many_cases_of_two_patients_are_undecided() -> None:
    site = {"site": ["north", "south"] * 300}
    for patients, outcome in (([n % 2 for n in range(600)], UNDECIDED), (list(range(600)), PASSED)):
        resampling = Resampling(groups=patients, samples=100)
        candidate = other_than(REFERENCE)
        found = compare_predictions(REFERENCE, candidate, LABELS, CLASSES, site, resampling=resampling)
        assert {v.outcome for v in check(found).verdicts} == {outcome}
        assert ("600 cases of 2 patients, at least 100 needed" in str(check(found))) == (outcome == UNDECIDED)
        assert [(row.cases, row.units) for row in found.select("site", "accuracy")] == [
            (300, len(set(patients)) // 2)
        ] * 2


def test_a_column_whose_name_reports_use_themselves_is_refused() -> None:
    for column in (ALL, CLASS):
        with pytest.raises(SettingError, match="columns of other names"):
            compare_predictions(REFERENCE, REFERENCE, LABELS, CLASSES, {column: ["a", "b"] * 300}, resampling=FAST)
        with pytest.raises(SettingError, match="columns of other names"):
            compare_dice(REFERENCE, REFERENCE, REFERENCE, CLASSES, {column: ["a", "b"] * 300}, resampling=FAST)


def test_a_group_in_which_the_candidate_is_worse_fails() -> None:
    site = np.array(["north", "south"])[(np.arange(600) // 3) % 2]
    candidate = REFERENCE.copy()
    hit = np.flatnonzero((site == "south") & (REFERENCE.argmax(1) == LABELS))[:30]
    candidate[hit] = np.roll(candidate[hit], 1, axis=1)
    found = compare_predictions(REFERENCE, candidate, LABELS, CLASSES, {"site": site.tolist()}, resampling=FAST)
    result = check(found, {"limits": {"group_drop": 0.03}})
    assert [v.what for v in result.verdicts if v.outcome == FAILED] == ["drop in macro F1 where site is south"]
    (north, south) = found.select("site", "accuracy")
    assert north.found.difference.value == 0
    assert south.found.difference.value == pytest.approx(-30 / 300)


def test_evidence_by_interval_is_stricter_both_ways() -> None:
    found = compare_predictions(REFERENCE, damaged(0.03), LABELS, CLASSES, resampling=FAST)
    (row,) = (row for row in found.select(CLASS, "recall") if row.group == "bacterial")
    drop = -row.found.difference.value
    for limit in (drop * 0.9, drop * 1.1):
        gate: dict[str, Any] = {"limits": {"class_drop": limit}, "evidence": "interval"}
        assert {v.what: v.outcome for v in check(found, gate).verdicts}["drop in recall of bacterial"] == UNDECIDED
    far = {"limits": {"class_drop": 0.5}, "evidence": "interval"}
    assert check(found, far).outcome == PASSED


def test_what_is_asked_for_and_not_measured_is_undecided() -> None:
    found = compare_predictions(REFERENCE, other_than(REFERENCE), LABELS, CLASSES, resampling=FAST)
    result = check(found, {"limits": {"group_drop": 0.02, "far_inputs": 0.1}})
    assert {v.outcome for v in result.verdicts} == {UNDECIDED}
    assert check(found, {"limits": {}}).outcome == UNDECIDED


@pytest.mark.parametrize(
    "gate",
    [
        {"limits": {"class_dorp": 0.02}},
        {"limits": {"class_drop": "much"}},
        {"limits": {"class_drop": True}},
        {"limits": {"class_drop": -1}},
        {"limits": {"class_drop": math.nan}},
        {"limits": {"class_drop": {"limit": 0.1, "cases": 3}}},
        {"limits": ["class_drop"]},
        {"limits": {"far_inputs": {"minimum_cases": 50}}},
        {"origin": "default", "limits": {"class_drop": 0.02}},
        {"evidence": "feeling"},
        {"limit": {}},
    ],
)
def test_a_gate_that_cannot_be_meant_is_refused(gate: dict[str, Any]) -> None:
    found = compare_predictions(REFERENCE, REFERENCE, LABELS, CLASSES, resampling=FAST)
    with pytest.raises(SettingError, match="gate"):
        check(found, gate)


def test_arrays_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DatasetError, match=r"candidate: expected probabilities \(600, 3\)"):
        compare_predictions(REFERENCE, REFERENCE[:9], LABELS, CLASSES)
    with pytest.raises(DatasetError, match="sum to one"):
        compare_predictions(REFERENCE, np.log(REFERENCE), LABELS, CLASSES)
    with pytest.raises(DatasetError, match="labels from 0 to 2"):
        compare_predictions(REFERENCE, REFERENCE, LABELS + 1, CLASSES)
    with pytest.raises(SettingError, match="at most 20 groups") as error:
        compare_predictions(REFERENCE, REFERENCE, LABELS, CLASSES, {"who": [f"Doe {n}" for n in range(600)]})
    assert "Doe" not in str(error.value)


def test_a_temperature_that_was_planted_is_found() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(4000, 3)) * 2
    labels = np.array([rng.choice(3, p=np.exp(s) / np.exp(s).sum()) for s in scores])
    for planted in (0.5, 1.0, 2.0):
        sharpened = np.exp(scores * planted)
        sharpened /= sharpened.sum(1, keepdims=True)
        assert temperature(sharpened, labels) == pytest.approx(planted, rel=0.1)
        error = calibration(sharpened, labels, FAST).error.value
        assert (error < 0.03) == (planted == 1.0)


def test_kappa_of_one_class_is_one() -> None:
    same = np.zeros(5, int)
    assert cohens_kappa(same, same, 3) == 1


# Networks.


class Fields(nn.Module):
    """Scores by the mean brightness of the left and the right half, so that its answers are known."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.head = nn.Linear(2, 2, bias=False)
        self.head.weight.data = factor * 4 * torch.eye(2)

    def forward(self, images: Tensor) -> Tensor:
        halves = torch.stack([images[..., :8].mean((1, 2, 3)), images[..., 8:].mean((1, 2, 3))], 1)
        return self.head(halves)


def brightness(count: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    images = torch.randn(count, 1, 16, 16, generator=generator) * 0.3
    images[labels == 0, :, :, :8] += 0.6
    images[labels == 1, :, :, 8:] += 0.6
    return images, labels


@pytest.fixture(scope="module")
def side_by_side() -> Comparison:
    torch.manual_seed(0)
    images, labels = brightness(120, 0)
    # The last ten are turned: unlike anything seen in training.
    images[-10:] = images[-10:].transpose(2, 3) * 4
    data = [
        {"image": images[n : n + 50], "label": labels[n : n + 50], "sex": (["f", "m"] * 60)[n : n + 50]}
        for n in (0, 50, 100)
    ]
    training = [brightness(100, 1)]
    return compare(
        Fields(), Fields(-1), data, ["left", "right"], subgroups=["sex"], training_data=training, samples=200
    )


def test_networks_are_compared_on_data_read_once(side_by_side: Comparison) -> None:
    (row,) = side_by_side.select(ALL, "accuracy")
    assert row.found.reference.value > 0.9
    # The second network says the opposite of the first.
    assert row.found.candidate.value == pytest.approx(1 - row.found.reference.value)
    assert side_by_side.agreement.value == 0
    assert side_by_side.columns == ["sex"]
    assert len(side_by_side.stability) == 7
    assert all(found.kept.candidate.value > 0.9 for found in side_by_side.stability)
    assert json.loads(json.dumps(side_by_side.as_dict(), allow_nan=False))["distance"]["far"]["value"] < 0.25


def test_inputs_unlike_the_training_data_are_found() -> None:
    usual, labels = brightness(100, 0)
    odd = usual[:10].flip(3) * 0 + torch.linspace(-3, 3, 16)
    data = [(torch.cat([usual, odd]), torch.cat([labels, labels[:10]]))]
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(256, 16), nn.ReLU(), nn.Linear(16, 2))
    found = compare(network, network, data, ["l", "r"], training_data=[brightness(200, 1)], changes={}, samples=50)
    assert found.distance is not None
    assert set(range(100, 110)) <= set(found.distance.cases)
    assert len(found.distance.cases) < 30


def test_modes_and_order_do_not_matter() -> None:
    images, labels = brightness(60, 3)
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(256), nn.Dropout(0.5), nn.Linear(256, 2)).train()
    network[2].eval()
    once = ({"image": i, "label": k} for i, k in zip(images.split(20), labels.split(20), strict=True))
    a = compare(network, network, once, ["l", "r"], samples=50)
    assert (a.agreement.value, a.negative_flips.value) == (1, 0)
    assert network.training
    assert not network[2].training
    b = compare(network, network, [(images, labels)], ["l", "r"], samples=50)
    assert [row.found for row in a.rows] == [row.found for row in b.rows]


PATIENT = "MUSTERMANN^ERIKA"


def _planted() -> DataLoader:
    images, labels = brightness(40, 4)
    items = [
        {
            "image": MetaTensor(image, meta={"filename_or_obj": f"/ward/{PATIENT}/{PATIENT}_{n}.dcm", "name": PATIENT}),
            "label": int(label),
            "patient": f"{PATIENT} {n // 2}",
            "file": f"C:\\ward\\{PATIENT}_{n}.dcm",
        }
        for n, (image, label) in enumerate(zip(images, labels, strict=True))
    ]
    return DataLoader(Dataset(items), batch_size=16)


@pytest.mark.parametrize("naming", [None, Naming(salt="secret"), Naming(key="file", salt="secret"), Naming(key="file")])
def test_no_name_of_a_patient_comes_out(naming: Naming | None) -> None:
    found = compare(
        Fields(), Fields(-1), _planted(), ["l", "r"], patient="patient", naming=naming, changes={}, samples=50
    )
    assert len(found.flipped) > 20
    shown = json.dumps(found.as_dict()) + str(found) + repr(found) + str(check(found))
    assert "MUSTERMANN" not in shown
    assert ("," in found.flipped[0].name) == bool(naming and naming.salt)


def test_names_are_shown_when_asked_for() -> None:
    found = compare(
        Fields(), Fields(-1), _planted(), ["l", "r"], naming=Naming(key="file", plain=True), changes={}, samples=50
    )
    assert found.flipped[0].name.endswith(f", {PATIENT}_0.dcm")


def test_wrong_data_is_refused() -> None:
    images, labels = brightness(10, 0)
    with pytest.raises(SettingError, match="column 'site' for each of 10 cases"):
        compare(Fields(), Fields(), [{"image": images, "label": labels}], ["l", "r"], subgroups=["site"])
    with pytest.raises(DatasetError, match="at least one image"):
        compare(Fields(), Fields(), [], ["l", "r"])
    with pytest.raises(SettingError, match="two classes or more"):
        compare(nn.Sequential(nn.Flatten(), nn.Linear(256, 1)), Fields(), [(images, labels)], ["l", "r"])


def test_a_column_of_patients_may_also_divide_the_cases() -> None:
    images, labels = brightness(40, 0)
    data = [{"image": images, "label": labels, "site": ["north", "south"] * 20}]
    found = compare(Fields(), Fields(), data, ["l", "r"], patient="site", subgroups=["site"], changes={}, samples=50)
    assert (found.columns, found.units) == (["site"], 2)


def test_no_image_is_no_prediction() -> None:
    with pytest.raises(DatasetError, match="at least one batch"):
        predict(Fields(), [])
