"""What every registered method keeps to, whatever it computes: the matrix comes from the registry."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import variants
from monai.bundle import ConfigParser
from torch import Tensor, nn
from variants import example, output

from monai_medmerge.errors import IncompatibleSourcesError, SettingError
from monai_medmerge.methods import METHODS, Method, cross_moments, gram_matrices, merge_with, ties
from monai_medmerge.sources import Source

VARIANTS = ["ResNet18-2d", "DynUNet-2d", "UNet-batch-3d", "grouped-transposed"]
every_method = pytest.mark.parametrize("known", METHODS.values(), ids=list(METHODS))
every_variant = pytest.mark.parametrize("variant", VARIANTS)


@functools.cache
def build(variant: str, seed: int) -> nn.Module:
    """One network for all tests: none of them may change it, and each that merges looks whether it did."""
    return variants.build(variant, seed)


def count_for(known: Method) -> int:
    """A number of sources that suits the method, base included."""
    return known.most or max(3, known.least + 1)


def sources_for(known: Method, variant: str, equal: bool = False) -> list[Source]:
    return [Source.from_network(build(variant, 1 if equal else n + 1), f"s{n}") for n in range(count_for(known))]


def options_for(known: Method, variant: str, sources: Sequence[Source]) -> dict[str, Any]:
    """A value for every option that has no default, of the kind that the method says it is."""
    options: dict[str, Any] = {name: [1.0, 2.0, 3.0][: len(sources)] for name in known.per_source}
    if known.data == "grams":
        options["grams"] = [grams_of(variant, n) for n in range(len(sources))]
    elif known.data == "moments":
        options["moments"] = moments_of(variant, len(sources))
    elif known.data:
        options[known.data] = [{k: noise(t, n).square() for k, t in s.tensors.items()} for n, s in enumerate(sources)]
    if known.callback:
        options[known.callback] = score
    return options


@functools.cache
def grams_of(variant: str, seed: int) -> dict[str, Tensor]:
    return gram_matrices(build(variant, seed + 1), [example(variant) + seed])


@functools.cache
def moments_of(variant: str, count: int) -> list[dict[str, Tensor]]:
    return cross_moments([build(variant, seed + 1) for seed in range(count)], [example(variant)])


def noise(like: Tensor, seed: int) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))


def score(network: nn.Module) -> float:
    """Some number that depends on every weight."""
    return sum(float(p.detach().double().sum()) for p in network.parameters())


def merged(known: Method, variant: str, sources: Sequence[Source], **shared: Any) -> nn.Module:
    options = options_for(known, variant, sources)
    if known.whole and not known.uses("statistics"):
        shared.pop("statistics", None)
    return merge_with(known.name, build(variant, 0), sources, **options, **shared)


def apart(a: nn.Module, b: nn.Module) -> float:
    """Largest difference of two state dicts, relative to the largest number of the tensor."""
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return max(float((x - y).abs().max()) / max(1.0, float(y.abs().max())) for x, y in pairs)


@every_method
@every_variant
def test_same_class_keys_and_dtypes_and_nothing_else_touched(known: Method, variant: str) -> None:
    network, sources = build(variant, 0), sources_for(known, variant)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    options = options_for(known, variant, sources)
    result = merge_with(known.name, network, sources, **options)
    assert type(result) is type(network)
    state = result.state_dict()
    assert [(k, v.dtype, v.shape) for k, v in state.items()] == [(k, v.dtype, v.shape) for k, v in before.items()]
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert [Source(s.name, s.tensors).sha256 for s in sources] == [s.sha256 for s in sources]
    theirs = {t.data_ptr() for s in sources for t in s.tensors.values() if t.numel()}
    assert not theirs & {t.data_ptr() for t in state.values()}
    assert all(torch.isfinite(t).all() for t in output(result.eval(), example(variant)))
    # It did merge: the network's own weights are gone.
    assert apart(result, network) > 1e-3
    # And it does so again.
    again = merge_with(known.name, network, sources, **options)
    assert all(torch.equal(v, state[k]) for k, v in again.state_dict().items())


@every_method
@every_variant
def test_equal_sources_return_themselves(known: Method, variant: str) -> None:
    result = merged(known, variant, sources_for(known, variant, equal=True), statistics="average")
    assert apart(result, build(variant, 1)) < 1e-6


@every_method
@pytest.mark.parametrize("base", ["mean", "given"])
def test_order_matters_only_where_the_method_says_so(known: Method, base: str) -> None:
    variant = "ResNet18-2d"
    sources = sources_for(known, variant)
    options = options_for(known, variant, sources)
    shared: dict[str, Any] = {} if known.whole and not known.uses("statistics") else {"statistics": "average"}
    if known.uses("base"):
        shared["base"] = base if base == "mean" else Source.from_network(build(variant, 9), "base")
    order = list(reversed(range(len(sources))))
    turned = {k: [v[n] for n in order] if k == known.data else v for k, v in options.items()}
    one = merge_with(known.name, build(variant, 0), sources, **options, **shared)
    other = merge_with(known.name, build(variant, 0), [sources[n] for n in order], **turned, **shared)
    difference = apart(one, other)
    if known.symmetric:
        assert difference < 1e-5
    elif known.name != "slerp":  # at its middle the arc is symmetric, though not elsewhere
        assert difference > 1e-3


@every_method
def test_integers_are_the_anchors_and_statistics_as_wished(known: Method) -> None:
    variant, sources = "ResNet18-2d", []
    for n in range(count_for(known)):
        network = variants.build(variant, n + 1)
        for name, buffer in network.named_buffers():
            if name.endswith("num_batches_tracked"):
                buffer.fill_(10 * n + 7)
        sources.append(Source.from_network(network, f"s{n}"))
    for statistics in ("anchor", "average"):
        state = merged(known, variant, sources, statistics=statistics).state_dict()
        counts = {int(v) for k, v in state.items() if k.endswith("num_batches_tracked")}
        # A method that picks sources by itself takes the best one's, others the first.
        assert counts <= {10 * n + 7 for n in range(len(sources))} if known.whole else counts == {7}
        if not known.whole:
            stacked = torch.stack([s.tensors["bn1.running_var"] for s in sources])
            expected = stacked[0] if statistics == "anchor" else stacked.mean(0)
            assert torch.allclose(state["bn1.running_var"], expected)


@every_method
def test_what_a_source_lacks_the_others_share(known: Method) -> None:
    variant = "ResNet18-2d"
    sources = sources_for(known, variant)
    # The head is what a source may lack; a hole in the body is refused.
    without = {k: v for k, v in sources[-1].tensors.items() if not k.startswith("fc.")}
    network, lacking = build(variant, 0), [*sources[:-1], Source("lacking", without)]
    options = options_for(known, variant, lacking)
    state = merge_with(known.name, network, lacking, **options).state_dict()
    assert torch.isfinite(state["fc.weight"]).all()
    if len(sources) == 2 and not known.whole:
        assert torch.equal(state["fc.weight"], sources[0].tensors["fc.weight"])
    # Whole methods draw the line elsewhere: a soup of the lacking source alone leaves the network's own tensor.
    elif not known.whole:
        assert not torch.equal(state["fc.weight"], network.state_dict()["fc.weight"])
    hole = {k: v for k, v in without.items() if k != "conv1.weight"}
    with pytest.raises(IncompatibleSourcesError, match=r"conv1\.weight"):
        merge_with(known.name, network, [*sources[:-1], Source("hole", hole)], **options)


@every_method
def test_excluded_tensors_stay_the_networks(known: Method) -> None:
    variant, network = "ResNet18-2d", build("ResNet18-2d", 0)
    sources = sources_for(known, variant)
    result = merge_with(
        known.name, network, sources, exclude=["fc.*", "layer4.*"], **options_for(known, variant, sources)
    )
    same = {k for k, v in result.state_dict().items() if torch.equal(v, network.state_dict()[k])}
    assert {k for k in network.state_dict() if k.startswith(("fc.", "layer4."))} <= same
    assert "conv1.weight" not in same


@every_method
def test_half_precision_stays(known: Method) -> None:
    network = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Linear(4, 2)).to(torch.bfloat16)
    sources = [Source(f"s{n}", {k: noise(v, n).to(v.dtype) for k, v in network.state_dict().items()}) for n in range(3)]
    sources = sources[: count_for(known)]
    measured = known.data in ("grams", "moments")
    options = {known.data: [{} for _ in sources]} if measured else options_for(known, "", sources)
    result = merge_with(known.name, network, sources, **options)
    assert {v.dtype for v in result.state_dict().values()} == {torch.bfloat16}


@every_method
def test_unknown_and_missing_options_are_named(known: Method) -> None:
    variant = "grouped-transposed"
    sources = sources_for(known, variant)
    options = options_for(known, variant, sources)
    with pytest.raises(SettingError, match=r"found flavour"):
        merge_with(known.name, build(variant, 0), sources, **options, flavour=1)
    for name in (n for n, default in known.options.items() if default is inspect.Parameter.empty):
        rest = {k: v for k, v in options.items() if k != name}
        with pytest.raises(SettingError, match=rf"a value for .*found none for {name}"):
            merge_with(known.name, build(variant, 0), sources, **rest)
    for name in (*known.per_source, *filter(None, [known.data])):
        with pytest.raises(SettingError, match=rf"one value for each of {len(sources)} sources"):
            merge_with(known.name, build(variant, 0), sources, **options | {name: options[name][:1]})
    if not known.uses("base"):
        with pytest.raises(SettingError, match="no base"):
            merge_with(known.name, build(variant, 0), sources, **options, base="mean")


@pytest.mark.parametrize(
    ("name", "count", "found"),
    [("slerp", 3, "at the most 2 sources, found 3"), ("slerp", 1, "at least 2"), ("model_stock", 2, "at least 3")],
)
def test_a_wrong_number_of_sources_is_refused(name: str, count: int, found: str) -> None:
    sources = [Source.from_network(nn.Linear(2, 2), f"s{n}") for n in range(count)]
    with pytest.raises(SettingError, match=found):
        merge_with(name, nn.Linear(2, 2), sources)


@pytest.mark.parametrize(
    ("shared", "where"),
    [
        ({"anchor": 2}, "anchor"),
        ({"statistics": "fresh"}, "statistics"),
        ({"base": "median"}, "base"),
        ({"exclude": ["*"]}, "merge_with"),
    ],
)
def test_shared_arguments_are_checked(shared: dict[str, Any], where: str) -> None:
    sources = [Source.from_network(nn.Linear(2, 2), f"s{n}") for n in range(2)]
    with pytest.raises(SettingError, match=where):
        merge_with("ties", nn.Linear(2, 2), sources, **shared)


def test_sources_and_base_have_to_fit() -> None:
    fits, other = Source.from_network(nn.Linear(2, 2), "a"), Source.from_network(nn.Conv2d(2, 2, 3), "b")
    with pytest.raises(IncompatibleSourcesError, match="'b'"):
        merge_with("uniform_average", nn.Linear(2, 2), [fits, other])
    with pytest.raises(IncompatibleSourcesError, match="'b'"):
        merge_with("ties", nn.Linear(2, 2), [fits], base=other)


@pytest.mark.parametrize(
    ("base", "found"),
    [
        (nn.Linear(2, 2), "a Linear"),
        ({"weight": torch.ones(2, 2)}, "a dict"),
        ("first", "'first'"),
        ("given", "'given'"),
    ],
)
def test_a_base_that_is_no_source_is_named_by_its_kind(base: object, found: str) -> None:
    source = Source.from_network(nn.Linear(2, 2), "a")
    with pytest.raises(SettingError, match=rf"base: expected anchor, mean or a Source, found {found}$"):
        merge_with("ties", nn.Linear(2, 2), [source], base=base)


def test_statistics_of_some_sources_only_are_refused_and_of_none_mean_an_average() -> None:
    sources = [Source.from_network(nn.Linear(2, 2), f"s{n}") for n in range(2)]
    ones = {"weight": torch.ones(2, 2), "bias": torch.ones(2)}
    with pytest.raises(SettingError, match=r"bias: .*none of 's1'"):
        merge_with("fisher", nn.Linear(2, 2), sources, fishers=[ones, {"weight": torch.ones(2, 2)}])
    result = merge_with("fisher", nn.Linear(2, 2), sources, fishers=[{}, {}])
    assert torch.allclose(result.weight, sum(s.tensors["weight"] for s in sources) / 2)


def test_the_base_is_what_differences_are_taken_from() -> None:
    network = nn.Linear(5, 4)
    sources = [Source.from_network(nn.Linear(5, 4), f"s{n}") for n in range(3)]
    weights = [s.tensors["weight"] for s in sources]
    given = Source.from_network(nn.Linear(5, 4), "base")

    def found(**shared: Any) -> Tensor:
        return merge_with("ties", network, sources, density=0.5, **shared).weight.detach()

    assert torch.equal(found(anchor=1), ties([weights[0], weights[2]], weights[1], density=0.5))
    assert torch.equal(found(base="anchor", anchor=1), found(anchor=1))
    assert torch.equal(found(base=given), ties(weights, given.tensors["weight"], density=0.5))
    assert torch.allclose(found(base="mean"), ties(weights, sum(weights) / 3, density=0.5), atol=1e-6)
    # What their docstrings say of the mean as base.
    average = merge_with("uniform_average", network, sources).weight
    for name in ("task_arithmetic", "model_stock"):
        assert torch.allclose(merge_with(name, network, sources, base="mean").weight, average, atol=1e-6)


def test_dare_depends_on_its_seed_and_on_the_tensor() -> None:
    network = nn.Sequential(nn.Linear(30, 30, bias=False), nn.Linear(30, 30, bias=False))
    zeros, ones = ({k: torch.full((30, 30), v) for k in network.state_dict()} for v in (0.0, 1.0))
    sources = [Source("zeros", zeros), Source("ones", ones)]
    results = [merge_with("dare", network, sources, seed=seed) for seed in (0, 0, 1)]
    first, again, other = (result.state_dict() for result in results)
    assert torch.equal(first["0.weight"], again["0.weight"])
    assert not torch.equal(first["0.weight"], other["0.weight"])
    assert not torch.equal(first["0.weight"], first["1.weight"])


def test_a_shared_tensor_is_merged_once() -> None:
    network = build("DynUNet-2d", 0)
    sources = [Source.from_network(build("DynUNet-2d", n + 1), f"s{n}") for n in range(3)]
    state = merge_with("dare", network, sources).state_dict(keep_vars=True)
    names: dict[int, list[str]] = {}
    for name, value in state.items():
        names.setdefault(id(value), []).append(name)
    assert any(len(group) > 1 for group in names.values())


def test_a_network_that_keeps_activations_is_copied() -> None:
    network = variants.build("DynUNet-2d", 0)
    network(example("DynUNet-2d"))
    merge_with("uniform_average", network, [Source.from_network(build("DynUNet-2d", n), f"s{n}") for n in (1, 2)])


def test_medmerge_folds_what_was_learned() -> None:
    sources = [Source.from_network(nn.Linear(2, 2), name) for name in ("a", "b")]

    def learn(merged: nn.Module) -> None:
        with torch.no_grad():
            next(p for p in merged.parameters() if p.requires_grad).copy_(torch.tensor([[0.0, 2.0], [1.0, 0.0]]))

    result = merge_with("medmerge", nn.Linear(2, 2), sources, learn=learn, constraint="free")
    rows = [sources[1].tensors["weight"][0], 2 * sources[0].tensors["weight"][1]]
    assert torch.equal(result.weight, torch.stack(rows))


def test_a_configuration_selects_a_method_by_name() -> None:
    network = nn.Linear(2, 2)
    sources = [Source.from_network(nn.Linear(2, 2), f"s{n}") for n in range(2)]
    merged = {"_target_": "monai_medmerge.methods.merge_with", "name": "@method", "network": "@network"}
    config = {"method": "slerp", "network": network, "sources": sources}
    parser = ConfigParser(config | {"merged": merged | {"sources": "@sources", "t": 1.0}})
    result = parser.get_parsed_content("merged")
    assert torch.allclose(result.weight, sources[1].tensors["weight"], atol=1e-6)


def test_a_method_of_whole_networks_from_another_room() -> None:
    from monai_medmerge.methods import method, unregister

    @method("with_callback", reference="none", whole=True, callback="learn")
    def with_callback(
        network: nn.Module,
        sources: Sequence[Source],
        *,
        learn: Callable[[nn.Module], None],
        anchor: int = 0,
        rate: float = 1.0,
    ) -> nn.Module:
        """The anchor, after learning."""
        result = merge_with("weighted_average", network, sources, weights=[float(n == anchor) for n in (0, 1)])
        learn(result)
        return result if rate > 0 else nn.Identity()

    try:
        sources = [Source.from_network(nn.Linear(2, 2), f"s{n}") for n in range(2)]
        seen: list[nn.Module] = []
        result = merge_with("with_callback", nn.Linear(2, 2), sources, learn=seen.append, anchor=1)
        assert seen == [result]
        assert torch.equal(result.weight, sources[1].tensors["weight"])
        with pytest.raises(SettingError, match="no statistics"):
            merge_with("with_callback", nn.Linear(2, 2), sources, learn=seen.append, statistics="average")
        with pytest.raises(SettingError, match="a Linear, found Identity"):
            merge_with("with_callback", nn.Linear(2, 2), sources, learn=seen.append, rate=-1.0)
    finally:
        unregister("with_callback")
