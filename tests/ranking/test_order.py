"""Ranking: scores against independent formulas, and planted truths: copies are redundant, random weights come last."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.networks.nets import ResNet, UNet, ViT
from scipy import optimize, stats
from torch import Tensor, nn

from monai_medmerge.errors import DatasetError, IncompatibleSourcesError, SettingError
from monai_medmerge.networks import recalibrate
from monai_medmerge.ranking.features import VOXELS, extract, layer_before_scores
from monai_medmerge.ranking.order import rank
from monai_medmerge.ranking.transferability import cka, h_score, linear_probe, log_evidence
from monai_medmerge.sources import Source


def task(count: int, seed: int, classes: int = 3) -> tuple[Tensor, Tensor]:
    """Stripes whose direction is the class, at any place and phase, under noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    angle = labels * torch.pi / classes
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    phase = 6.28 * torch.rand(count, 1, 1, generator=generator)
    along = x * angle.cos()[:, None, None] + y * angle.sin()[:, None, None]
    return (torch.sin(along + phase) + 1.5 * torch.randn(count, 16, 16, generator=generator))[:, None], labels


def build() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 5), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 5, stride=2), nn.BatchNorm2d(16),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip


def trained(seed: int, steps: int) -> nn.Module:
    torch.manual_seed(seed)
    network, (images, labels) = build(), task(240, seed)
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    return network.eval()


@pytest.fixture(scope="module")
def useful() -> list[Source]:
    return [Source.from_network(trained(seed, 25), f"stripes {seed}") for seed in (1, 2)]


@pytest.fixture(scope="module")
def batches() -> list[dict[str, Any]]:
    images, labels = task(150, 9)
    return [{"image": i, "label": k} for i, k in zip(images.split(64), labels.split(64), strict=True)]


@pytest.mark.parametrize("seed", range(5))
def test_random_weights_come_last_and_copies_are_redundant(
    useful: list[Source], batches: list[dict[str, Any]], seed: int
) -> None:
    torch.manual_seed(100 + seed)
    random, copy = Source.from_network(build(), "random"), Source("copy", useful[1].tensors)
    ranking = rank(build(), [random, *useful, copy], batches, seed=seed)
    assert [score.name for score in ranking.scores][-1] == "random"
    twins = {score.name: score.redundant_with for score in ranking.scores if score.redundant_with}
    assert twins == {"copy": "stripes 2"}
    assert set(ranking.proposed) - {"random"} == {"stripes 1", "stripes 2"}
    assert ranking.anchor in ("stripes 1", "stripes 2")
    assert [source.name for source in ranking.select([random, *useful, copy])] == list(ranking.proposed)
    assert "redundant: the same features as stripes 2" in str(ranking)


def test_a_copy_with_its_channels_in_another_order_is_redundant(
    useful: list[Source], batches: list[dict[str, Any]]
) -> None:
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    moved = {n: t[order] if n.startswith(("3.", "4.")) and t.ndim else t for n, t in useful[0].tensors.items()}
    moved["8.weight"] = moved["8.weight"][:, order]
    ranking = rank(build(), [useful[0], Source("permuted", moved)], batches)
    # Both score the same but for rounding, so that either may be first.
    first, second = ranking.scores
    assert (first.redundant_with, second.redundant_with) == ("", first.name)


def test_data_is_read_once_and_nothing_is_touched(useful: list[Source], batches: list[dict[str, Any]]) -> None:
    network = build().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    def once() -> Iterator[tuple[Tensor, Tensor]]:
        yield from ((batch["image"], batch["label"]) for batch in batches)

    random_state = torch.get_rng_state()
    ranking = rank(network, useful, once())
    assert torch.equal(random_state, torch.get_rng_state())
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert ranking.as_dict() == rank(network, useful, batches).as_dict()
    assert json.loads(json.dumps(ranking.as_dict(), allow_nan=False))["images"] == 150


def test_more_source_layers_than_the_network_has_are_no_matter(batches: list[dict[str, Any]]) -> None:
    torch.manual_seed(0)
    half = Source("half", {n: t for n, t in build().state_dict().items() if not n.startswith("8.")})
    assert rank(build(), [half], batches).proposed == ("half",)


