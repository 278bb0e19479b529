"""Weights of a mixture: the maximum by an independent optimiser, and what symmetry and the prior demand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from monai_medmerge import DatasetError, SettingError
from monai_medmerge.ranking import mixture_weights


def drawn(seed: int, sources: int = 3, cases: int = 25) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(4), size=(sources, cases)), rng.integers(0, 4, cases)


@given(st.integers(0, 10_000), st.sampled_from([1.5, 2.0, 5.0]))
@settings(max_examples=20, deadline=None)
def test_the_posterior_is_at_its_maximum(seed: int, prior: float) -> None:
    probabilities, labels = drawn(seed)
    likelihood = np.maximum(probabilities[:, np.arange(25), labels], 1e-4)

    def loss(free: np.ndarray) -> float:
        weights = np.exp(free - free.max())
        weights /= weights.sum()
        return float(-np.log(weights @ likelihood).sum() - (prior - 1) * np.log(weights).sum())

    best = minimize(loss, np.zeros(3), tol=1e-10)
    weights = mixture_weights(probabilities, labels, prior)
    assert loss(np.log(weights)) == pytest.approx(best.fun, abs=1e-3)
    assert sum(weights) == pytest.approx(1)


@given(st.permutations(range(3)), st.integers(0, 100))
@settings(max_examples=15, deadline=None)
def test_the_order_of_sources_changes_nothing(order: list[int], seed: int) -> None:
    probabilities, labels = drawn(seed)
    weights = mixture_weights(probabilities, labels)
    assert mixture_weights(probabilities[order], labels) == pytest.approx([weights[n] for n in order])


def test_voxels_of_a_case_count_as_one() -> None:
    probabilities, labels = drawn(1)
    repeated = np.repeat(probabilities[..., None], 7, axis=3)
    expected = mixture_weights(probabilities, labels)
    assert mixture_weights(repeated, np.repeat(labels[:, None], 7, axis=1)) == pytest.approx(expected)


def test_what_does_not_fit_is_one_clear_line() -> None:
    probabilities, labels = drawn(0)
    with pytest.raises(DatasetError, match="labels of shape"):
        mixture_weights(probabilities, labels[:-1])
    with pytest.raises(DatasetError, match="class numbers from 0 to 3"):
        mixture_weights(probabilities, labels + 3)
    with pytest.raises(SettingError, match="1 or more"):
        mixture_weights(probabilities, labels, prior=0.5)
