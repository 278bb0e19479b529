"""Alignment: a permuted copy is found again, every source computes what it did, and the anchor is left alone."""

from __future__ import annotations

import itertools

import monai.networks.nets as nets
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from torch import Tensor, nn
from variants import build, example, flat

from monai_medmerge.errors import DatasetError, IncompatibleSourcesError, MedMergeError, SettingError
from monai_medmerge.networks.alignment.aligning import align, filled_state
from monai_medmerge.networks.alignment.assignment import (
    _Comoments,
    assign_by_activations,
    assign_by_weights,
    best_order,
)
from monai_medmerge.networks.alignment.permutation import ChannelGroups, channel_groups
from monai_medmerge.sources import Source

# Sixty-four channels or more in every group that is worth a name.
WIDE = {
    "ResNet": (lambda d: nets.ResNet("bottleneck", [1, 1, 1, 1], [64, 64, 64, 64], d, 1, 3, 2), 32),
    "DenseNet": (lambda d: nets.DenseNet(d, 1, 3, 64, 64, (2, 2), bn_size=1), 32),
    "UNet": (lambda d: nets.UNet(d, 1, 3, (64, 64, 128), (2, 2), num_res_units=2), 16),
    "SegResNet": (lambda d: nets.SegResNet(d, 64, 1, 3, blocks_down=(1, 1), blocks_up=(1,)), 16),
    "AttentionUnet": (lambda d: nets.AttentionUnet(d, 1, 3, (64, 128), (2,)), 16),
    "ViT": (lambda d: nets.ViT(1, (16,) * d, (8,) * d, 64, 128, 2, 4, classification=True, spatial_dims=d), 16),
}