def test_what_cannot_be_ranked_is_refused(useful: list[Source], batches: list[dict[str, Any]]) -> None:
    images, labels = task(8, 0)
    with pytest.raises(DatasetError, match="two classes"):
        rank(build(), useful, [(images, torch.zeros_like(labels))])
    with pytest.raises(DatasetError, match="batch"):
        rank(build(), useful, [])
    with pytest.raises(DatasetError, match="image and label"):
        rank(build(), useful, [images])
    with pytest.raises(SettingError, match="'nine'"):
        rank(build(), useful, batches, layer="nine")
    with pytest.raises(IncompatibleSourcesError):
        rank(nn.Linear(2, 2), useful, batches)


def test_one_case_of_a_class_leaves_the_probe_unknown(useful: list[Source]) -> None:
    images, labels = task(30, 0)
    labels = torch.where(torch.arange(30) == 0, 2, labels % 2)
    ranking = rank(build(), useful, [(images, labels)])
    assert math.isnan(ranking.scores[0].linear_probe)
    assert ranking.as_dict()["scores"][0]["linear_probe"] is None


@pytest.mark.parametrize(
    ("network", "shape", "expected"),
    [
        (ResNet("basic", [1, 1, 1, 1], [4, 8, 8, 16], 2, 1, num_classes=3), (2, 1, 32, 32), ("fc", (2, 16))),
        (ViT(1, 16, 8, 12, 24, 1, 2, classification=True, num_classes=3, spatial_dims=2), (2, 1, 16, 16),
         ("classification_head.0", (2, 12))),
        (UNet(2, 1, 3, (4, 8), (2,)), (2, 1, 16, 16), (None, None)),
    ],
    ids=["ResNet", "ViT", "UNet"],
)  # fmt: skip
def test_the_last_layer_is_found(network: nn.Module, shape: tuple[int, ...], expected: tuple[Any, Any]) -> None:
    layer = layer_before_scores(network, torch.zeros(shape))
    found = extract([network], [(torch.rand(shape), torch.tensor([0, 1]))], layer)[0].values
    assert expected[0] in (layer, None)
    assert expected[1] in (found.shape, None)
    # The head, given these features, says what the network says.
    if expected[0] is not None and not isinstance(network, ViT):
        images = torch.rand(shape)
        values = extract([network], [(images, torch.tensor([0, 1]))], layer)[0].values
        head = network.get_submodule(layer)
        with torch.no_grad():
            scores = network.eval()(images)
            assert torch.allclose(head(torch.from_numpy(values).float()), scores, atol=1e-5)


def test_label_maps_are_ranked_by_voxels() -> None:
    torch.manual_seed(0)
    masks = (torch.rand(6, 1, 4, 4) > 0.6).repeat_interleave(4, 2).repeat_interleave(4, 3)
    images = masks + 0.2 * torch.randn(6, 1, 16, 16)
    network = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1))
    found = extract([network], [(images, masks.long())])[0]
    assert found.voxels
    assert all((found.labels[found.images == n] == k).sum() <= VOXELS for n in range(6) for k in (0, 1))
    one_hot = torch.cat([~masks, masks], 1).long()
    assert np.array_equal(extract([network], [(images, one_hot)])[0].values, found.values)
    ranking = rank(network, [Source.from_network(network, "a")], [(images, masks.long())])
    assert ranking.images == 6
    assert ranking.samples == len(found.labels)
    assert ranking.scores[0].linear_probe > 0.9


def test_the_log_evidence_is_that_of_a_gaussian_process() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 3
    features = rng.normal(size=(40, 6)) + np.eye(3, 6)[labels]

    def negative(logs: np.ndarray, y: np.ndarray) -> float:
        alpha, beta = np.exp(logs)
        covariance = features @ features.T / alpha + np.eye(len(y)) / beta
        return -float(stats.multivariate_normal.logpdf(y, cov=covariance))

    best = [optimize.minimize(negative, [0, 1], args=(1.0 * (labels == k),), method="Nelder-Mead") for k in range(3)]
    expected = np.mean([-found.fun / 40 for found in best])
    assert log_evidence(features, labels) == pytest.approx(expected, abs=1e-3)


