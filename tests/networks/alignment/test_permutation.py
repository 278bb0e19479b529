"""Channel groups: permuting them changes nothing, they are as large as they can be, and ignorance pins channels."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.networks.blocks.dynunet_block import UnetResBlock
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from variants import VARIANTS, build, example

from monai_medmerge.networks.alignment.invariance import largest_difference, outputs_of_both_modes, random_copy
from monai_medmerge.networks.alignment.labels import compress, reshape
from monai_medmerge.networks.alignment.permutation import ChannelGroups, channel_groups

OUTPUT, READS, ALONE = "is an output of the network", "reads what stays", "has no other of its kind"


def random_orders(groups: ChannelGroups, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randperm(group.size, generator=generator) for group in groups.groups]


def change(network: nn.Module, groups: ChannelGroups, image: Tensor) -> float:
    """Largest relative change of any output, in evaluation and training, when all groups are permuted at random."""
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    before = outputs_of_both_modes(network, image)
    network.load_state_dict(groups.permute(state, random_orders(groups)))
    return largest_difference(outputs_of_both_modes(network, image), before)


def moving(groups: ChannelGroups) -> dict[str, tuple[int, int]]:
    """Every group by its name: its size, and its largest block."""
    return {g.name: (g.size, max(member.index.shape[1] for member in g.members)) for g in groups.groups}


@functools.cache
def groups_of(variant: str) -> ChannelGroups:
    return channel_groups(build(variant, 0), example(variant))


@pytest.mark.parametrize("variant", VARIANTS)
def test_permuting_all_groups_changes_nothing(variant: str) -> None:
    network, image, groups = build(variant, 0), example(variant), groups_of(variant)
    assert all("changed the output" not in fixed.reason for fixed in groups.fixed), "the labels were wrong"
    if variant != "grouped-transposed":
        assert len(groups.groups) >= 3
    if any(isinstance(module, _BatchNorm) for module in network.modules()):
        # Batch-norm that sees two numbers per channel returns their signs: no measure of rounding.
        image = torch.randn(4 if image.ndim > 4 else 8, *image.shape[1:], generator=torch.Generator().manual_seed(1))
    assert change(random_copy(network).float(), groups, image) <= 1e-4
    assert change(random_copy(network), groups, image.double()) <= 1e-10


CONVOLUTIONAL = [v for v in VARIANTS if not v.startswith(("ViT", "UNETR", "SwinUNETR", "grouped"))]


@pytest.mark.parametrize("variant", CONVOLUTIONAL)
def test_all_of_a_convolutional_network_moves_but_its_ends(variant: str) -> None:
    groups = groups_of(variant)
    moved = {member.tensor for group in groups.groups for member in group.members}
    kernels = {name: p for name, p in build(variant, 0).named_parameters() if p.ndim > 1}
    # FlexibleUNet's encoder brings a classifier along that it does not use.
    unused = {fixed.tensor for fixed in groups.fixed if fixed.reason == "was not used for the example"}
    assert not unused or variant == "FlexibleUNet-2d"
    assert {fixed.reason for fixed in groups.fixed if fixed.tensor not in unused} <= {OUTPUT, READS}
    still = {name for name, p in kernels.items() if name not in moved | unused and p.shape[:2] != (1, 1)}
    # What lies between the input and the output without channels of its own, and no more.
    assert len(still) <= 2


def test_the_network_is_left_as_it_was() -> None:
    network = build("DynUNet-2d", 0).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    channel_groups(network, example("DynUNet-2d"))
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not any(hasattr(parameter, "_channel_labels") for parameter in network.parameters())


def test_aliased_parameters_move_under_all_their_names_once() -> None:
    network = build("DynUNet-2d", 0)
    groups = channel_groups(network, example("DynUNet-2d"))
    permuted = groups.permute(network.state_dict(), random_orders(groups))
    names: dict[int, list[str]] = {}
    for name, tensor in network.state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), []).append(name)
    assert any(len(same) > 1 for same in names.values())
    for first, *others in names.values():
        assert all(torch.equal(permuted[first], permuted[other]) for other in others)


def test_attention_heads_move_whole_and_hidden_units_one_by_one() -> None:
    assert moving(groups_of("ViT-2d")) == {
        "blocks.0.attn.qkv.weight": (3, 24),  # query, key and value rows of a head of 8 channels
        "blocks.0.mlp.linear1.weight": (48, 1),
        "blocks.1.attn.qkv.weight": (3, 24),
        "blocks.1.mlp.linear1.weight": (48, 1),
    }


def test_heads_take_their_column_of_the_position_table_along() -> None:
    groups = groups_of("SwinUNETR-2d")
    for group in groups.groups:
        for member in group.members:
            if member.tensor.endswith("relative_position_bias_table"):
                assert member.axis == 1
                assert member.index.shape == (group.size, 1)
    heads = [group for group in groups.groups if group.name.endswith("qkv.weight")]
    assert [group.size for group in heads] == [2, 4, 8]  # the first layer has one head, which stays


class Net(nn.Module):
    """Layers by name and a function of the network and its input."""

    def __init__(self, forward: Callable[[Net, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.compute = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.compute(self, x)


def conv(inputs: int, outputs: int, **kwargs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, **kwargs)


# A network, and what must be found in it: group name to (size, largest block).
CASES: dict[str, tuple[Callable[[], nn.Module], dict[str, tuple[int, int]]]] = {
    "flatten before a linear layer": (
        lambda: nn.Sequential(conv(1, 6), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(24, 2)),
        {"0.weight": (6, 4)},
    ),
    "pixel shuffle moves blocks": (
        lambda: nn.Sequential(conv(1, 12), nn.PixelShuffle(2), nn.PReLU(3), conv(3, 2)),
        {"0.weight": (3, 4)},
    ),
    "depthwise with a multiplier": (
        lambda: nn.Sequential(conv(1, 4), conv(4, 8, groups=4), conv(8, 2)),
        {"0.weight": (4, 2)},
    ),
    "groups move as blocks": (
        lambda: nn.Sequential(conv(1, 6), conv(6, 9, groups=3), conv(9, 2)),
        {"0.weight": (3, 3)},
    ),
    "transposed groups": (
        lambda: nn.Sequential(conv(1, 6), nn.ConvTranspose2d(6, 9, 2, groups=3), conv(9, 2)),
        {"0.weight": (3, 3)},
    ),
    "group norm moves whole groups": (
        lambda: nn.Sequential(conv(1, 8), nn.GroupNorm(4, 8), conv(8, 2)),
        {"0.weight": (4, 2)},
    ),
    "group norm of one group lets all move": (
        lambda: nn.Sequential(conv(1, 8), nn.GroupNorm(1, 8), conv(8, 2)),
        {"0.weight": (8, 1)},
    ),
    "concatenation": (
        lambda: Net(lambda n, x: n.c(torch.cat([n.a(x), n.b(x)], 1)), a=conv(1, 3), b=conv(1, 4), c=conv(7, 2)),
        {"a.weight": (3, 1), "b.weight": (4, 1)},
    ),
    "residual sum": (
        lambda: Net(lambda n, x: n.c(n.a(x) + n.b(n.a(x)).relu()), a=conv(1, 5), b=conv(5, 5), c=conv(5, 2)),
        {"a.weight": (5, 1)},
    ),
    "squeeze and excitation": (
        lambda: Net(
            lambda n, x: n.c(n.a(x) * n.s(n.a(x).mean((2, 3))).sigmoid()[:, :, None, None]),
            a=conv(1, 6), s=nn.Linear(6, 6), c=conv(6, 2),
        ),
        {"a.weight": (6, 1)},
    ),
    "a gate of one channel": (
        lambda: Net(lambda n, x: n.c(n.a(x) * n.g(x).sigmoid()), a=conv(1, 6), g=conv(1, 1), c=conv(6, 2)),
        {"a.weight": (6, 1)},
    ),
    "halves that gate each other": (
        lambda: Net(lambda n, x: n.c(n.a(x)[:, :4] * n.a(x)[:, 4:].sigmoid()), a=conv(1, 8), c=conv(4, 2)),
        {"a.weight": (4, 2)},
    ),
    "a part that is treated otherwise": (
        lambda: Net(lambda n, x: n.c(torch.cat([n.a(x)[:, :3] * 2, n.a(x)[:, 3:]], 1)), a=conv(1, 8), c=conv(8, 2)),
        {"a.weight": (3, 1), "a.weight (2)": (5, 1)},
    ),
    "a sum over a part": (
        lambda: Net(lambda n, x: n.c(n.a(x)) + n.a(x)[:, :3].sum(1, keepdim=True), a=conv(1, 8), c=conv(8, 2)),
        {"a.weight": (3, 1), "a.weight (2)": (5, 1)},
    ),
    "one layer used twice": (
        lambda: Net(lambda n, x: n.c(n.b(n.b(n.a(x)))), a=conv(1, 5), b=conv(5, 5), c=conv(5, 2)),
        {"a.weight": (5, 1)},
    ),
    "the image, repeated and added": (
        lambda: Net(lambda n, x: n.c(n.a(x) + x.repeat(1, 6, 1, 1)), a=conv(1, 6), c=conv(6, 2)),
        {"a.weight": (6, 1)},
    ),
    "a constant per channel": (
        lambda: Net(lambda n, x: n.c(n.a(x) + torch.arange(6.0).to(x)[:, None, None]), a=conv(1, 6), c=conv(6, 2)),
        {},
    ),
    "channels in order of their number": (
        lambda: Net(lambda n, x: n.c(n.a(x).cumsum(1)), a=conv(1, 6), c=conv(6, 2)),
        {},
    ),
    "channels sorted": (
        lambda: Net(lambda n, x: n.c(n.a(x).sort(1).values), a=conv(1, 6), c=conv(6, 2)),
        {},
    ),
    "written into a buffer": (
        lambda: Net(lambda n, x: n.c(torch.zeros_like(n.a(x)).copy_(n.a(x))), a=conv(1, 6), c=conv(6, 2)),
        {},
    ),
    "a computed kernel": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(conv(1, 6)), conv(6, 2)),
        {},
    ),
    "a kernel that is also added": (
        lambda: Net(lambda n, x: n.c(n.a(x)) + n.c.weight.mean(), a=conv(1, 6), c=conv(6, 2)),
        {},
    ),
    "layer norm over channels last": (
        lambda: Net(
            lambda n, x: n.c(n.n(n.a(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)),
            a=conv(1, 6), n=nn.LayerNorm(6), c=conv(6, 2),
        ),
        {"a.weight": (6, 1)},
    ),
    "recurrent blocks": (
        lambda: nn.Sequential(conv(1, 4), UnetResBlock(2, 4, 6, 3, 1, "instance"), conv(6, 2)),
        {"0.weight": (4, 1), "1.conv1.conv.weight": (6, 1), "1.conv2.conv.weight": (6, 1)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_groups_of_small_networks(case: str) -> None:
    torch.manual_seed(0)
    construct, expected = CASES[case]
    network = construct()
    image = torch.randn(3, 1, 8, 8)
    groups = channel_groups(network, image)
    found: dict[str, tuple[int, int]] = {}
    for group in groups.groups:
        name = group.name if group.name not in found else f"{group.name} (2)"
        found[name] = (group.size, max(member.index.shape[1] for member in group.members))
    assert found == expected
    assert change(random_copy(network), groups, image.double()) <= 1e-10
    assert not any("changed the output" in fixed.reason for fixed in groups.fixed)
    if not expected:
        assert any(fixed.reason not in (OUTPUT, READS) for fixed in groups.fixed), "a reason is given"


def test_transformer_of_torch() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(12, 3, 20, batch_first=True)
    network = nn.Sequential(nn.Linear(5, 12), layer, nn.Linear(12, 2))
    groups = channel_groups(network, torch.randn(2, 7, 5))
    assert moving(groups)["1.linear1.weight"] == (20, 1)
    assert moving(groups)["1.self_attn.in_proj_weight"] == (3, 12)
    assert change(random_copy(network), groups, torch.randn(2, 7, 5).double()) <= 1e-10


LAYERS: list[Callable[[int], nn.Module]] = [
    lambda c: conv(c, c),
    lambda c: conv(c, c, groups=c),
    lambda c: conv(c, c, groups=2),
    lambda c: nn.ConvTranspose2d(c, c, 3, padding=1),
    lambda c: nn.BatchNorm2d(c),
    lambda c: nn.GroupNorm(2, c),
    lambda c: nn.InstanceNorm2d(c, affine=True, track_running_stats=True),
    lambda c: nn.PReLU(c),
    lambda c: nn.Softmax(1),
    lambda c: nn.AvgPool2d(3, 1, 1),
    lambda c: nn.Sequential(nn.PixelShuffle(2), conv(c // 4, c), nn.AvgPool2d(2)),
    lambda c: Net(lambda n, x: x + n.a(x), a=conv(c, c)),
    lambda c: Net(lambda n, x: n.a(torch.cat([x, n.b(x)], 1)), a=conv(2 * c, c), b=conv(c, c)),
    lambda c: Net(lambda n, x: torch.cat(list(x.chunk(2, 1))[::-1], 1)),
    lambda c: Net(lambda n, x: x - x.mean(1, keepdim=True)),
    lambda c: Net(lambda n, x: x.flip(2).roll(1, 3)),
    lambda c: Net(lambda n, x: x * x.roll(1, 1)),
    lambda c: Net(lambda n, x: nn.functional.pad(x[:, : c // 2], (0, 0, 0, 0, 0, c - c // 2))),
]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, len(LAYERS) - 1), min_size=1, max_size=6))
def test_labels_are_right_for_any_stack_of_layers(chosen: list[int]) -> None:
    """Whatever is stacked, no group that the labels propose is refused by the check."""
    torch.manual_seed(0)
    network = nn.Sequential(conv(1, 8), *(LAYERS[n](8) for n in chosen), conv(8, 2))
    groups = channel_groups(network, torch.randn(2, 1, 8, 8))
    assert not any("changed the output" in fixed.reason for fixed in groups.fixed), str(groups)


@settings(max_examples=20, deadline=None)
@given(st.permutations([2, 3, 4]), st.integers(0, 3))
def test_labels_are_reshaped_as_the_activation_is(shape: list[int], varying: int) -> None:
    full = torch.zeros(shape, dtype=torch.int64)
    if varying < 3:
        full = full + torch.arange(shape[varying]).reshape([-1 if i == varying else 1 for i in range(3)])
    for new in [(24,), (shape[0] * shape[1], shape[2]), (shape[0], 1, -1), (4, 6), (2, 2, 2, 3)]:
        target = full.reshape(new)
        assert torch.equal(reshape(compress(full), tuple(shape), tuple(target.shape)).expand(target.shape), target)


def test_a_tensor_of_another_length_stays() -> None:
    network = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3))
    groups = channel_groups(network, torch.randn(5, 2))
    other = {"0.weight": torch.randn(4, 2), "2.weight": torch.randn(7, 4), "0.bias": torch.randn(9), "x": torch.ones(1)}
    (order,) = orders = [torch.tensor([2, 0, 3, 1])]
    permuted = groups.permute(other, orders)
    assert list(permuted) == list(other)
    assert torch.equal(permuted["0.weight"], other["0.weight"][order])
    assert torch.equal(permuted["2.weight"], other["2.weight"][:, order])  # a head for seven classes reads them too
    assert permuted["0.bias"] is other["0.bias"]
    assert permuted["x"] is other["x"]
