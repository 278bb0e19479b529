"""The bootstrap: its intervals cover the truth, measures agree with scikit-learn, groups are drawn whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from monai_medmerge.errors import SettingError
from monai_medmerge.evaluation import measures
from monai_medmerge.evaluation.bootstrap import (
    Resampling,
    bootstrap_interval,
    confusion,
    estimate,
    f1_of_counts,
    macro_f1,
    paired_estimate,
)

PRIOR = np.array([0.5, 0.3, 0.2])
# What a network says, given the label: rows are labels.
BEFORE = np.array([[0.8, 0.15, 0.05], [0.2, 0.7, 0.1], [0.1, 0.3, 0.6]])
NOW = np.array([[0.85, 0.1, 0.05], [0.15, 0.75, 0.1], [0.2, 0.2, 0.6]])


def draw(rng: np.random.Generator, answers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return (rng.random(len(labels))[:, None] > answers.cumsum(1)[labels]).sum(1).clip(0, 2)


@pytest.mark.parametrize("paired", [False, True])
def test_intervals_cover_the_truth(paired: bool) -> None:
    rng, hits = np.random.default_rng(1), 0
    truth = f1_of_counts(PRIOR[:, None] * NOW).mean()
    truth -= f1_of_counts(PRIOR[:, None] * BEFORE).mean() if paired else 0
    for trial in range(500):
        labels = rng.choice(3, 150, p=PRIOR)
        candidate = draw(rng, NOW, labels)
        reference = draw(rng, BEFORE, labels) if paired else None
        low, high = bootstrap_interval(candidate, labels, 3, reference, samples=500, seed=trial)
        hits += low <= truth <= high
    assert 0.92 <= hits / 500 <= 0.98


def test_intervals_of_patients_cover_where_those_of_images_do_not() -> None:
    rng, hits = np.random.default_rng(2), {"patients": 0, "images": 0}
    patients = np.repeat(np.arange(40), 6)
    for trial in range(200):
        # Whether a patient's images are recognised is mostly the patient's.
        right = rng.random(240) < rng.choice([0.5, 0.95], 40)[patients]
        for name, groups in (("patients", patients.tolist()), ("images", None)):
            resampling = Resampling(groups, samples=300, seed=trial)
            found = estimate([measures.mean(right)], 240, resampling)[0]
            hits[name] += found.low <= 0.725 <= found.high
    assert hits["patients"] >= 180
    assert hits["images"] < hits["patients"] - 10


arrays = st.integers(0, 10_000).map(
    lambda seed: (np.random.default_rng(seed).integers(0, 4, 60), np.random.default_rng(seed + 1).integers(0, 4, 60))
)


@settings(max_examples=30, deadline=None)
@given(arrays)
def test_measures_on_all_cases_are_those_of_scikit_learn(both: tuple[np.ndarray, np.ndarray]) -> None:
    labels, predictions = both
    once, everything = np.ones((1, 60)), range(4)
    expected = metrics.f1_score(labels, predictions, average="macro", labels=everything, zero_division=0)
    assert macro_f1(predictions, labels, 4) == pytest.approx(expected)
    assert measures.mean_f1(predictions, labels, 4)(once)[0] == pytest.approx(expected)
    assert np.array_equal(confusion(predictions, labels, 4), metrics.confusion_matrix(labels, predictions))
    scores, positive = predictions / 4 + labels / 20, labels == 1
    area = measures.area_under_curve(scores, positive)(once)[0]
    assert area == pytest.approx(metrics.roc_auc_score(positive, scores))


@settings(max_examples=20, deadline=None)
@given(arrays, st.integers(0, 100))
def test_weights_are_repetitions(both: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    labels, predictions = both
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(4), 60)
    weights = np.random.default_rng(seed).integers(0, 3, 60)
    repeated = np.repeat(np.arange(60), weights)

    def all_of(chosen: np.ndarray, weights: np.ndarray) -> list[float]:
        p, k, q = predictions[chosen], labels[chosen], probabilities[chosen]
        statistics = [
            measures.mean_f1(p, k, 4),
            measures.mean_area_under_curve(q, k),
            measures.mean(p == k, k == 2),
            measures.calibration_error(q.max(1), q.argmax(1) == k),
            measures.within(measures.mean(p == k), p > 1),
        ]
        return [float(statistic(weights[None].astype(float))[0]) for statistic in statistics]

    weighted, plain = all_of(np.arange(60), weights), all_of(repeated, np.ones(len(repeated)))
    assert weighted == pytest.approx(plain, nan_ok=True)


def test_pairs_share_their_resamples() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    first, second = draw(rng, BEFORE, labels), draw(rng, NOW, labels)
    pair = (measures.mean_f1(first, labels, 3), measures.mean_f1(second, labels, 3))
    found = paired_estimate([pair], 200, Resampling(samples=400))[0]
    assert (found.difference.low, found.difference.high) == bootstrap_interval(second, labels, 3, first, samples=400)
    assert found.candidate.value - found.reference.value == pytest.approx(found.difference.value)
    assert found.as_dict()["reference"]["value"] == found.reference.value
    # Pieces that are drawn one after another are the same as all at once.
    many = np.tile(labels, 100)
    assert estimate([measures.mean(many == 0)], len(many), Resampling(samples=900))[0].low < (many == 0).mean()


def test_what_does_not_occur_is_unknown_and_not_zero() -> None:
    found = estimate([measures.mean(np.array([True]), np.array([False]))], 1)[0]
    assert np.isnan([found.value, found.low, found.high]).all()
    assert found.as_dict() == {"value": None, "low": None, "high": None}


def test_wrong_use_is_refused() -> None:
    statistic = measures.mean(np.array([True, False]))
    with pytest.raises(SettingError, match="at least one case"):
        estimate([statistic], 0)
    with pytest.raises(SettingError, match="2 cases"):
        estimate([statistic], 2, Resampling(groups=["a"]))