def test_the_h_score_of_many_cases_is_that_of_the_plain_formula() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(30_000) % 3
    features = rng.normal(size=(30_000, 4)) @ rng.normal(size=(4, 4)) + np.eye(3, 4)[labels]
    means = np.stack([features[labels == k].mean(0) for k in range(3)])[labels]
    plain = np.trace(np.linalg.inv(np.cov(features.T)) @ np.cov(means.T))
    assert h_score(features, labels) == pytest.approx(plain, rel=0.01)
    # Shrinkage keeps it finite where the plain formula has no inverse.
    few = rng.normal(size=(12, 50))
    assert 0 <= h_score(few, np.arange(12) % 3) <= 2
    assert h_score(np.ones((6, 4)), np.arange(6) % 2) == 0


def test_cka_is_the_ratio_of_unbiased_sums() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 3)), rng.normal(size=(7, 5))

    def hsic(a: np.ndarray, b: np.ndarray) -> float:
        """Song et al.: over all ways to take 2, 4 and 3 different cases."""
        n, k, m = len(a), a @ a.T, b @ b.T
        r = range(n)
        two = sum(k[i, j] * m[i, j] for i in r for j in r if i != j)
        four = sum(k[i, j] * m[p, q] for i in r for j in r for p in r for q in r if len({i, j, p, q}) == 4)
        three = sum(k[i, j] * m[i, q] for i in r for j in r for q in r if len({i, j, q}) == 3)
        pairs, triples = n * (n - 1), n * (n - 1) * (n - 2)
        return two / pairs + four / (triples * (n - 3)) - 2 * three / triples

    assert cka(x, y) == pytest.approx(hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y)))
    rotation = stats.ortho_group.rvs(3, random_state=0)
    assert cka(x, 1e-6 * x @ rotation + 5) == pytest.approx(1)
    assert math.isnan(cka(x[:3], y[:3]))
    assert math.isnan(cka(x, np.ones((7, 2))))


def test_the_probe_keeps_groups_together() -> None:
    rng = np.random.default_rng(0)
    # Features name the group and say nothing of the class, so only a leak between folds can beat chance.
    groups = np.repeat(np.arange(40), 10)
    labels = rng.integers(0, 2, 40)[groups]
    features = rng.normal(size=(40, 60))[groups] + 0.01 * rng.normal(size=(400, 60))
    assert linear_probe(features, labels) > 0.95
    assert linear_probe(features, labels, groups) < 0.75


@pytest.mark.skipif("MEDMERGE_DATA" not in os.environ, reason="MEDMERGE_DATA names no folder of real data")
def test_real_networks_on_ultrasound(bundle_root: Path) -> None:
    file = Path(os.environ["MEDMERGE_DATA"], "medmnist", "breastmnist.npz")
    if not file.is_file():
        pytest.skip("medmnist/breastmnist.npz is not in MEDMERGE_DATA")
    with np.load(file) as arrays:
        pixels, labels = arrays["train_images"][:400], arrays["train_labels"][:400].ravel()
    images = nn.functional.interpolate(torch.from_numpy(pixels).float()[:, None], (64, 64), mode="bilinear")
    images = (images - images.mean((1, 2, 3), keepdim=True)) / images.std((1, 2, 3), keepdim=True)

    def network() -> nn.Module:
        return ResNet("basic", [2, 2, 2, 2], [16, 32, 64, 128], 2, 1, 7, 2, num_classes=2)

    torch.manual_seed(0)
    names = ("natural", "chest_xray", "brain_mri")
    sources = [Source.from_file(bundle_root / "models" / f"{name}.safetensors") for name in names]
    sources += [Source("copy", sources[0].tensors), Source.from_network(network(), "random")]
    data = [(images, torch.from_numpy(labels).long())]
    ranking = rank(network(), sources, data, prepare=lambda copied: recalibrate(copied, data))
    assert {s.name: s.redundant_with for s in ranking.scores if s.redundant_with} == {"copy": "natural"}
    assert ranking.anchor in ("natural", "brain_mri")
    assert "random" not in ranking.proposed
