"""What methods measure on data, against loops, autograd per example and the layers' own arithmetic."""

from __future__ import annotations

import pytest
import torch
from monai.data import DataLoader, Dataset
from torch import Tensor, nn
from torch.nn import functional as F

from monai_medmerge.errors import DatasetError, SettingError
from monai_medmerge.methods import Ensemble, cross_moments, fisher_diagonal, gram_matrices, greedy_soup, merge_with
from monai_medmerge.sources import Source


def small_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(36, 3))


def examples(count: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 1, 5, 5, generator=generator), torch.randint(3, (count,), generator=generator)


def test_fisher_is_the_mean_of_squared_gradients_of_single_examples() -> None:
    network, (images, labels) = small_network().train(), examples()
    network[0].bias.requires_grad_(False)
    found = fisher_diagonal(network, [(images[:4], labels[:4]), (images[4:], labels[4:])], F.cross_entropy)
    assert all(module.training for module in network.modules())
    assert all(p.grad is None for p in network.parameters())
    expected = {name: torch.zeros_like(p) for name, p in network.named_parameters() if p.requires_grad}
    network.eval()
    for image, label in zip(images, labels, strict=True):
        network.zero_grad()
        torch.log_softmax(network(image[None]), 1)[0, label].backward()
        for name in expected:
            expected[name] += dict(network.named_parameters())[name].grad ** 2 / len(images)
    assert set(found) == set(expected)
    assert "0.bias" not in found
    assert all(torch.allclose(found[name], expected[name], rtol=1e-4, atol=1e-9) for name in expected)


def test_monai_dictionaries_are_batches_too() -> None:
    network, (images, labels) = small_network(), examples()
    data = [{"image": image, "label": int(label)} for image, label in zip(images, labels, strict=True)]
    loader = DataLoader(Dataset(data), batch_size=4)
    for measure in (lambda b: fisher_diagonal(network, b, F.cross_entropy), lambda b: gram_matrices(network, b)):
        a, b = measure(loader), measure([(images, labels)])
        assert set(a) == set(b)
        assert all(torch.allclose(a[name], b[name], rtol=1e-4, atol=1e-7) for name in a)


@pytest.mark.parametrize("measure", [lambda n, b: fisher_diagonal(n, b, F.cross_entropy), gram_matrices])
def test_batches_without_images_are_refused_and_modes_restored(measure: object) -> None:
    network = small_network().train()
    for batches in ([], [{"label": torch.zeros(1)}], ["image"]):
        with pytest.raises(DatasetError):
            measure(network, batches)  # type: ignore[operator]
    assert all(module.training for module in network.modules())
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_fisher_needs_labels() -> None:
    with pytest.raises(DatasetError, match="label"):
        fisher_diagonal(small_network(), [examples()[0]], F.cross_entropy)


LAYERS = {
    "linear": (nn.Linear(5, 3), (4, 5)),
    "linear over tokens": (nn.Linear(5, 3), (4, 7, 5)),
    "1-D": (nn.Conv1d(2, 4, 3, stride=2), (3, 2, 9)),
    "2-D": (nn.Conv2d(3, 4, 3), (2, 3, 7, 6)),
    "2-D, stride, dilation, padding": (
        nn.Conv2d(2, 4, (3, 2), stride=(2, 1), dilation=(1, 2), padding=2),
        (2, 2, 7, 6),
    ),
    "2-D, groups": (nn.Conv2d(4, 6, 3, padding="same", groups=2), (2, 4, 6, 6)),
    "2-D, depthwise, reflected": (nn.Conv2d(4, 4, 3, padding=1, groups=4, padding_mode="reflect"), (2, 4, 6, 6)),
    "3-D": (nn.Conv3d(2, 3, (1, 2, 3), stride=2, padding=1), (2, 2, 5, 6, 7)),
}


