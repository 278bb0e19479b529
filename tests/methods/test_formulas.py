"""Every formula against another way to compute it: numpy in float64, number by number where that is clearest."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from monai_medmerge.errors import SettingError
from monai_medmerge.methods import (
    breadcrumbs,
    dare,
    fisher,
    isotropic,
    model_stock,
    pleas,
    regmean,
    slerp,
    task_arithmetic,
    ties,
    uniform_average,
    weighted_average,
)

SHAPES = [(7,), (4, 3), (3, 2, 3, 3), ()]


def draw(count: int, shape: tuple[int, ...] = (4, 3), seed: int = 0) -> list[Tensor]:
    generator = Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(count)]


def close(found: Tensor, expected: np.ndarray) -> bool:
    assert found.dtype == torch.float64
    return bool(np.allclose(found.numpy(), expected, rtol=1e-10, atol=1e-12))


@pytest.mark.parametrize("shape", SHAPES)
def test_averages(shape: tuple[int, ...]) -> None:
    tensors = draw(3, shape)
    stacked = np.stack([t.numpy() for t in tensors])
    assert close(uniform_average(tensors), stacked.mean(0))
    assert close(weighted_average(tensors, weights=[1, 0, 5]), np.average(stacked, axis=0, weights=[1, 0, 5]))


@given(st.lists(st.floats(0.01, 100), min_size=2, max_size=5), st.floats(0.1, 10))
@settings(max_examples=25, deadline=None)
def test_only_ratios_of_weights_matter(weights: list[float], factor: float) -> None:
    tensors = draw(len(weights))
    scaled = [factor * weight for weight in weights]
    assert torch.allclose(weighted_average(tensors, weights=weights), weighted_average(tensors, weights=scaled))


@pytest.mark.parametrize("t", [0.0, 0.25, 0.5, 1.0])
def test_slerp_moves_at_constant_angle_and_speed(t: float) -> None:
    # On the unit circle the answer is known without the formula.
    angles = (0.3, 2.0)
    ends = [torch.tensor([math.cos(a), math.sin(a)], dtype=torch.float64) for a in angles]
    at = angles[0] + t * (angles[1] - angles[0])
    assert close(slerp(ends, t=t), np.array([math.cos(at), math.sin(at)]))


def test_slerp_without_an_arc_is_the_straight_line() -> None:
    a = draw(1)[0]
    for b in (2 * a, -a, torch.zeros_like(a)):
        assert torch.allclose(slerp([a, b], t=0.25), 0.75 * a + 0.25 * b)


@pytest.mark.parametrize("shape", SHAPES)
def test_task_arithmetic(shape: tuple[int, ...]) -> None:
    *tensors, base = draw(4, shape)
    expected = base.numpy() + 0.3 * sum(t.numpy() - base.numpy() for t in tensors)
    assert close(task_arithmetic(tensors, base, scale=0.3), expected)


def ties_by_hand(tensors: list[Tensor], base: Tensor, density: float, scale: float) -> np.ndarray:
    """Trim by sorting, then elect and merge one number at a time."""
    differences = [(t - base).numpy().ravel().copy() for t in tensors]
    for difference in differences:
        kept = max(round(density * difference.size), 1)
        difference[np.argsort(np.abs(difference))[: difference.size - kept]] = 0
    merged = []
    for i in range(base.numel()):
        column = [d[i] for d in differences]
        positive, negative = sum(v for v in column if v > 0), -sum(v for v in column if v < 0)
        winners = [v for v in column if (v > 0 if positive > negative else v < 0)] if positive != negative else []
        merged.append(scale * sum(winners) / len(winners) if winners else 0.0)
    return base.numpy() + np.array(merged).reshape(base.shape)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("density", [0.01, 0.2, 0.5, 1.0])
def test_ties(shape: tuple[int, ...], density: float) -> None:
    *tensors, base = draw(5, shape)
    assert close(ties(tensors, base, density=density, scale=0.7), ties_by_hand(tensors, base, density, 0.7))


def test_ties_elects_nothing_between_opposites() -> None:
    a, b = draw(2)
    assert torch.allclose(ties([a, b], (a + b) / 2, density=1.0), (a + b) / 2)


def test_dare_drops_its_share_and_keeps_the_expectation() -> None:
    base, tensor = torch.zeros(20_000, dtype=torch.float64), torch.full((20_000,), 3.0, dtype=torch.float64)
    merged = dare([tensor], base, Generator().manual_seed(1), drop=0.8, scale=1.0)
    assert torch.allclose(merged.unique(), torch.tensor([0.0, 15.0], dtype=torch.float64))
    # Five standard deviations of a mean of that many draws.
    assert abs(float((merged == 0).double().mean()) - 0.8) < 5 * math.sqrt(0.8 * 0.2 / 20_000)
    assert abs(float(merged.mean()) - 3.0) < 5 * 15 * math.sqrt(0.8 * 0.2 / 20_000)


def test_dare_without_drops_is_task_arithmetic() -> None:
    *tensors, base = draw(4)
    merged = dare(tensors, base, Generator().manual_seed(0), drop=0.0, scale=0.4)
    assert torch.allclose(merged, task_arithmetic(tensors, base, scale=0.4))


@pytest.mark.parametrize("count", [2, 3, 5])
def test_model_stock_against_angles_of_pairs(count: int) -> None:
    *tensors, base = draw(count + 1, seed=3)
    # Shifted alike, so that the mean cosine is positive.
    tensors = [t + 2 for t in tensors]
    differences = [(t - base).numpy().ravel() for t in tensors]
    cosines = [
        a @ b / np.linalg.norm(a) / np.linalg.norm(b) for i, a in enumerate(differences) for b in differences[:i]
    ]
    cosine = np.mean(cosines)
    assert cosine > 0
    t = count * cosine / (1 + (count - 1) * cosine)
    mean = np.mean([t.numpy() for t in tensors], axis=0)
    assert close(model_stock(tensors, base), t * mean + (1 - t) * base.numpy())


def test_model_stock_of_opposites_is_its_base() -> None:
    a, b = draw(2)
    assert torch.allclose(model_stock([a, 2 * b - a], b), b)


def test_fisher() -> None:
    tensors, fishers = draw(3), [t.square() for t in draw(3, seed=9)]
    fishers[1][0] = 0
    floored = [np.maximum(f.numpy(), 0.1) for f in fishers]
    expected = sum(f * t.numpy() for f, t in zip(floored, tensors, strict=True)) / sum(floored)
    assert close(fisher(tensors, fishers=fishers, floor=0.1), expected)


@pytest.mark.parametrize("groups", [1, 2])
def test_regmean_is_the_least_squares_fit(groups: int) -> None:
    # With all of the inner products kept (almost), the outputs on all data are as close as any weights can make them.
    shape = (4, 3, 2)
    weights, inputs = draw(3, shape), draw(3, (groups, 20, 6), seed=5)
    grams = [x.mT @ x for x in inputs]
    found = regmean(weights, grams=grams, off_diagonal=1 - 1e-12).reshape(groups, -1, 6)
    for g in range(groups):
        rows = np.concatenate([x[g].numpy() for x in inputs])
        outputs = [x[g].numpy() @ w.reshape(groups, -1, 6)[g].numpy().T for x, w in zip(inputs, weights, strict=True)]
        expected = np.linalg.lstsq(rows, np.concatenate(outputs), rcond=None)[0].T
        assert np.allclose(found[g].numpy(), expected, atol=1e-8)


def test_regmean_shrinks_off_the_diagonal() -> None:
    weights, inputs = draw(2, (3, 4)), draw(2, (9, 4), seed=5)
    grams = [(x.mT @ x).numpy() for x in inputs]
    shrunk = [0.6 * g + 0.4 * np.diag(np.diag(g)) for g in grams]
    right = sum(g @ w.numpy().T for g, w in zip(shrunk, weights, strict=True))
    expected = (np.linalg.inv(sum(shrunk)) @ right).T
    assert close(regmean(weights, grams=[torch.tensor(g)[None] for g in grams], off_diagonal=0.6), expected)
    # Without them each column is a mean weighted by its own power.
    power = np.stack([np.diag(g) for g in grams])[:, None]
    expected = (power * np.stack([w.numpy() for w in weights])).sum(0) / power.sum(0)
    assert close(regmean(weights, grams=[torch.tensor(g)[None] for g in grams], off_diagonal=0.0), expected)


def test_regmean_keeps_the_mean_where_no_data_was() -> None:
    weights, inputs = draw(2, (3, 4)), draw(2, (9, 4), seed=5)
    for x in inputs:
        x[:, 2] = 0
    found = regmean(weights, grams=[(x.mT @ x)[None] for x in inputs])
    assert torch.allclose(found[:, 2], (weights[0] + weights[1])[:, 2] / 2)
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_numbers_are_summed_wide(dtype: torch.dtype) -> None:
    # 2048 + 1 is not a float16: summed there, the ones would vanish.
    tensors = [torch.tensor([2048.0]).to(dtype), *[torch.ones(1).to(dtype)] * 3]
    merged = uniform_average(tensors)
    assert merged.dtype == torch.float32
    assert merged.item() == 2051 / 4


@pytest.mark.parametrize(
    ("call", "where"),
    [
        (lambda t, b: weighted_average(t, weights=[1, -1]), "weights"),
        (lambda t, b: weighted_average(t, weights=[1, math.nan]), "weights"),
        (lambda t, b: slerp(t, t=1.5), "slerp, t"),
        (lambda t, b: slerp([*t, b]), "slerp"),
        (lambda t, b: ties(t, b, density=0), "density"),
        (lambda t, b: dare(t, b, Generator(), drop=1.0), "drop"),
        (lambda t, b: fisher(t, fishers=t, floor=0), "floor"),
        (lambda t, b: fisher(t, fishers=[t[0][:, :1]] * 2), "fishers"),
        (lambda t, b: regmean(t, grams=[torch.eye(3)[None]] * 2, off_diagonal=1.0), "off_diagonal"),
        (lambda t, b: regmean(t, grams=[torch.eye(2)[None]] * 2), "grams"),
    ],
)
def test_what_is_out_of_range_is_refused(call: object, where: str) -> None:
    *tensors, base = draw(3)
    with pytest.raises(SettingError, match=where):
        call(tensors, base)  # type: ignore[operator]


def test_ties_keeps_what_is_as_large_as_the_smallest_that_stays() -> None:
    assert torch.equal(ties([torch.ones(5)], torch.zeros(5), density=0.2), torch.ones(5))
    mixed = torch.tensor([3.0, 1.0, -1.0, 1.0, 0.5])
    assert ties([mixed], torch.zeros(5), density=0.4).tolist() == [3.0, 1.0, -1.0, 1.0, 0.0]


def breadcrumbs_by_hand(
    tensors: list[Tensor], base: Tensor, density: float, outliers: float, scale: float
) -> np.ndarray:
    """Definition of the paper: per tensor, numbers above one percentile and below another are masked."""
    merged = base.numpy().ravel().copy()
    for tensor in tensors:
        difference = (tensor - base).numpy().ravel()
        ranked = sorted(range(difference.size), key=lambda i: -abs(difference[i]))
        top = min(round(outliers * difference.size), difference.size - 1)
        for i in ranked[top : top + max(round(density * difference.size), 1)]:
            merged[i] += scale * difference[i]
    return merged.reshape(base.shape)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("density", "outliers"), [(0.9, 0.01), (0.2, 0.3), (1.0, 0.0), (0.01, 0.99)])
def test_breadcrumbs(shape: tuple[int, ...], density: float, outliers: float) -> None:
    *tensors, base = draw(4, shape, seed=5)
    found = breadcrumbs(tensors, base, density=density, outliers=outliers, scale=0.3)
    assert close(found, breadcrumbs_by_hand(tensors, base, density, outliers, 0.3))


def test_breadcrumbs_with_all_crumbs_is_task_arithmetic() -> None:
    *tensors, base = draw(4)
    found = breadcrumbs(tensors, base, density=1.0, outliers=0.0, scale=0.4)
    assert torch.allclose(found, task_arithmetic(tensors, base, scale=0.4))


@pytest.mark.parametrize("shares", [(0.0, 0.0), (0.9, 0.2), (1.1, 0.0), (0.5, -0.1)])
def test_breadcrumbs_refuses_shares_out_of_range(shares: tuple[float, float]) -> None:
    with pytest.raises(SettingError, match="together at most 1"):
        breadcrumbs(draw(2), draw(1)[0], density=shares[0], outliers=shares[1])


@pytest.mark.parametrize("shape", [(4, 3), (3, 5), (3, 2, 3, 3)])
def test_isotropic_has_one_singular_value_and_the_directions_of_the_sum(shape: tuple[int, ...]) -> None:
    *tensors, base = draw(4, shape, seed=7)
    total = sum((t - base).numpy() for t in tensors).reshape(shape[0], -1)
    found = (isotropic(tensors, base, scale=0.5) - base).numpy().reshape(shape[0], -1) / 0.5
    values = np.linalg.svd(total, compute_uv=False)
    assert np.allclose(np.linalg.svd(found, compute_uv=False), values.mean())
    # The polar factor of the sum, from its eigenvalues and not from its singular vectors.
    narrow = total if total.shape[0] <= total.shape[1] else total.T
    squares, vectors = np.linalg.eigh(narrow @ narrow.T)
    polar = vectors @ np.diag(squares**-0.5) @ vectors.T @ narrow
    expected = values.mean() * (polar if narrow is total else polar.T)
    assert np.allclose(found, expected)


def test_isotropic_vectors_take_the_mean_and_absent_directions_stay_absent() -> None:
    *tensors, base = draw(4, (7,))
    assert torch.allclose(isotropic(tensors, base), torch.stack(tensors).mean(0))
    row = torch.zeros(3, 4, dtype=torch.float64)
    row[1] = 2.0
    assert torch.allclose(isotropic([row], torch.zeros_like(row)), row)


@pytest.mark.parametrize("groups", [1, 2])
def test_pleas_is_the_least_squares_solution_over_rows(groups: int) -> None:
    rows = [t.reshape(groups, 50, 6) for t in draw(3, (groups * 50, 6), seed=2)]
    weights = draw(3, (4 * groups, 6), seed=3)
    mean_in = sum(r.numpy() for r in rows) / 3
    moments = [torch.from_numpy(np.einsum("gmi,gmj->gij", r.numpy(), mean_in) / 50) for r in rows]
    found = pleas(weights, moments=moments, ridge=1e-12).numpy().reshape(groups, 4, 6)
    for g in range(groups):
        out = sum(r[g].numpy() @ w.numpy().reshape(groups, 4, 6)[g].T for r, w in zip(rows, weights, strict=True)) / 3
        assert np.allclose(found[g], np.linalg.lstsq(mean_in[g], out, rcond=None)[0].T, atol=1e-6)


def test_pleas_keeps_the_mean_where_nothing_was_seen_and_refuses_what_does_not_fit() -> None:
    a, b = draw(2)
    assert torch.allclose(pleas([a, b], moments=[torch.zeros(1, 3, 3)] * 2), (a + b) / 2)
    with pytest.raises(SettingError, match="pleas, moments"):
        pleas([a, b], moments=[torch.zeros(1, 2, 2)] * 2)
    with pytest.raises(SettingError, match="pleas, ridge"):
        pleas([a, b], moments=[torch.zeros(1, 3, 3)] * 2, ridge=0.0)