def permuted(network: nn.Module, groups: ChannelGroups, seed: int = 0) -> tuple[dict[str, Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(group.size, generator=generator) for group in groups.groups]
    return groups.permute({n: t.clone() for n, t in network.state_dict().items()}, orders), orders


def recovered(orders: list[Tensor], found: tuple[Tensor, ...]) -> float:
    """Share of channels that are back in their place."""
    right = [order[back] == torch.arange(len(order)) for order, back in zip(orders, found, strict=True)]
    return float(torch.cat(right).double().mean())


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", WIDE)
def test_a_permuted_copy_is_matched_back_by_weights(name: str, dims: int) -> None:
    torch.manual_seed(0)
    construct, size = WIDE[name]
    network = construct(dims)
    groups = channel_groups(network, torch.randn(2, 1, *[16 if dims == 3 else size] * dims))
    copy, orders = permuted(network, groups)
    parameters = {n for n, _ in network.named_parameters()}
    original = {n: t for n, t in network.state_dict().items() if n in parameters}
    found = assign_by_weights(groups, original, {n: copy[n] for n in parameters})
    assert recovered(orders, found.orders) >= 0.99
    assert found.before < 0.9
    assert found.after == pytest.approx(1, abs=1e-5)


# Without ReLU: a channel that is dead on the data has no activations to be known by.
@pytest.mark.parametrize("variant", ["UNet-batch-2d", "UNet-instance-3d", "DynUNet-2d", "MedNeXt-2d", "SwinUNETR-2d"])
def test_a_permuted_copy_is_matched_back_by_activations(variant: str) -> None:
    network = build(variant, 0).eval()
    groups = channel_groups(network, example(variant))
    copy, orders = permuted(network, groups)
    other = build(variant, 1).eval()
    other.load_state_dict(copy)
    batches = [torch.randn_like(example(variant)) for _ in range(3)]
    ((found, unseen),) = assign_by_activations(groups, network, [other], batches)
    assert not unseen
    assert recovered(orders, found.orders) >= 0.99
    assert found.after >= 0.99 > found.before
    assert not any(module._forward_pre_hooks for module in (*network.modules(), *other.modules()))


def sources_of(variant: str, count: int = 3) -> list[Source]:
    return [Source.from_network(build(variant, seed=n + 1), f"source{n}") for n in range(count)]


def outputs(variant: str, source: Source) -> list[Tensor]:
    network = build(variant, 0).eval()
    network.load_state_dict(source.tensors)
    with torch.no_grad():
        return flat(network(example(variant)))


@pytest.mark.parametrize("by", ["weights", "activations"])
@pytest.mark.parametrize("variant", ["ResNet18-2d", "DynUNet-3d", "MedNeXt-2d", "ViT-2d"])
def test_aligned_sources_compute_what_they_did(variant: str, by: str) -> None:
    network, sources = build(variant, 0).train(), sources_of(variant)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    hashes = [Source(source.name, dict(source.tensors)).sha256 for source in sources]
    # A generator can be gone through once.
    batches = None if by == "weights" else ({"image": example(variant), "label": None} for _ in range(2))
    aligned = align(network, sources, example(variant), batches, anchor=1)
    assert aligned[1] is sources[1]
    assert [source.name for source in aligned] == ["source0", "source1", "source2"]
    for source, given_source in zip(aligned, sources, strict=True):
        assert list(source.tensors) == list(given_source.tensors)
        for a, b in zip(outputs(variant, source), outputs(variant, given_source), strict=True):
            assert (a - b).abs().max() <= 1e-4 * b.abs().max()
    for n in (0, 2):
        record = aligned[n].provenance["alignment"]
        assert aligned[n].sha256 != sources[n].sha256
        assert (record["anchor"], record["by"]) == ("source1", by)
        assert record["groups"] == len(channel_groups(network, example(variant)).groups)
        assert 0 < record["moved"] <= record["channels"]
        assert record["similarity_after"] > record["similarity_before"]
    # Nothing of the caller's has changed.
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert [Source(source.name, dict(source.tensors)).sha256 for source in sources] == hashes


def test_buffers_move_along_and_types_stay() -> None:
    network = build("ResNet18-2d", 0)
    copy, _ = permuted(network, channel_groups(network, example("ResNet18-2d")))
    halves = {n: t.half() if t.is_floating_point() else t for n, t in copy.items()}
    anchor, other = Source.from_network(network, "anchor"), Source("other", halves)
    tensors = align(network, [anchor, other], example("ResNet18-2d"))[1].tensors
    for name, tensor in anchor.tensors.items():
        assert tensors[name].dtype == halves[name].dtype
        torch.testing.assert_close(tensors[name].to(tensor), tensor, rtol=1e-2, atol=1e-3)


def test_sources_that_cover_a_part_are_aligned_in_it() -> None:
    network = build("ResNet18-2d", 0)
    groups = channel_groups(network, example("ResNet18-2d"))
    copy, orders = permuted(network, groups)
    # A head for five classes, and none of its biases.
    copy["fc.weight"], copy["fc.bias"] = torch.randn(5, 32), torch.randn(5)
    part = {name: tensor for name, tensor in copy.items() if name != "fc.bias"}
    anchor, other = Source.from_network(network, "anchor"), Source("part", part)
    aligned = align(network, [anchor, other], example("ResNet18-2d"))[1]
    assert list(aligned.tensors) == list(part)
    assert torch.equal(aligned.tensors["layer4.1.conv2.weight"], anchor.tensors["layer4.1.conv2.weight"])
    last = next(n for n, g in enumerate(groups.groups) if any(m.tensor == "fc.weight" for m in g.members))
    assert torch.equal(aligned.tensors["fc.weight"][:, orders[last]], part["fc.weight"])


def test_images_may_be_meta_tensors() -> None:
    network, sources, image = build("UNet-batch-2d", 0), sources_of("UNet-batch-2d", 2), example("UNet-batch-2d")
    for batches in (None, [image]):
        plain = align(network, sources, image, batches)[1]
        meta = None if batches is None else [{"image": MetaTensor(image)}]
        assert align(network, sources, MetaTensor(image), meta)[1].sha256 == plain.sha256


def test_a_single_source_and_the_anchor_come_back_as_they_are() -> None:
    network, (source,) = build("UNet-batch-2d", 0), sources_of("UNet-batch-2d", 1)
    assert align(network, [source], example("UNet-batch-2d")) == [source]


def test_what_is_not_read_by_a_layer_is_matched_by_weights_and_said() -> None:
    class Summed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(3, 16), nn.Linear(3, 16)

        def forward(self, x: Tensor) -> Tensor:
            # No layer reads the product: the channels are summed.
            return (self.first(x) * self.second(x)).sum(1, keepdim=True)

    torch.manual_seed(0)
    network = Summed()
    copy, _ = permuted(network, channel_groups(network, torch.randn(4, 3)))
    sources = [Source.from_network(network, "a"), Source("b", copy)]
    aligned = align(network, sources, torch.randn(4, 3), batches=[torch.randn(20, 3)])[1]
    assert aligned.provenance["alignment"]["by_weights"] == ["first.weight"]
    assert all(torch.equal(aligned.tensors[name], tensor) for name, tensor in sources[0].tensors.items())


@pytest.mark.parametrize("anchor", [-1, 2])
def test_an_anchor_that_is_none_of_the_sources(anchor: int) -> None:
    with pytest.raises(SettingError, match="anchor"):
        align(build("UNet-batch-2d", 0), sources_of("UNet-batch-2d", 2), example("UNet-batch-2d"), anchor=anchor)


def test_refusals() -> None:
    network, sources, image = build("UNet-batch-2d", 0), sources_of("UNet-batch-2d", 2), example("UNet-batch-2d")
    with pytest.raises(DatasetError, match="at least one batch"):
        align(network, sources, image, batches=[])
    with pytest.raises(IncompatibleSourcesError):
        align(network, [sources[0], Source("other", {"x": torch.ones(2)})], image)
    overflowing = {n: t * 1e30 if t.is_floating_point() else t for n, t in sources[1].tensors.items()}
    with pytest.raises(MedMergeError, match="huge"):
        align(network, [sources[0], Source("huge", overflowing)], image)


def test_a_network_s_own_values_fill_what_a_source_lacks() -> None:
    network = nn.Linear(2, 3)
    filled = filled_state(network, Source("part", {"weight": torch.ones(3, 2), "bias": torch.ones(4)}))
    assert torch.equal(filled["weight"], torch.ones(3, 2))
    assert torch.equal(filled["bias"], network.bias)


def brute_force(similarity: Tensor) -> float:
    n = len(similarity)
    return max(float(similarity[torch.arange(n), list(order)].sum()) for order in itertools.permutations(range(n)))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(0, 1000))
