"""Paired tests against statsmodels' formula and scipy, and comparisons of any number of labels against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, wilcoxon
from sklearn import metrics

from monai_medmerge.evaluation.bootstrap import Resampling
from monai_medmerge.evaluation.comparison.cases import ALL, CLASS
from monai_medmerge.evaluation.comparison.labels import compare_labels
from monai_medmerge.evaluation.comparison.paired import paired_tests
from monai_medmerge.evaluation.comparison.predictions import compare_predictions
from monai_medmerge.evaluation.comparison.volumes import compare_dice

FAST = Resampling(samples=50)


@pytest.mark.parametrize(("worse", "better"), [(3, 12), (7, 7), (0, 1), (25, 4)])
def test_mcnemar_is_the_sum_of_the_binomial_tail(worse: int, better: int) -> None:
    change = np.array([-1.0] * worse + [1.0] * better + [0.0] * 40)
    found = paired_tests({"": change}, FAST)[0]
    tail = 2 * binom.cdf(min(worse, better), worse + better, 0.5)
    assert found.p == pytest.approx(min(1.0, tail), abs=1e-12)
    assert (found.worse, found.better) == (worse, better)


def test_images_of_one_patient_are_one_observation() -> None:
    change = np.repeat([1.0, -1.0, 1.0], 10)
    alone = paired_tests({"": change}, FAST)[0]
    patients = paired_tests({"": change}, Resampling(groups=np.repeat(["a", "b", "c"], 10).tolist()))[0]
    assert (alone.better, patients.better, patients.worse) == (20, 2, 1)
    assert patients.p == 1.0


def test_holm_is_monotone_and_never_below_p() -> None:
    rng = np.random.default_rng(0)
    tests = paired_tests({str(n): rng.integers(-1, 2, 80) + 0.0 for n in range(6)}, FAST)
    ordered = sorted(tests, key=lambda test: test.p)
    assert all(test.adjusted >= test.p for test in tests)
    assert [test.adjusted for test in ordered] == sorted(test.adjusted for test in tests)
    assert ordered[0].adjusted == pytest.approx(min(1, 6 * ordered[0].p))


def test_flips_either_way_are_named_and_tested() -> None:
    labels = np.arange(60) % 2
    right = np.where(labels[:, None] == [0, 1], 0.8, 0.2)
    before, now = right.copy(), right.copy()
    before[:3], now[10:15] = before[:3, ::-1], now[10:15, ::-1]
    found = compare_predictions(before, now, labels, ["a", "b"], resampling=FAST)
    assert [case.name for case in found.gained] == ["case 0", "case 1", "case 2"]
    assert [case.name for case in found.flipped] == [f"case {n}" for n in range(10, 15)]
    assert [(test.of, test.worse, test.better) for test in found.tests] == [("", 5, 3), ("a", 3, 2), ("b", 2, 1)]
    assert not {test.p for test in compare_predictions(right, right, labels, ["a", "b"], resampling=FAST).tests} - {1.0}


def test_dice_is_tested_by_scipys_wilcoxon_for_each_label() -> None:
    rng = np.random.default_rng(1)
    before = rng.uniform(0.5, 0.9, (30, 2))
    now = before + rng.normal(0.02, 0.03, before.shape)
    before[:4, 1] = now[:4, 1] = np.nan
    found = compare_dice(before, now, before, ["liver", "spleen"], resampling=FAST)
    by_class = {test.of: test for test in found.tests}
    assert by_class["liver"].p == pytest.approx(wilcoxon(now[:, 0] - before[:, 0]).pvalue, abs=1e-12)
    assert by_class["spleen"].p == pytest.approx(wilcoxon((now - before)[4:, 1]).pvalue, abs=1e-12)


def test_grades_have_kappa_and_distance_of_scikit_learn() -> None:
    rng = np.random.default_rng(2)
    labels, said = rng.integers(0, 4, 200), rng.dirichlet(np.ones(4), (2, 200))
    found = compare_predictions(*said, labels, list("abcd"), resampling=FAST, ordinal=True)
    (kappa,), (distance,) = found.select(ALL, "quadratic kappa"), found.select(ALL, "grade distance")
    expected = metrics.cohen_kappa_score(labels, said[1].argmax(1), weights="quadratic")
    assert kappa.found.candidate.value == pytest.approx(expected, abs=1e-9)
    assert distance.found.candidate.value == pytest.approx(np.abs(said[1].argmax(1) - labels).mean(), abs=1e-9)


def test_labels_equal_scikit_learn_and_absent_ones_are_named() -> None:
    rng = np.random.default_rng(3)
    truth = (rng.random((300, 4)) < 0.3).astype(float)
    truth[:, 3] = 0
    both = (0.6 * truth + 0.4 * rng.random(truth.shape)), 0.4 * truth + 0.6 * rng.random(truth.shape)
    truth[rng.random(truth.shape) < 0.1] = np.nan
    names = ["effusion", "nodule", "mass", "hernia"]
    sites = {"site": ["north", "south", "west"] * 100}
    found = compare_labels(*both, truth, names, sites, resampling=FAST)
    assert found.absent == ("hernia",)
    for k, name in enumerate(names[:3]):
        known = ~np.isnan(truth[:, k])
        own = {row.measure: row.found.candidate.value for row in found.rows if (row.scope, row.group) == (CLASS, name)}
        scores, real = both[1][known, k], truth[known, k]
        assert own["AUROC"] == pytest.approx(metrics.roc_auc_score(real, scores), abs=1e-9)
        assert own["average precision"] == pytest.approx(metrics.average_precision_score(real, scores), abs=1e-9)
        assert own["F1"] == pytest.approx(metrics.f1_score(real, scores >= 0.5), abs=1e-9)
        assert own["recall"] == pytest.approx(metrics.recall_score(real, scores >= 0.5), abs=1e-9)
        assert own["precision"] == pytest.approx(metrics.precision_score(real, scores >= 0.5), abs=1e-9)
    assert {row.group for row in found.rows if row.scope == "site"} == {"north", "south", "west"}
    assert found.tests[0].worse > found.tests[0].better
