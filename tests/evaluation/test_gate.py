"""The gate: what equals the network in use passes, whatever is planted is caught, old shortcomings are no new ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.networks.nets import ResNet
from safetensors.torch import save_file
from torch import Tensor, nn

from monai_medmerge.evaluation import check, compare, compare_predictions
from monai_medmerge.evaluation.bootstrap import Resampling
from monai_medmerge.evaluation.comparison.volumes import compare_dice
from monai_medmerge.evaluation.gate import FAILED, INHERITED, PASSED, UNDECIDED
from monai_medmerge.sources.filling import load_weights

FAST = Resampling(samples=100)
CLASSES = ["cyst", "benign", "malignant"]
LABELS = np.arange(600) % 3
SITE = {"site": [["north", "south"][(n // 3) % 2] for n in range(600)]}


def network_in_use(right: float = 0.9, seed: int = 0, sure: float | None = None) -> np.ndarray:
    """Probabilities of a network that is right that often, and as sure as it is right unless told."""
    rng = np.random.default_rng(seed)
    hit = rng.random(600) < right
    said = np.where(hit, LABELS, (LABELS + 1 + rng.integers(0, 2, 600)) % 3)
    confidence = rng.normal(right if sure is None else sure, 0.03, 600).clip(0.5, 0.999)
    found = np.repeat((1 - confidence)[:, None] / 2, 3, axis=1)
    # The second choice of a wrong answer is the truth, as networks mostly have it.
    found += rng.uniform(0, 0.01, found.shape)
    found[np.arange(600), said] = confidence
    return found / found.sum(1, keepdims=True)


IN_USE = network_in_use()
RIGHT = np.flatnonzero(IN_USE.argmax(1) == LABELS)


def turned(cases: np.ndarray, to: int | None = None) -> np.ndarray:
    """The network in use, wrong in these cases."""
    found = IN_USE.copy()
    for case in cases:
        other = (LABELS[case] + 1) % 3 if to is None else to
        found[case, [LABELS[case], other]] = found[case, [other, LABELS[case]]]
    return found


def of_class(number: int) -> np.ndarray:
    return RIGHT[LABELS[RIGHT] == number]


def sharpened(power: float) -> np.ndarray:
    found = IN_USE**power
    return found / found.sum(1, keepdims=True)


def disordered() -> np.ndarray:
    """The same answers, the more sure the more wrong."""
    right = IN_USE.argmax(1) == LABELS
    confidence = np.where(right, np.linspace(0.55, 0.9, 600), 0.89)
    found = np.repeat((1 - confidence)[:, None], 3, axis=1)
    found[np.arange(600), (IN_USE.argmax(1) + 1) % 3] = 0.0
    found[np.arange(600), IN_USE.argmax(1)] = confidence
    wrong = np.flatnonzero(~right)
    # The truth comes last where it was missed.
    for case in wrong:
        third = ({0, 1, 2} - {LABELS[case], IN_USE[case].argmax()}).pop()
        found[case, [LABELS[case], third]] = 0.0, 1 - confidence[case]
    return found


def balanced() -> np.ndarray:
    """As many cases right as before, others than before."""
    wrong = np.flatnonzero(IN_USE.argmax(1) != LABELS)
    found = turned(RIGHT[: len(wrong)])
    found[wrong] = np.eye(3)[LABELS[wrong]] * 0.85 + 0.05
    return found


def traded() -> np.ndarray:
    """Worse in the south, better in the north: equal over all."""
    site = np.array(SITE["site"])
    wrong = np.flatnonzero((IN_USE.argmax(1) != LABELS) & (site == "north"))
    found = turned(RIGHT[site[RIGHT] == "south"][: len(wrong)])
    found[wrong] = np.eye(3)[LABELS[wrong]] * 0.85 + 0.05
    return found


PLANTED: dict[str, tuple[Callable[[], np.ndarray], str]] = {
    "two classes are exchanged": (lambda: IN_USE[:, [1, 0, 2]], "class_drop"),
    "one class is never said": (lambda: turned(of_class(2), to=0), "class_drop"),
    "one class is said too often": (lambda: turned(of_class(0)[:15], to=2), "class_drop"),
    "the same answers with far too much confidence": (lambda: sharpened(6), "confident_errors"),
    "the same answers with far too little confidence": (lambda: sharpened(0.3), "calibration_error"),
    "the same answers without an order among them": (disordered, "ranking_drop"),
    "as many right as before, others than before": (balanced, "negative_flips"),
    "better at one site, worse at the other": (traded, "group_drop"),
    "every answer is one class": (lambda: np.tile([0.9, 0.05, 0.05], (600, 1)), "overall_drop"),
    "answers of another case": (lambda: np.roll(IN_USE, 1, axis=0), "overall_drop"),
    "one class in twenty is missed": (lambda: turned(of_class(1)[::20]), "class_drop"),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_what_is_planted_is_caught(kind: str) -> None:
    plant, limit = PLANTED[kind]
    found = check(compare_predictions(IN_USE, plant(), LABELS, CLASSES, SITE, resampling=FAST))
    assert found.outcome == FAILED
    assert limit in {verdict.limit for verdict in found.verdicts if verdict.outcome == FAILED}


def test_the_network_in_use_is_no_worse_than_itself_by_more_than_noise() -> None:
    """What is planted would prove little if everything failed."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        near = IN_USE * rng.uniform(0.98, 1.02, IN_USE.shape)
        found = check(
            compare_predictions(IN_USE, near / near.sum(1, keepdims=True), LABELS, CLASSES, SITE, resampling=FAST)
        )
        assert found.outcome == PASSED, str(found)


