"""The barrier between two networks: ends are the networks themselves, and a permuted copy has none once aligned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from monai_medmerge.errors import IncompatibleSourcesError, SettingError
from monai_medmerge.evaluation.barriers import LossLine, barrier, interpolate
from monai_medmerge.evaluation.report.plots import barrier_plot
from monai_medmerge.networks.alignment.permutation import channel_groups
from monai_medmerge.sources import Source


def build() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 2),
    )  # fmt: skip


def task(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noise, brighter in the left or in the right half."""
    generator = torch.Generator().manual_seed(seed)
    images, labels = torch.randn(count, 1, 10, 10, generator=generator), torch.arange(count) % 2
    images[labels == 0, :, :, :5] += 0.5
    images[labels == 1, :, :, 5:] += 0.5
    return images, labels


def trained(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    network, (images, labels) = build(), task(256, seed)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    return network.eval()


@pytest.fixture(scope="module")
def ends() -> tuple[nn.Module, nn.Module]:
    return trained(1), trained(2)


@pytest.fixture(scope="module")
def batches() -> list[dict[str, Any]]:
    images, labels = task(100, 3)
    return [{"image": images[:64], "label": labels[:64]}, {"image": images[64:], "label": labels[64:]}]


EXAMPLE = torch.randn(2, 1, 10, 10, generator=torch.Generator().manual_seed(0))


def sources(*networks: nn.Module) -> list[Source]:
    return [Source.from_network(network, f"seed {n}") for n, network in enumerate(networks)]


def test_the_ends_are_the_networks_themselves(ends: tuple[nn.Module, nn.Module], batches: list[dict[str, Any]]) -> None:
    images = [batch["image"] for batch in batches]
    lines = barrier(build(), *sources(*ends), batches, EXAMPLE, recalibration_batches=images, points=3)
    assert [line.name for line in lines] == ["raw", "aligned", "recalibrated", "aligned, recalibrated"]
    labels = torch.cat([batch["label"] for batch in batches])
    for end, network in ((0, ends[0]), (-1, ends[1])):
        with torch.no_grad():
            scores = network(torch.cat(images))
        expected = nn.functional.cross_entropy(scores, labels).item()
        for line in lines[:2]:
            assert line.loss[end] == pytest.approx(expected, rel=1e-4)
            assert line.accuracy[end] == pytest.approx((scores.argmax(1) == labels).double().mean().item())
    assert all(line.positions == (0.0, 0.5, 1.0) for line in lines)
    by_name = {line.name: line for line in lines}
    assert by_name["raw"].barrier > 0.05
    assert by_name["aligned, recalibrated"].barrier < by_name["raw"].barrier


def test_a_permuted_copy_has_a_barrier_until_it_is_aligned(
    ends: tuple[nn.Module, nn.Module], batches: list[dict[str, Any]]
) -> None:
    network = ends[0]
    groups = channel_groups(network, EXAMPLE)
    orders = [torch.arange(group.size).roll(3) for group in groups.groups]
    copy = Source("copy", groups.permute(network.state_dict(), orders))
    raw, aligned = barrier(network, Source.from_network(network, "it"), copy, batches, EXAMPLE)
    assert raw.barrier > 0.05
    assert aligned.barrier == pytest.approx(0, abs=1e-5)
    assert aligned.accuracy_barrier == 0
    by_activations = barrier(network, Source.from_network(network, "it"), copy, batches, EXAMPLE, batches)[1]
    assert by_activations.barrier < raw.barrier


def test_numbers_and_plot(tmp_path: Path, ends: tuple[nn.Module, nn.Module], batches: list[dict[str, Any]]) -> None:
    lines = barrier(build(), *sources(*ends), batches, EXAMPLE)
    read = json.loads(json.dumps([line.as_dict() for line in lines]))
    assert read[0]["barrier"] == lines[0].barrier
    assert read[0]["positions"] == [0, 0.25, 0.5, 0.75, 1]
    barrier_plot(lines, tmp_path / "line.png")
    assert (tmp_path / "line.png").read_bytes().startswith(b"\x89PNG")


def test_barriers_are_measured_against_the_mean_of_the_ends() -> None:
    line = LossLine("raw", (0.0, 0.5, 1.0), (0.2, 1.0, 0.4), (0.9, 0.5, 0.8))
    assert line.barrier == pytest.approx(0.7)
    assert line.accuracy_barrier == pytest.approx(0.35)
    assert str(line) == "raw: barrier 0.7000 in loss, 35.0 points of accuracy"


def test_integers_are_not_interpolated() -> None:
    first, second = {"count": torch.tensor(3), "w": torch.tensor([1.0])}, {"count": torch.tensor(9), "w": torch.ones(1)}
    assert interpolate(first, second, 0.5)["count"] == 3


@pytest.mark.parametrize("points", [1, 2, 4])
def test_the_midpoint_must_be_one_of_the_points(points: int, batches: list[dict[str, Any]]) -> None:
    with pytest.raises(SettingError, match="odd"):
        barrier(build(), *sources(build(), build()), batches, EXAMPLE, points=points)


def test_sources_must_fit(batches: list[dict[str, Any]]) -> None:
    with pytest.raises(IncompatibleSourcesError):
        barrier(build(), *sources(build(), nn.Linear(2, 2)), batches, EXAMPLE)
