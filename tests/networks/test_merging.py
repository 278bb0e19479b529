"""What merging promises, for every network: identities, exact folding, gradients, and nothing else touched."""

from __future__ import annotations

import copy
from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from variants import VARIANTS, build, example, flat, output

from monai_medmerge.errors import IncompatibleSourcesError, SettingError
from monai_medmerge.networks import blends, coefficients, fold, merge, merge_record
from monai_medmerge.networks.constraints import CONSTRAINTS
from monai_medmerge.sources import Source


def sources_of(variant: str, count: int) -> list[Source]:
    return [Source.from_network(build(variant, seed=n + 1), f"source{n}") for n in range(count)]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) > 0 and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def close(a: list[torch.Tensor], b: list[torch.Tensor], tolerance: float = 1e-4) -> bool:
    return all((x - y).abs().max() <= tolerance * y.abs().max().clamp(min=1e-3) for x, y in zip(a, b, strict=True))


def state_bytes(network: nn.Module) -> dict[str, bytes]:
    return {name: t.contiguous().numpy().tobytes() for name, t in network.state_dict().items()}


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_one_hot_is_the_source_and_folding_changes_nothing(variant: str, count: int) -> None:
    network, sources, image = build(variant, 0), sources_of(variant, count), example(variant)
    before = state_bytes(network), [source.sha256 for source in sources]
    for n in range(count):
        merged = merge(network, sources, start="anchor", anchor=n).eval()
        assert isinstance(merged, type(network))
        expected = output(build(variant, seed=n + 1).eval(), image)
        assert same(output(merged, image), expected)
        folded = fold(merged).eval()
        assert same(output(folded, image), expected)
        assert type(folded) is type(network)
        assert list(folded.state_dict()) == list(network.state_dict())
        assert [name for name, _ in folded.named_parameters()] == [name for name, _ in network.named_parameters()]
        build(variant, 9).load_state_dict(folded.state_dict(), strict=True)
        assert all(parameter.requires_grad for parameter in folded.parameters())
        # The merged network survives its folding and can be folded again.
        assert same(output(fold(merged).eval(), image), output(merged, image))
    sha256 = [Source(s.name, dict(s.tensors)).sha256 for s in sources]
    assert (state_bytes(network), sha256) == before


@pytest.mark.parametrize("variant", VARIANTS)
def test_equal_sources_return_themselves_and_order_does_not_matter(variant: str) -> None:
    network, sources, image = build(variant, 0), sources_of(variant, 3), example(variant)
    shares = torch.tensor([0.5, 0.3, 0.2])
    equal = [Source(f"copy{n}", dict(sources[0].tensors)) for n in range(3)]
    assert close(output(merge(network, equal, start=shares).eval(), image), output(build(variant, 1).eval(), image))
    order = [2, 0, 1]
    permuted = merge(network, [sources[n] for n in order], start=shares[order]).eval()
    assert close(output(permuted, image), output(merge(network, sources, start=shares).eval(), image))


def tensor_behind(name: str) -> str:
    """`layer.parametrizations.weight.0.coefficients.free` is about `layer.weight`."""
    owner, found, rest = ("." + name).partition(".parametrizations.")
    return (f"{owner}.{rest.split('.')[0]}" if found else owner).removeprefix(".")


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_reach_every_coefficient_and_nothing_frozen(variant: str) -> None:
    network, sources = build(variant, 0), sources_of(variant, 2)
    merged = merge(network, sources).train()
    assert {name for name, p in merged.named_parameters() if p.requires_grad and not name.endswith(".free")} == set()
    plain = fold(merged).train()
    for module in (merged, plain):
        torch.manual_seed(0)
        sum(part.square().mean() for part in flat(module(example(variant)))).backward()
    # Some networks own tensors that their forward pass never uses; those can have no gradient.
    used = {name for name, parameter in plain.named_parameters() if parameter.grad is not None}
    for name, parameter in merged.named_parameters():
        if tensor_behind(name) not in used:
            continue
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
        else:
            assert parameter.grad is None, name
    assert not any(source.requires_grad for _, _, _, blend in blends(merged) for source in blend.sources)
    # Learning changes the coefficients alone, and folding is exact afterwards too.
    torch.optim.SGD([p for p in merged.parameters() if p.requires_grad], lr=0.1).step()
    merged.eval()
    assert same(output(fold(merged).eval(), example(variant)), output(merged, example(variant)))


