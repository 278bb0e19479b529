"""Where coefficients start."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from monai_medmerge import Source
from monai_medmerge.bundle import best_start, choose_start

HEAD = ["2.*"]
Batches = list[dict[str, torch.Tensor]]


def build(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))


@pytest.fixture(scope="module")
def batches() -> Batches:
    """Classes that no linear function of the image tells apart: the product of two values is positive or not."""
    torch.manual_seed(0)
    images = torch.randn(160, 6)
    return [{"image": part, "label": (part[:, 0] * part[:, 1] > 0).long()} for part in images.split(40)]


@pytest.fixture(scope="module")
def expert(batches: Batches) -> nn.Sequential:
    network = build(1)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for batch in batches * 100:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(batch["image"]), batch["label"]).backward()
        optimizer.step()
    return network


def test_children_of_one_ancestor_start_at_their_average(expert: nn.Sequential, batches: Batches) -> None:
    noise = 3 * torch.randn(16, 6)
    weight = expert[0].weight.detach()
    children = [
        Source(name, {"0.weight": weight + sign * noise, "0.bias": expert[0].bias.detach()})
        for name, sign in (("one", 1), ("other", -1))
    ]
    assert best_start(build(2), children, batches, HEAD) == ("uniform", 0)


@pytest.mark.parametrize("position", [0, 1, 2])
def test_strangers_start_at_the_one_that_knows(expert: nn.Sequential, batches: Batches, position: int) -> None:
    strangers = [Source.from_network(build(seed), f"stranger {seed}") for seed in (3, 4)]
    strangers.insert(position, Source.from_network(expert, "expert"))
    assert best_start(build(2), strangers, batches, HEAD) == ("anchor", position)


def test_a_choice_changes_nothing_and_is_the_same_again(expert: nn.Sequential, batches: Batches) -> None:
    sources = [Source.from_network(expert, "expert"), Source.from_network(build(3), "stranger")]
    network = build(2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.random.get_rng_state()
    found = [choose_start("best", 1, network, sources, batches, HEAD, seed=5) for _ in range(2)]
    assert found[0] == found[1]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_what_is_given_is_taken(batches: Batches) -> None:
    assert choose_start("anchor", 1, build(2), [], batches, HEAD) == ("anchor", 1)
    assert choose_start("best", 3, build(2), [Source.from_network(build(3), "alone")], batches) == ("anchor", 0)