def segmentations() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    dice = np.random.default_rng(0).uniform(0.8, 0.95, (200, 2))
    return dice, {"lesions invented": np.zeros((200, 2)), "lesions missed": np.zeros((200, 2))}


@pytest.mark.parametrize(
    "kind", ["an organ is lost", "lesions are invented", "lesions are missed", "labels are swapped"]
)
def test_what_is_planted_in_segmentations_is_caught(kind: str) -> None:
    dice, lesions = segmentations()
    now, more = dice.copy(), {name: values.copy() for name, values in lesions.items()}
    if kind == "an organ is lost":
        now[::10, 1], limit = 0, "class_drop"
    elif kind == "labels are swapped":
        now[:, 0] -= 0.03
        limit = "class_drop"
    else:
        name, limit = (
            ("lesions invented", "invented_lesions") if "invented" in kind else ("lesions missed", "missed_lesions")
        )
        more[name][::5, 0] = 1
    both = {name: (lesions[name], more[name]) for name in lesions}
    found = check(compare_dice(dice, now, np.full_like(dice, 0.9), ["left", "right"], resampling=FAST, more=both))
    assert found.outcome == FAILED
    assert limit in {verdict.limit for verdict in found.verdicts if verdict.outcome == FAILED}


def test_a_limit_that_both_miss_is_no_regression_unless_it_got_worse() -> None:
    unsure = network_in_use(right=0.9, sure=0.6)
    near = unsure * np.random.default_rng(1).uniform(0.999, 1.001, unsure.shape)
    near /= near.sum(1, keepdims=True)
    found = check(compare_predictions(unsure, near, LABELS, CLASSES, resampling=FAST))
    assert found.outcome == PASSED, str(found)
    assert [verdict.limit for verdict in found.inherited] == ["calibration_error"]
    assert "in use 0." in found.inherited[0].reason
    worse = 0.7 * unsure + 0.3 / 3
    found = check(compare_predictions(unsure, worse, LABELS, CLASSES, resampling=FAST))
    assert found.outcome == FAILED
    assert not found.inherited


def test_an_equal_candidate_passes_whatever_the_limits_and_however_few_the_cases() -> None:
    for cases in (1, 9, 600):
        for gate in (None, {"limits": {"calibration_error": 0.0, "group_drop": 0.0}}, {"limits": {}}):
            part = slice(0, cases)
            found = check(compare_predictions(IN_USE[part], IN_USE[part], LABELS[part], CLASSES, resampling=FAST), gate)
            assert (found.outcome, found.exit_status) == (PASSED, 0)
            assert "gives the answers of the network in use" in str(found)
    dice = segmentations()[0]
    assert check(compare_dice(dice, dice, np.ones_like(dice), ["a", "b"], resampling=FAST)).outcome == PASSED
    # Equal overlap with the truth is not equal.
    other = compare_dice(dice[:20], dice[:20], np.full((20, 2), 0.9), ["a", "b"], resampling=FAST)
    assert check(other).outcome == UNDECIDED


def test_a_class_without_a_case_and_a_small_group_are_undecided_by_name() -> None:
    labels = np.where(LABELS == 2, 0, LABELS)
    near = 0.99 * IN_USE + 0.01 / 3
    site = {"site": ["north"] * 595 + ["south"] * 5}
    found = compare_predictions(IN_USE, near, labels, CLASSES, site, resampling=FAST)
    assert (found.absent, found.hidden) == (("malignant",), (("site", "south"),))
    assert [row.group for row in found.select("site", "accuracy")] == ["north"]
    verdicts = {verdict.what: verdict.outcome for verdict in check(found).verdicts}
    assert verdicts["drop in recall of malignant"] == UNDECIDED
    assert verdicts["drop in macro F1 where site is south, of fewer than 10 cases"] == UNDECIDED
    assert set(verdicts.values()) <= {PASSED, UNDECIDED, INHERITED}


def resave(state: dict[str, Tensor], folder: Path, form: int) -> Path:
    """The same weights as people save them."""
    forms: list[Callable[[Path], None]] = [
        lambda path: torch.save(state, path),
        lambda path: torch.save({"state_dict": state, "epoch": 3}, path),
        lambda path: torch.save({"model": state, "optimizer": {}}, path),
        lambda path: save_file({name: tensor.contiguous() for name, tensor in state.items()}, path),
        lambda path: torch.save(dict(reversed(list(state.items()))), path),
    ]
    path = folder / ("again.safetensors" if form == 3 else "again.pt")
    forms[form](path)
    return path


@pytest.mark.parametrize("form", range(5))
def test_no_resaved_candidate_is_refused(form: int, tmp_path: Path) -> None:
    """Ten networks in each of five forms, good and bad, of few cases and many."""
    for seed in range(10):
        torch.manual_seed(seed)
        build: Callable[[], nn.Module] = lambda: ResNet("basic", [1, 1, 1, 1], [2, 2, 2, 4], 2, 1, num_classes=2)  # noqa: E731
        reference, candidate, cases = build(), build(), (8, 150)[seed % 2]
        # Of all kinds: far too sure, so that absolute limits are missed.
        reference.fc.weight.data *= 1 + 40 * (seed % 3)
        folder = tmp_path / str(seed)
        folder.mkdir()
        file = resave(reference.state_dict(), folder, form)
        load_weights(candidate, file)
        data = [(torch.randn(cases, 1, 16, 16), torch.arange(cases) % 2)]
        found = check(compare(reference, candidate, data, ["a", "b"], changes={}, samples=20, pictures=0))
        assert (found.outcome, found.equal) == (PASSED, True)