def test_best_order_is_the_best_of_all(size: int, seed: int) -> None:
    similarity = torch.randn(size, size, generator=torch.Generator().manual_seed(seed))
    order = best_order(similarity)
    assert sorted(order.tolist()) == list(range(size))
    assert float(similarity[torch.arange(size), order].sum()) == pytest.approx(brute_force(similarity), abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.floats(0, 1e3))
def test_correlations_are_pooled_over_batches_of_any_size(lengths: list[int], offset: float) -> None:
    generator = torch.Generator().manual_seed(sum(lengths))
    a, b = (torch.randn(3, sum(lengths) + 2, generator=generator) + offset for _ in range(2))
    moments, at = _Comoments(), 0
    for length in [*lengths, 2]:
        moments.update(a[:, at : at + length], b[:, at : at + length])
        at += length
    expected = torch.corrcoef(torch.cat([a, b]).double())[:3, 3:]
    torch.testing.assert_close(moments.correlation(), expected, rtol=1e-3, atol=1e-3)


def test_a_channel_that_never_changes_correlates_with_nothing() -> None:
    moments = _Comoments()
    moments.update(torch.stack([torch.ones(9), torch.randn(9)]), torch.randn(2, 9))
    assert moments.correlation()[0].tolist() == [0, 0]


@pytest.mark.parametrize("widths", [[4, 6, 3], [5, 5, 5, 5], [3, 8, 2, 7, 4]])
def test_matching_is_repeatable_and_no_single_group_could_do_better(widths: list[int]) -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(a, b, bias=False) for a, b in itertools.pairwise([2, *widths, 2])]
    network = nn.Sequential(*layers)
    groups = channel_groups(network, torch.randn(3, 2))
    anchor = {n: t.detach() for n, t in network.named_parameters()}
    source = {n: torch.randn_like(t) for n, t in anchor.items()}
    found, again = (assign_by_weights(groups, anchor, source, tolerance=0.0) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(found.orders, again.orders, strict=True))
    moved = groups.permute(source, found.orders)
    for n, group in enumerate(groups.groups):
        similarity = anchor[f"{n}.weight"] @ moved[f"{n}.weight"].T
        similarity = similarity + anchor[f"{n + 1}.weight"].T @ moved[f"{n + 1}.weight"]
        best = float(similarity[torch.arange(group.size), best_order(similarity)].sum())
        assert best <= float(similarity.diagonal().sum()) + 1e-4


class Borrowed(nn.Module):
    """An autoencoder whose decoder is the encoder's weight, transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(6, 8, bias=False)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(self.encoder(values).relu(), self.encoder.weight.t())


def test_a_weight_that_is_borrowed_is_no_reader_of_its_own_outputs() -> None:
    first, second = Borrowed(), Borrowed()
    values = torch.randn(4, 6)
    sources = [Source.from_network(network, name) for network, name in ((first, "a"), (second, "b"))]
    aligned = align(Borrowed(), sources, values, [torch.randn(16, 6)])
    again = Borrowed()
    again.load_state_dict(dict(aligned[1].tensors))
    assert torch.allclose(again(values), second(values), atol=1e-6)
