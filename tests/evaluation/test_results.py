"""Results per class, label, grade and segment: equal to scikit-learn's and MONAI's; what is absent counts nowhere."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from sklearn import metrics

from monai_medmerge.errors import DatasetError
from monai_medmerge.evaluation import class_results, grade_results, label_results, segment_results
from monai_medmerge.evaluation.bootstrap import Resampling
from monai_medmerge.evaluation.results.parts import thresholds
from monai_medmerge.evaluation.results.segments import segment_measures

CLOSE = {"rel": 0, "abs": 1e-9}
FAST = Resampling(samples=100)


def scores(cases: int, classes: int, seed: int = 0, digits: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities with many ties, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, cases)
    found = rng.normal(size=(cases, classes)) + 1.2 * np.eye(classes)[labels]
    found = np.exp(found).round(digits) + 0.01
    return found / found.sum(1, keepdims=True), labels


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(30, 120), st.integers(0, 3))
def test_figures_of_classes_are_those_of_scikit_learn(seed: int, classes: int, cases: int, digits: int) -> None:
    probabilities, labels = scores(cases, classes, seed, digits)
    names = [f"c{k}" for k in range(classes)]
    found = class_results(probabilities, labels, names, Resampling(samples=2))
    said, present = probabilities.argmax(1), sorted(set(labels.tolist()))
    assert found["accuracy"]["value"] == pytest.approx(metrics.accuracy_score(labels, said), **CLOSE)
    assert found["balanced_accuracy"]["value"] == pytest.approx(metrics.balanced_accuracy_score(labels, said), **CLOSE)
    expected = metrics.f1_score(labels, said, average="macro", labels=present)
    assert found["macro_f1"]["value"] == pytest.approx(expected, **CLOSE)
    assert found["confusion"] == metrics.confusion_matrix(labels, said, labels=range(classes)).tolist()
    for k in present:
        own, positive = found["classes"][f"c{k}"], labels == k
        assert own["support"] == positive.sum()
        assert own["recall"]["value"] == pytest.approx(metrics.recall_score(positive, said == k), **CLOSE)
        assert own["f1"]["value"] == pytest.approx(metrics.f1_score(positive, said == k), **CLOSE)
        assert own["auroc"]["value"] == pytest.approx(metrics.roc_auc_score(positive, probabilities[:, k]), **CLOSE)
        average = metrics.average_precision_score(positive, probabilities[:, k])
        assert own["average_precision"]["value"] == pytest.approx(average, **CLOSE)
        if (said == k).any():
            assert own["precision"]["value"] == pytest.approx(metrics.precision_score(positive, said == k), **CLOSE)
        else:
            assert own["precision"]["value"] is None


def test_a_class_without_a_case_is_named_and_counts_nowhere() -> None:
    probabilities, labels = scores(90, 4)
    with_absent = np.where(labels == 3, 0, labels)
    found = class_results(probabilities, with_absent, ["a", "b", "c", "d"], FAST)
    assert found["absent"] == ["d"]
    assert list(found["classes"]) == ["a", "b", "c"]
    own = [found["classes"][name]["f1"]["value"] for name in "abc"]
    assert found["macro_f1"]["value"] == pytest.approx(np.mean(own), **CLOSE)
    assert json.loads(json.dumps(found, allow_nan=False))["cases"] == 90


def test_a_perfect_recall_of_few_cases_is_not_certain() -> None:
    found = class_results(np.eye(2)[[0, 0, 0, 1, 1]], np.array([0, 0, 0, 1, 1]), ["a", "b"], FAST)
    recall = found["classes"]["a"]["recall"]
    assert recall["high"] == 1
    assert 0.3 < recall["low"] < 0.6


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 1.0))
def test_thresholds_reach_what_is_wanted_and_no_higher_one_does(seed: int, wanted: float) -> None:
    rng = np.random.default_rng(seed)
    positive = rng.random(60) < 0.4
    positive[0] = True
    values = (rng.random(60) + positive * 0.3).round(1)
    (found,) = thresholds(values, positive, [wanted])
    assert found["sensitivity"] == pytest.approx((values[positive] >= found["threshold"]).mean(), **CLOSE)
    assert found["sensitivity"] >= wanted - 1e-9
    higher = values[values > found["threshold"]]
    if len(higher):
        assert (values[positive] >= higher.min()).mean() < wanted
    if (~positive).any():
        assert found["specificity"] == pytest.approx((values[~positive] < found["threshold"]).mean(), **CLOSE)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_figures_of_labels_are_those_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = (rng.random((80, 3)) < 0.4).astype(float)
    truth[:2] = [[1, 1, 1], [0, 0, 0]]
    values = (rng.random((80, 3)) * 0.6 + truth * 0.3).round(2)
    unknown = truth.copy()
    unknown[rng.random((80, 3)) < 0.1] = np.nan
    unknown[:2] = truth[:2]
    found = label_results(values, unknown, ["x", "y", "z"], Resampling(samples=2))
    averages = []
    for k, name in enumerate("xyz"):
        known = ~np.isnan(unknown[:, k])
        own = found["classes"][name]
        averages.append(metrics.average_precision_score(truth[known, k], values[known, k]))
        assert own["average_precision"]["value"] == pytest.approx(averages[-1], **CLOSE)
        assert own["auroc"]["value"] == pytest.approx(metrics.roc_auc_score(truth[known, k], values[known, k]), **CLOSE)
        assert own["f1"]["value"] == pytest.approx(metrics.f1_score(truth[known, k], values[known, k] >= 0.5), **CLOSE)
    assert found["mean_average_precision"]["value"] == pytest.approx(np.mean(averages), **CLOSE)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_kappa_of_grades_is_that_of_scikit_learn(seed: int) -> None:
    probabilities, labels = scores(60, 4, seed)
    found = grade_results(probabilities, labels, ["0", "1", "2", "3"], Resampling(samples=2))
    said = probabilities.argmax(1)
    kappa = metrics.cohen_kappa_score(labels, said, weights="quadratic")
    assert found["quadratic_kappa"]["value"] == pytest.approx(kappa, **CLOSE)
    assert found["grade_distance"]["value"] == pytest.approx(metrics.mean_absolute_error(labels, said), **CLOSE)


def test_segments_are_measured_as_monai_does_and_counted_by_hand() -> None:
    truth = torch.zeros(2, 1, 12, 12, 6, dtype=torch.long)
    truth[0, :, 2:6, 2:6, 1:4] = 1
    truth[0, :, 9:11, 9:11, 1:3] = 1
    truth[1, :, 2:6, 2:6, 1:4] = 2
    said = truth.clone()
    # One lesion missed, one invented, one edge moved.
    said[0, :, 9:11, 9:11] = 0
    said[0, :, 0, 10:12, 5] = 1
    said[1, :, 6, 2:6, 1:4] = 2
    found = segment_measures(said, truth, 3, spacing=(2.0, 1.0, 3.0))
    assert (found["lesions"][0, 0], found["lesions_found"][0, 0], found["lesions_invented"][0, 0]) == (2, 1, 1)
    assert found["volume_error"][1, 1] == pytest.approx(12 * 6 / 1000)
    pair = [(part[1:] == 2).float() for part in (said, truth)]
    spacing = [2.0, 1.0, 3.0]
    distance = compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=spacing).item()
    surface = compute_surface_dice(*pair, class_thresholds=[1.0], include_background=True, spacing=spacing).item()
    assert found["surface_distance_95"][1, 1] == pytest.approx(distance, **CLOSE)
    assert found["normalised_surface_dice"][1, 1] == pytest.approx(surface, **CLOSE)
    assert math.isnan(found["dice"][0, 1])
    results = segment_results(found, ["tumour", "cyst"], resampling=FAST)
    assert results["classes"]["tumour"]["total_lesions_invented"] == 1
    assert results["by_case"][1]["labels"]["tumour"]["dice"] is None
    assert results["by_case"][1]["labels"]["cyst"]["volume_error"] == pytest.approx(0.072)
    assert json.dumps(results, allow_nan=False)
    assert segment_results(segment_measures(truth[:1], truth[:1], 3), ["t", "c"], resampling=FAST)["absent"] == ["c"]


def test_arrays_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DatasetError, match="probabilities"):
        class_results(np.ones((3, 2)) / 2, np.zeros(3, int), ["a"])
    with pytest.raises(DatasetError, match="0, 1 or NaN"):
        label_results(np.ones((3, 2)) / 2, np.full((3, 2), 2.0), ["a", "b"])
    with pytest.raises(DatasetError, match="positive spacings"):
        segment_measures(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4), 2, spacing=(1.0, -1.0))