@pytest.mark.parametrize("constraint", CONSTRAINTS)
@pytest.mark.parametrize("granularity", ["network", "layer", "kernel", "slice"])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("variant", ["ResNet18-2d", "UNet-batch-3d", "grouped-transposed", "ViT-2d"])
def test_every_granularity_and_constraint(variant: str, granularity: str, constraint: str, residual: bool) -> None:
    network, sources, image = build(variant, 0), sources_of(variant, 3), example(variant)
    options = {"granularity": granularity, "constraint": constraint, "residual": residual}
    one_hot = merge(network, sources, start="anchor", anchor=1, **options).eval()
    assert same(output(one_hot, image), output(build(variant, 2).eval(), image))
    uniform = merge(network, sources, **options).eval()
    # Independent oracle: the average, written over state dicts.
    mean = build(variant, 9)
    states = [build(variant, n + 1).state_dict() for n in range(3)]
    mean.load_state_dict(
        {
            k: sum(s[k].double() for s in states).div(3).to(v.dtype) if v.is_floating_point() else v
            for k, v in states[0].items()
        }  # type: ignore[union-attr]
    )
    assert close(output(uniform, image), output(mean.eval(), image))
    assert same(output(fold(uniform).eval(), image), output(uniform, image))
    for name, values in coefficients(uniform).items():
        assert values.shape[0] == 3, name
        assert torch.allclose(values, torch.full_like(values, 1 / 3)), name


def random_coefficients(network: nn.Module, count: int, seed: int) -> dict[str, torch.Tensor]:
    sources = [Source.from_network(network, f"{n}") for n in range(count)]
    generator = torch.Generator().manual_seed(seed)
    tables = coefficients(merge(network, sources, tie=False))
    return {name: torch.rand(t.shape, generator=generator).softmax(0) for name, t in tables.items()}


@pytest.mark.parametrize("constraint", CONSTRAINTS)
@pytest.mark.parametrize("variant", ["DynUNet-3d", "grouped-transposed", "SwinUNETR-2d", "EfficientNetBN-2d"])
def test_given_coefficients_are_the_weighted_sum_of_kernels(variant: str, constraint: str) -> None:
    network, sources = build(variant, 0), sources_of(variant, 2)
    given = random_coefficients(network, 2, seed=3)
    merged = merge(network, sources, start=given, constraint=constraint, tie=False)
    folded = fold(merged).state_dict()
    modules = dict(network.named_modules())
    for name, values in coefficients(merged).items():
        assert torch.allclose(values, given[name], atol=1e-6), name
        module = modules[name.rpartition(".")[0]]
        expected = torch.zeros_like(folded[name])
        for n, source in enumerate(sources):
            for k in range(values.shape[1]):
                index = kernel_indices(module, name, source.tensors[name].shape, k)
                expected[index] += values[n, k] * source.tensors[name][index]
        assert torch.allclose(folded[name], expected, atol=1e-6), name


def kernel_indices(module: nn.Module, name: str, shape: torch.Size, k: int) -> tuple[slice | int, ...]:
    """Where the numbers of output channel k lie, from torch's documented weight layouts."""
    if isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d) and name.endswith("weight"):
        per_group, inputs = shape[1], shape[0] // module.groups
        group, output_in_group = divmod(k, per_group)
        return slice(group * inputs, (group + 1) * inputs), output_in_group
    if name.endswith("relative_position_bias_table"):
        return slice(None), k
    return (k,)


def test_a_head_of_other_classes_stays_the_networks_own() -> None:
    from monai.networks.nets import DenseNet121

    torch.manual_seed(0)
    network = DenseNet121(2, 1, 3)
    sources = [Source.from_network(DenseNet121(2, 1, classes), f"{classes} classes") for classes in (2, 10)]
    merged = merge(network, sources)
    trainable = {name for name, p in merged.named_parameters() if p.requires_grad and not name.endswith(".free")}
    assert trainable == {"class_layers.out.weight", "class_layers.out.bias"}
    assert torch.equal(fold(merged).class_layers.out.weight, network.class_layers.out.weight)
    assert merge_record(merged).sources == ("2 classes", "10 classes")


