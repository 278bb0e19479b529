"""Recalibration pools moments, and puts everything else back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from monai_medmerge import DatasetError, recalibrate


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=5).filter(lambda sizes: sum(sizes) > 1), st.integers(0, 2**31))
def test_moments_are_those_of_all_numbers_together(sizes: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    batches = [torch.randn(n, 3, 4, 5, generator=generator) * (n + 1) + 10 * i for i, n in enumerate(sizes)]
    norm = nn.BatchNorm2d(3)
    recalibrate(norm, [{"image": batch} for batch in batches])
    everything = torch.cat(batches).double().transpose(0, 1).flatten(1)
    assert torch.allclose(norm.running_mean.double(), everything.mean(1), rtol=1e-5, atol=1e-5)
    assert torch.allclose(norm.running_var.double(), everything.var(1), rtol=1e-5)


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: (x, 0), lambda x: [x], lambda x: {"image": x, "label": 0}])
def test_batches_of_every_form(wrap: object) -> None:
    norm = nn.BatchNorm1d(1)
    recalibrate(norm, [wrap(torch.tensor([[0.0], [4.0]]))])
    assert norm.running_mean.item() == 2


def test_modes_momenta_and_counters_are_put_back() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, momentum=0.3), nn.Dropout(), nn.BatchNorm2d(2))
    network[0].eval()
    network[3].eval()
    network[3].momentum = None
    before = [module.training for module in network.modules()]
    recalibrate(network, [torch.randn(4, 1, 8, 8)])
    assert [module.training for module in network.modules()] == before
    assert (network[1].momentum, network[3].momentum) == (0.3, None)
    assert network[1].num_batches_tracked == 0


def test_a_failure_leaves_everything_as_it_was() -> None:
    network = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout())
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for batches, error in [([], DatasetError), (["text"], DatasetError), ([torch.randn(2, 5, 8, 8)], RuntimeError)]:
        with pytest.raises(error):
            recalibrate(network, batches)
        assert all(torch.equal(state[name], tensor) for name, tensor in network.state_dict().items())
        assert network.training
        assert network[0].momentum == 0.1
        assert not network[0]._forward_pre_hooks


def test_without_batchnorm_no_batch_is_drawn() -> None:
    recalibrate(nn.InstanceNorm2d(2, track_running_stats=True), iter(()))


class Idle(nn.Module):
    """With a head for training alone, as deep supervision has."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.idle = nn.BatchNorm2d(1), nn.BatchNorm2d(1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.used(image)


def test_layers_that_are_not_run_keep_their_statistics(caplog: pytest.LogCaptureFixture) -> None:
    network = Idle()
    with caplog.at_level("INFO"):
        recalibrate(network, [torch.randn(4, 1, 8, 8) + 3])
    assert network.used.running_mean.item() == pytest.approx(3, abs=0.3)
    assert network.idle.running_mean.item() == 0
    assert "idle" in caplog.text


def test_a_last_batch_of_one_number_per_channel_counts_like_any() -> None:
    values = torch.randn(5, 2, 1, 1)
    norm = recalibrate(nn.Sequential(nn.BatchNorm2d(2)), values.split(4))[0]
    assert torch.allclose(norm.running_mean, values.mean((0, 2, 3)))
    assert torch.allclose(norm.running_var, values.var((0, 2, 3)))


@pytest.mark.parametrize(
    ("batches", "words"),
    [([torch.full((2, 1, 4, 4), torch.nan)], "finite"), ([torch.zeros(1, 1, 1, 1)], "two numbers")],
)
def test_what_has_no_moments_is_refused_by_layer(batches: list[torch.Tensor], words: str) -> None:
    network = nn.Sequential(nn.Identity(), nn.BatchNorm2d(1))
    with pytest.raises(DatasetError, match=f"recalibration, 1: expected .*{words}"):
        recalibrate(network, batches)
    assert network[1].running_mean.item() == 0
