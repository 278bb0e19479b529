"""What is decided, by sources whose worth is known beforehand; and that every decision is told."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_medmerge import DatasetError, SettingError
from monai_medmerge.ranking.decision import Evidence, decide, frequency_loss, own_loss
from monai_medmerge.ranking.mixture import mixture_weights

LABELS = np.arange(30) % 3
NO_LABELS = np.empty(0, np.int64)
NAMES = ["a", "b", "c"]


def saying(right: float) -> np.ndarray:
    """Probabilities that give the label its share, the others the rest."""
    found = np.full((len(LABELS), 3), (1 - right) / 2)
    found[np.arange(len(LABELS)), LABELS] = right
    return found


def test_those_that_know_are_weighed_and_the_others_are_not_believed() -> None:
    said = [saying(0.9), saying(0.1), saying(0.6)]
    found = decide(Evidence(NAMES, [0.5, 0.4, 0.6, 0.7], said, LABELS, 100))
    expected = mixture_weights(np.stack([said[0], said[2]]), LABELS)
    assert found.weights == (pytest.approx(expected[0]), 0.0, pytest.approx(expected[1]))
    assert (found.way, found.start, found.tune) == ("teach", 1, True)
    assert "a and c are believed" in found.reasons[0]
    assert "b is not" in found.reasons[0]
    assert "starts from b" in found.reasons[1]
    assert "100 unlabelled images" in found.reasons[2]


def test_the_average_is_where_training_starts_if_its_probe_is_best() -> None:
    found = decide(Evidence(NAMES, [0.5, 0.4, 0.6, 0.3], [None] * 3, LABELS, 0))
    assert (found.way, found.start, found.weights) == ("fine-tune", None, (0.0, 0.0, 0.0))
    assert "No source has a head" in found.reasons[0]


def test_without_labels_all_count_the_same_and_nothing_is_tuned() -> None:
    empty = np.empty((0, 3))
    found = decide(Evidence(NAMES, [float("nan")] * 4, [empty] * 3, NO_LABELS, 100))
    assert (found.way, found.start, found.tune) == ("teach", None, False)
    assert found.weights == pytest.approx([1 / 3] * 3)
    assert "undecided until labelled cases are held to the gate" in found.reasons[-1]


def test_labels_too_few_for_a_probe_are_asked_of_the_sources() -> None:
    found = decide(Evidence(NAMES, [float("nan")] * 4, [saying(0.5), None, saying(0.7)], LABELS, 10))
    assert found.start == 2
    assert decide(Evidence(NAMES, [float("nan")] * 4, [None] * 3, LABELS, 10)).start is None


def test_nothing_to_learn_from_is_refused() -> None:
    with pytest.raises(SettingError, match="labels, or unlabelled images"):
        decide(Evidence(NAMES, [1.0] * 4, [np.empty((0, 3))] * 3, NO_LABELS, 0))
    with pytest.raises(SettingError, match="a head for these classes, found none in b"):
        decide(Evidence(["a", "b"], [1.0] * 3, [np.empty((0, 3)), None], NO_LABELS, 5))
    with pytest.raises(DatasetError, match="one loss more"):
        decide(Evidence(NAMES, [1.0] * 3, [None] * 3, LABELS, 5))


def test_frequencies_are_those_of_the_other_labels() -> None:
    labels = np.array([0, 0, 0, 1, 2, 2])
    said = [(np.bincount(np.delete(labels, n), minlength=3) + 1) / (len(labels) + 2) for n in range(len(labels))]
    assert frequency_loss(labels, 3) == pytest.approx(own_loss(np.stack(said), labels))


@given(st.permutations(range(3)), st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_the_order_of_sources_changes_nothing(order: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    said, probes = [saying(right) for right in rng.uniform(0.2, 0.9, 3)], rng.uniform(0.2, 1.0, 4).tolist()
    first = decide(Evidence(NAMES, probes, said, LABELS, 9))
    moved = Evidence(
        [NAMES[n] for n in order], [*(probes[n] for n in order), probes[3]], [said[n] for n in order], LABELS, 9
    )
    second = decide(moved)
    assert second.weights == pytest.approx([first.weights[n] for n in order], abs=1e-6)
    assert (None if second.start is None else order[second.start]) == first.start