def test_partial_sources_share_what_they_have() -> None:
    layers = {"encoder": nn.Conv2d(1, 4, 3), "decoder": nn.Conv2d(4, 4, 3), "head": nn.Conv2d(4, 2, 1)}
    network = nn.Sequential(OrderedDict(layers))
    whole = Source.from_network(copy.deepcopy(network), "whole")
    encoder = Source("encoder", {k: v + 1 for k, v in whole.tensors.items() if k.startswith("encoder.")})
    tables = coefficients(merge(network, [whole, encoder]))
    assert torch.equal(tables["encoder.weight"], torch.full((2, 4), 0.5))
    assert torch.equal(tables["decoder.weight"], torch.tensor([[1.0] * 4, [0.0] * 4]))


def test_include_and_exclude_choose_by_name() -> None:
    network = build("UNet-batch-2d", 0)
    sources = sources_of("UNet-batch-2d", 2)
    merged = merge(network, sources, include=["model.0.*"], exclude="*.bias")
    assert all(name.startswith("model.0.") and not name.endswith("bias") for name in coefficients(merged))
    for name, parameter in merged.named_parameters():
        if not name.startswith("model.0."):
            assert parameter.requires_grad, name
            assert torch.equal(parameter, network.get_parameter(name)), name


def test_heads_share_a_coefficient() -> None:
    network, sources = build("ViT-2d", 0), sources_of("ViT-2d", 2)
    merged = merge(network, sources, share_heads=True)
    blend = next(blend for name, _, _, blend in blends(merged) if name == "blocks.0.attn.qkv.weight")
    assert blend.columns.shape == (3,)
    with torch.no_grad():
        blend.coefficients.free[:, blend.columns.first] += torch.tensor([2.0, 0.0])
    values = coefficients(merged)["blocks.0.attn.qkv.weight"][0].reshape(3, 3, 8)
    assert torch.equal(values[:, 0], values[0, 0, 0].expand(3, 8))
    assert torch.equal(values[:, 1:], torch.full((3, 2, 8), 0.5))
    image = example("ViT-2d")
    assert same(output(fold(merged).eval(), image), output(merged.eval(), image))


@pytest.mark.parametrize(
    "options", [{}, {"share_heads": True}, {"granularity": "layer"}, {"granularity": "slice"}, {"tie": False}]
)
@pytest.mark.parametrize("constraint", CONSTRAINTS)
@pytest.mark.parametrize("variant", ["ViT-2d", "grouped-transposed", "ResNet18-2d"])
def test_gradients_are_those_of_the_written_out_sum(variant: str, constraint: str, options: dict[str, object]) -> None:
    merged = merge(build(variant, 0), sources_of(variant, 3), constraint=constraint, **options).double().eval()
    image = example(variant).double()
    tables = {blend.coefficients for _, _, _, blend in blends(merged)}
    for table in tables:
        torch.nn.init.normal_(table.free)
    sum(part.square().mean() for part in flat(merged(image))).backward()
    weights = {}
    free = {table: table.free.detach().clone().requires_grad_() for table in tables}
    for name, _, _, blend in blends(merged):
        values = blend.lay_out(blend.coefficients.constrained(free[blend.coefficients]))
        spread = [blend.layout.spread(value, blend.sources[0].ndim) for value in values]
        weights[name] = sum(c * s for c, s in zip(spread, blend.sources, strict=True))
    plain = fold(merged)
    sum(part.square().mean() for part in flat(torch.func.functional_call(plain, weights, (image,)))).backward()
    for table in tables:
        assert torch.allclose(table.free.grad, free[table].grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_gives_the_same_gradients(reentrant: bool) -> None:
    def layers() -> nn.Sequential:
        return nn.Sequential(*(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Tanh()) for _ in range(2)))

    class Checkpointed(nn.Module):
        def __init__(self, spared: bool) -> None:
            super().__init__()
            self.layers, self.spared = layers(), spared

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                x = checkpoint(layer, x, use_reentrant=reentrant) if self.spared else layer(x)
            return x

    image = torch.randn(2, 3, 8, 8, requires_grad=True)
    sources = [Source.from_network(Checkpointed(False), name) for name in ("a", "b")]
    found = []
    for spared in (False, True):
        merged = merge(Checkpointed(spared), sources)
        merged(image).square().sum().backward()
        found.append(next(p for p in merged.parameters() if p.requires_grad).grad)
    assert torch.allclose(*found)


