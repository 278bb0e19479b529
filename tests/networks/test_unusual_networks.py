"""Networks and starts off the beaten path: shared parameters, parametrisations, coefficients that make no sense."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from monai_medmerge import Source, coefficients, fold, merge
from monai_medmerge.errors import SettingError
from monai_medmerge.methods import merge_with


class Tied(nn.Module):
    """Two layers with one weight, and an autoencoder's pair of convolutions with another."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.down, self.up = nn.Conv1d(1, 3, 2), nn.ConvTranspose1d(3, 1, 2)
        self.up.weight = self.down.weight

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.up(self.down(self.second(self.first(values))[:, None]))[:, 0]


@pytest.fixture
def sources() -> list[Source]:
    return [Source.from_network(Tied(seed), f"seed {seed}") for seed in (1, 2)]


def test_a_shared_parameter_is_merged_and_stays_shared(sources: list[Source]) -> None:
    values = torch.randn(3, 4)
    one = fold(merge(Tied(0), sources, start="anchor", anchor=1))
    assert torch.equal(one(values), Tied(2)(values))
    uniform = merge(Tied(0), sources)
    assert torch.allclose(fold(uniform)(values), merge_with("uniform_average", Tied(0), sources)(values), atol=1e-6)
    assert sorted(coefficients(uniform)) == [
        "down.bias", "down.weight", "first.bias", "first.weight", "second.bias", "up.bias",
    ]  # fmt: skip
    for folded in (one, fold(copy.deepcopy(uniform))):
        assert folded.second.weight is folded.first.weight
        assert folded.up.weight is folded.down.weight


@pytest.mark.parametrize("granularity", ["layer", "kernel", "slice"])
@pytest.mark.parametrize("residual", [False, True])
def test_what_shares_a_parameter_learns_together(sources: list[Source], granularity: str, residual: bool) -> None:
    merged = merge(Tied(0), sources, granularity, residual=residual)
    optimizer = torch.optim.SGD([p for p in merged.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        merged(torch.randn(8, 4)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert torch.equal(merged.first.weight, merged.second.weight)
    assert torch.equal(merged.down.weight, merged.up.weight)
    values = torch.randn(3, 4)
    assert torch.equal(fold(merged)(values), merged(values))


def test_parametrizations_are_refused_and_kept() -> None:
    normed = nn.Sequential(weight_norm(nn.Conv1d(1, 2, 3)), nn.ReLU())
    with pytest.raises(SettingError, match=r"0: .*remove_parametrizations.*weight"):
        merge(normed, [Source.from_network(normed, "a")])
    assert normed(torch.zeros(1, 1, 3)).shape == (1, 2, 1)
    plain = nn.Linear(2, 2)
    merged = merge(plain, [Source.from_network(plain, "a")])
    with pytest.raises(SettingError, match="fold a merged one"):
        merge(merged, [Source.from_network(plain, "a")])


@pytest.mark.parametrize(
    ("constraint", "start", "words"),
    [
        ("free", torch.tensor([torch.nan, 1.0]), "NaN"),
        ("softmax", torch.tensor([-0.5, 1.5]), "at least 0"),
        ("softmax", torch.tensor([2.0, 2.0]), "sum of 4"),
        ("affine", torch.tensor([1.0, 1.0]), "sum of 2"),
        ("softmax", {"first.weight": torch.zeros(2, 4)}, "start, first.weight: .*sum of 0"),
        ("free", {"first.wieght": torch.ones(2, 4)}, "names of the network's tensors, found first.wieght"),
        ("free", torch.ones(3), r"shape \(2,\)"),
    ],
)
def test_starts_that_would_become_another_are_refused(
    sources: list[Source], constraint: str, start: torch.Tensor | dict[str, torch.Tensor], words: str
) -> None:
    with pytest.raises(SettingError, match=words):
        merge(Tied(0), sources, constraint=constraint, start=start)


@pytest.mark.parametrize("constraint", ["affine", "free"])
def test_a_source_taken_away_leaves_variances_positive(constraint: str) -> None:
    networks = [nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)) for _ in range(2)]
    networks[1][1].running_var.fill_(3)
    sources = [Source.from_network(network, f"{n}") for n, network in enumerate(networks)]
    merged = merge(networks[0], sources, constraint=constraint, start=torch.tensor([2.0, -1.0]))
    assert (merged[1].running_var > 0).all()
    assert merged.eval()(torch.randn(4, 2)).isfinite().all()


@pytest.mark.parametrize("constraint", ["softmax", "affine", "free"])
@pytest.mark.parametrize("shares", [[0.0, 1.0, 0.0], [0.2, 0.5, 0.3], [0.0, 0.5, 0.5]])
def test_what_a_source_lacks_is_taken_from_the_others(constraint: str, shares: list[float]) -> None:
    networks = [nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)) for _ in range(3)]
    encoder = {name: tensor for name, tensor in networks[1].state_dict().items() if name.startswith("0.")}
    sources = [Source.from_network(networks[n], f"{n}") for n in range(3)]
    sources[1] = Source("1", encoder)
    start = torch.tensor(shares)
    for given in (start, {name: start[:, None].expand(-1, 2) for name in networks[0].state_dict()}):
        tables = coefficients(merge(networks[0], sources, constraint=constraint, start=given))
        assert torch.allclose(tables["0.weight"], start[:, None].expand(-1, 2), atol=1e-6)
        assert torch.allclose(tables["1.weight"].sum(0), torch.ones(2))
        rest = start[0] + start[2]
        expected = torch.tensor([start[0] / rest, 0, start[2] / rest] if rest else [1.0, 0, 0])
        assert torch.allclose(tables["1.weight"], expected[:, None].expand(-1, 2), atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "rows"),
    [
        (nn.MultiheadAttention(8, 2), {"in_proj_weight": 24, "out_proj.weight": 8}),
        (nn.LSTM(4, 8), {"weight_ih_l0": 32, "weight_hh_l0": 32}),
        (nn.GRUCell(4, 8), {"weight_ih": 24, "weight_hh": 24}),
        (nn.Bilinear(3, 4, 5), {"weight": 5}),
    ],
)
def test_kernels_of_attention_and_recurrent_layers_are_rows(layer: nn.Module, rows: dict[str, int]) -> None:
    merged = merge(layer, [Source.from_network(layer, name) for name in ("a", "b")])
    tables = coefficients(merged)
    assert {name: tables[name].shape[1] for name in rows} == rows
    with torch.no_grad():
        for parameter in merged.parameters():
            parameter.add_(torch.rand_like(parameter))
    tables = coefficients(merged)
    for name in rows:
        bias = name.replace("weight", "bias")
        assert torch.equal(tables[bias], tables[name]), "a bias follows its weight"


def test_integer_parameters_stay_as_they_are() -> None:
    network = nn.Linear(2, 2)
    network.table = nn.Parameter(torch.arange(3), requires_grad=False)
    folded = fold(merge(network, [Source.from_network(network, "a")]))
    assert torch.equal(folded.table, torch.arange(3))
    assert folded.weight.requires_grad


def test_a_pattern_that_excludes_nothing_is_told(sources: list[Source], caplog: pytest.LogCaptureFixture) -> None:
    merge(Tied(0), sources, exclude=["first.wieght", "second.*"])
    assert "first.wieght" in caplog.text
    assert "second" not in caplog.text
