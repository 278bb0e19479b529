"""The pick of a source by few labels: what noise, leaks and hopeless cases do to it."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from monai_medmerge.ranking.picking import probe_log_loss, probe_losses


def drawn(seed: int, cases: int = 30, apart: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(cases) % 3
    return rng.normal(size=(cases, 8)) + apart * np.eye(8)[labels], labels


@given(st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_features_that_tell_classes_apart_have_the_lower_loss(seed: int) -> None:
    known, labels = drawn(seed)
    noise, _ = drawn(seed, apart=0.0)
    assert probe_log_loss(known, labels, seed=seed) < probe_log_loss(noise, labels, seed=seed)


def test_labels_without_meaning_are_worth_no_less_than_chance() -> None:
    noise, labels = drawn(0, cases=90, apart=0.0)
    # Held-out cases are not known: a loss below that of the class frequencies would be a leak.
    assert probe_log_loss(noise, labels) > np.log(3) * 0.95


def test_cases_of_one_group_do_not_vouch_for_each_other() -> None:
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(12), 6)
    labels = (groups % 2).astype(np.int64)
    # Features know the group and nothing of the label.
    features = rng.normal(size=(12, 20))[groups] + 0.01 * rng.normal(size=(72, 20))
    assert probe_log_loss(features, labels) < 0.3 < probe_log_loss(features, labels, groups)


def test_a_class_with_one_case_cannot_be_cross_validated() -> None:
    features, _ = drawn(0, cases=6)
    assert np.isnan(probe_log_loss(features, np.array([0, 0, 0, 0, 0, 1])))
    assert np.isnan(probe_log_loss(features, np.zeros(6, int)))


def test_networks_are_compared_on_the_same_images() -> None:
    torch.manual_seed(0)
    labels = torch.arange(40) % 2
    images = torch.randn(40, 6)
    images[:, 0] += 4 * labels
    sees, blind = (nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)) for _ in range(2))
    with torch.no_grad():
        sees[0].weight[:, 0], blind[0].weight[:, 0] = 1.0, 0.0
    first, second = probe_losses([sees, blind], [{"image": images, "label": labels}])
    assert first < second