def test_what_is_computed_at_once_is_what_each_tensor_gives() -> None:
    merged = merge(build("ResNet18-2d", 0), sources_of("ResNet18-2d", 2))
    seen: list[torch.Tensor] = []
    merged.conv1.register_forward_hook(lambda module, *_: seen.append(module.weight))
    merged(example("ResNet18-2d"))
    assert torch.equal(seen[0], merged.conv1.weight)
    with torch.no_grad():
        next(blends(merged))[3].coefficients.free[0] += 1
    assert not torch.equal(seen[0], merged.conv1.weight), "a weight outlived its forward pass"
    with pytest.raises(RuntimeError):
        merged(torch.zeros(1))
    assert all(blend.blended is None for _, _, _, blend in blends(merged))
    assert not fold(merged)._forward_pre_hooks


def test_coefficients_learn_from_a_vertex() -> None:
    torch.manual_seed(0)
    a, b = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    merged = merge(a, [Source.from_network(a, "a"), Source.from_network(b, "b")], start="anchor")
    optimizer = torch.optim.Adam(merged.parameters(), lr=0.3)
    image = torch.randn(64, 3)
    for _ in range(200):
        optimizer.zero_grad()
        (merged(image) - b(image).detach()).square().mean().backward()
        optimizer.step()
    assert torch.equal(coefficients(merged)["weight"], torch.tensor([[0.0] * 3, [1.0] * 3]))
    assert torch.equal(fold(merged).weight, b.weight)


def test_copies_move_and_load_like_any_module() -> None:
    network, sources, image = build("ResNet18-2d", 0), sources_of("ResNet18-2d", 2), example("ResNet18-2d")
    merged = merge(network, sources, residual=True)
    twin = copy.deepcopy(merged)
    held = {id(s) for _, _, _, blend in blends(merged) for s in blend.sources}
    assert held == {id(s) for _, _, _, blend in blends(twin) for s in blend.sources}
    assert not any("sources" in name for name in merged.state_dict())
    with torch.no_grad():
        for parameter in merged.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    twin.load_state_dict(merged.state_dict(), strict=True)
    assert same(output(twin.eval(), image), output(merged.eval(), image))
    double = copy.deepcopy(merged).double().eval()
    assert close(output(double, image.double()), [o.double() for o in output(merged, image)])
    assert same(output(fold(twin).eval(), image), output(merged, image))


def test_wrong_use_is_refused_by_name() -> None:
    network, sources = build("ResNet18-2d", 0), sources_of("ResNet18-2d", 2)
    for options, word in [
        ({"granularity": "channel"}, "granularity"),
        ({"constraint": "convex"}, "constraint"),
        ({"start": "zero"}, "start"),
        ({"start": torch.ones(3)}, "start"),
        ({"start": {"conv1.weight": torch.ones(2, 3)}}, "conv1.weight"),
        ({"anchor": 2}, "anchor"),
        ({"include": ["nothing*"]}, "nothing"),
    ]:
        with pytest.raises(SettingError, match=word):
            merge(network, sources, **options)
    with pytest.raises(IncompatibleSourcesError, match="none"):
        merge(network, [])
    with pytest.raises(IncompatibleSourcesError, match="names of their own"):
        merge(network, [sources[0], sources[0]])
    with pytest.raises(IncompatibleSourcesError, match=r"conv1\.weight"):
        merge(network, [sources[0], Source.from_network(build("ResNet50-2d", 1), "other")])
    with pytest.raises(SettingError, match="nothing merged"):
        fold(network)
