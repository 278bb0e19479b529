"""Bounds and symmetries of the measures of uncertainty."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monai_medmerge.label.uncertainty import disagreement, entropy, probabilities


@given(st.integers(0, 100), st.integers(2, 5), st.integers(2, 4))
def test_shares_of_the_greatest_possible(seed: int, classes: int, members: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    answers = [torch.randn((classes, 3, 4), generator=generator).mul(4).softmax(0) for _ in range(members)]
    assert 0 <= entropy(answers[0]) <= 1 + 1e-6
    assert 0 <= disagreement(answers) <= 1 + 1e-6
    assert disagreement(answers) == pytest.approx(disagreement(answers[::-1]), abs=1e-6)
    assert disagreement([answers[0]] * members) == pytest.approx(0, abs=1e-6)


def test_members_that_are_sure_of_different_classes_disagree_most() -> None:
    sure = list(torch.eye(3))
    assert disagreement(sure) == pytest.approx(1)
    assert disagreement(sure[:2]) == pytest.approx(1)
    assert disagreement([sure[0], torch.full((3,), 1 / 3)]) < 1


def test_probabilities_stay_and_logits_become_them() -> None:
    logits = torch.randn((3, 2, 2), generator=torch.Generator().manual_seed(1)) * 5
    share = logits.softmax(0)
    torch.testing.assert_close(probabilities(logits), share)
    torch.testing.assert_close(probabilities(share), share)
    torch.testing.assert_close(probabilities(torch.tensor([[3.0, -2.0]])).sum(0), torch.ones(2))