@pytest.mark.parametrize("case", LAYERS)
def test_gram_matrices_give_the_power_of_any_filters_output(case: str) -> None:
    # w^T G w is the mean square of what a filter w computes: the layer itself says whether G is right.
    layer, shape = LAYERS[case]
    layer = layer.double()
    images = [torch.randn(shape, dtype=torch.float64) for _ in range(2)]
    gram = gram_matrices(layer, images)["weight"].double()
    groups = getattr(layer, "groups", 1)
    with torch.no_grad():
        outputs = [layer(image) for image in images]
        if layer.bias is not None:
            channel_last = isinstance(layer, nn.Linear)
            bias = layer.bias if channel_last else layer.bias.reshape(-1, *[1] * (len(shape) - 2))
            outputs = [output - bias for output in outputs]
    if not isinstance(layer, nn.Linear):
        outputs = [output.movedim(1, -1) for output in outputs]
    power = torch.cat([output.reshape(-1, output.shape[-1]) for output in outputs]).square().mean(0)
    weight = layer.weight.detach().reshape(groups, layer.weight.shape[0] // groups, -1)
    assert torch.allclose(torch.einsum("goi,gij,goj->go", weight, gram, weight).flatten(), power, rtol=1e-5)


def test_gram_matrices_can_leave_layers_out() -> None:
    assert set(gram_matrices(small_network(), [examples()[0]], include=["5.*"])) == {"5.weight"}
    up = nn.Sequential(nn.ConvTranspose2d(1, 2, 2), nn.Conv2d(2, 1, 1))
    assert set(gram_matrices(up, [examples()[0]])) == {"1.weight"}


def test_regmean_of_networks_keeps_what_each_computes_where_their_data_do_not_meet() -> None:
    # The first source only ever sees the first two inputs, the second the others: one layer can serve both.
    first, second = nn.Linear(4, 3, bias=False), nn.Linear(4, 3, bias=False)
    data = [torch.randn(50, 4) * torch.tensor(mask) for mask in ([1.0, 1, 0, 0], [0.0, 0, 1, 1])]
    grams = [gram_matrices(network, [x]) for network, x in zip((first, second), data, strict=True)]
    sources = [Source.from_network(first, "first"), Source.from_network(second, "second")]
    merged = merge_with("regmean", nn.Linear(4, 3, bias=False), sources, grams=grams)
    for network, x in zip((first, second), data, strict=True):
        assert torch.allclose(merged(x), network(x), atol=1e-5)


def constant(value: float) -> Source:
    return Source(f"at {value}", {"weight": torch.full((1, 1), value)})


def distance_to_two(network: nn.Module) -> float:
    return -abs(float(network.weight.detach()) - 2.0)


def test_greedy_soup_takes_what_helps() -> None:
    seen: list[float] = []

    def score(network: nn.Module) -> float:
        seen.append(float(network.weight.detach()))
        return distance_to_two(network)

    network = nn.Linear(1, 1, bias=False)
    sources = [constant(v) for v in (9.0, 1.0, 2.5, 30.0)]
    soup = merge_with("greedy_soup", network, sources, score=score)
    # Best first: 2.5, then with 1 (1.75, nearer to 2), then 9 and 30 with those two, which are further off.
    assert seen == pytest.approx([9.0, 1.0, 2.5, 30.0, 1.75, 12.5 / 3, 33.5 / 3])
    assert soup.weight.item() == 1.75


def test_greedy_soup_returns_what_the_score_left() -> None:
    def recalibrating(network: nn.Module) -> float:
        score = distance_to_two(network)
        with torch.no_grad():
            network.weight.add_(100)
        return score

    assert greedy_soup(nn.Linear(1, 1, bias=False), [constant(3.0)], score=recalibrating).weight.item() == 103.0
    with pytest.raises(SettingError, match="NaN"):
        greedy_soup(nn.Linear(1, 1, bias=False), [constant(3.0)], score=lambda _: float("nan"))


def test_ensemble_is_the_mean_of_probabilities() -> None:
    networks = [small_network().eval(), small_network().eval()]
    with torch.no_grad():
        networks[1][0].weight.neg_()
        images = examples()[0]
        expected = sum(F.softmax(network(images), 1) for network in networks) / 2
        assert torch.allclose(Ensemble(networks)(images), expected)
        doubled = Ensemble(networks, probabilities=torch.sigmoid)(images)
    assert torch.allclose(doubled, sum(torch.sigmoid(network(images)) for network in networks).detach() / 2)
    with pytest.raises(SettingError):
        Ensemble([])


def test_ensemble_weighs_its_networks_and_does_not_ask_those_of_no_weight() -> None:
    networks = [small_network().eval(), small_network().eval(), nn.Identity()]
    with torch.no_grad():
        networks[1][0].weight.neg_()
        images = examples()[0]
        said = [F.softmax(network(images), 1) for network in networks[:2]]
        assert torch.allclose(Ensemble(networks, weights=[3, 1, 0])(images), 0.75 * said[0] + 0.25 * said[1])
    for weights in ([1, 1], [1, -1, 1], [0, 0, 0], [1, float("nan"), 1]):
        with pytest.raises(SettingError, match="a weight of 0 or more for each of 3 networks"):
            Ensemble(networks, weights=weights)


def test_cross_moments_of_one_network_are_its_gram_matrices() -> None:
    network, (images, _) = small_network(), examples()
    both = cross_moments([network, network], [images])
    grams = gram_matrices(network, [images])
    for found in both:
        assert set(found) == set(grams)
        assert all(torch.allclose(found[name], grams[name], rtol=1e-4, atol=1e-7) for name in grams)


def test_pleas_computes_the_mean_of_the_sources_where_a_layer_can() -> None:
    """Two linear maps of one input: their mean output is the mean map's, and least squares finds it."""
    torch.manual_seed(0)
    layers, images = [nn.Linear(5, 3) for _ in range(2)], torch.randn(40, 5)
    sources = [Source.from_network(layer, name) for layer, name in zip(layers, "ab", strict=True)]
    merged = merge_with("pleas", nn.Linear(5, 3), sources, moments=cross_moments(layers, [images[:20], images[20:]]))
    expected = (layers[0](images) + layers[1](images)) / 2
    assert torch.allclose(merged(images), expected, atol=1e-5)


def test_cross_moments_refuse_networks_of_other_layers() -> None:
    with pytest.raises(SettingError, match="the same layers"):
        cross_moments([small_network(), nn.Linear(3, 3)], [examples()[0]])
    with pytest.raises(DatasetError, match="at least one batch"):
        cross_moments([small_network()], [])
