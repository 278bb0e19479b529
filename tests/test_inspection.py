"""Looking at a network leaves no trace, and every form of batch is read alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch
from monai.networks.nets import DynUNet
from torch import Tensor, nn

from monai_medmerge import Source
from monai_medmerge.bundle.results.segmentation_outcome import volume_dice
from monai_medmerge.errors import DatasetError
from monai_medmerge.evaluation import layer_similarity, predict
from monai_medmerge.inspection import copy_network, device_of, dtype_of, evaluating, image_and_label
from monai_medmerge.methods import cross_moments, fisher_diagonal, gram_matrices
from monai_medmerge.networks import recalibrate
from monai_medmerge.ranking import rank

IMAGES, LABELS = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 2


class Unusual(nn.Module):
    """Modes that differ from layer to layer, a frozen layer, and an output that it keeps with its history."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.ReLU())
        self.head = nn.Linear(4, 2)
        self.kept: Tensor | None = None

    def forward(self, image: Tensor) -> Tensor:
        self.kept = self.head(self.body(image).mean((2, 3)))
        return self.kept


def unusual() -> Unusual:
    torch.manual_seed(0)
    network = Unusual().train()
    network.body[1].eval()
    network.body[0].weight.requires_grad_(False)
    # It has run once, so that it holds a tensor with a history.
    network(IMAGES)
    return network


def state(network: nn.Module) -> tuple[list[bool], list[bool]]:
    return [m.training for m in network.modules()], [p.requires_grad for p in network.parameters()]


BATCHES = [{"image": IMAGES, "label": LABELS}]
LOOKS: dict[str, Callable[[nn.Module], object]] = {
    "predict": lambda n: predict(n, BATCHES),
    "recalibrate": lambda n: recalibrate(n, BATCHES),
    "rank": lambda n: rank(n, [Source.from_network(n, "a"), Source.from_network(n, "b")], BATCHES),
    "similarity": lambda n: layer_similarity(n, n, [Source.from_network(n, "a")], BATCHES),
    "fisher": lambda n: fisher_diagonal(n, BATCHES, nn.CrossEntropyLoss()),
    "gram": lambda n: gram_matrices(n, BATCHES),
    "moments": lambda n: cross_moments([n, n], BATCHES),
}


@pytest.mark.parametrize("look", LOOKS)
def test_every_mode_and_flag_is_put_back_on_networks_that_have_run(look: str) -> None:
    network = unusual()
    before = state(network)
    LOOKS[look](network)
    assert state(network) == before


@pytest.mark.parametrize("look", [name for name in LOOKS if name not in ("rank", "similarity")])
def test_and_when_a_batch_cannot_be_read(look: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = unusual()
    before = state(network)
    monkeypatch.setitem(BATCHES[0], "image", torch.zeros(2, 3, 8, 8))
    with pytest.raises(RuntimeError):
        LOOKS[look](network)
    assert state(network) == before


def test_volumes_are_looked_at_without_a_trace_and_in_any_form() -> None:
    torch.manual_seed(0)
    network = DynUNet(2, 1, 2, [3, 3, 3], [1, 2, 2], [2, 2], deep_supervision=True).train()
    network.input_block.eval()
    images, labels = torch.randn(2, 1, 16, 16), torch.randint(2, (2, 1, 16, 16))
    network(images)
    before = state(network)
    inferer = lambda image, net: net(image)  # noqa: E731
    found = volume_dice(network, [{"image": images, "label": labels}], inferer, 2)
    assert state(network) == before
    cases = [{"image": i, "label": n} for i, n in zip(images, labels, strict=True)]
    assert torch.equal(torch.as_tensor(volume_dice(network, [cases], inferer, 2)), torch.as_tensor(found))
    copied = copy_network(network)
    assert all(torch.equal(a, b) for a, b in zip(copied.parameters(), network.parameters(), strict=True))


def batch_forms() -> dict[str, Any]:
    data = [{"image": MetaTensor(image), "label": int(label)} for image, label in zip(IMAGES, LABELS, strict=True)]
    collated = next(iter(DataLoader(Dataset(data), batch_size=8)))
    return {
        "dictionary": {"image": IMAGES, "label": LABELS},
        "MONAI's loader": collated,
        "decollated": decollate_batch(collated),
        "pair": (IMAGES, LABELS),
        "list": [IMAGES, LABELS],
        "ignite's triple": (IMAGES, LABELS, "weights"),
        "cases": data,
        "pairs": list(zip(IMAGES, LABELS, strict=True)),
        "numbers": [(image, int(label)) for image, label in zip(IMAGES, LABELS, strict=True)],
    }


@pytest.mark.parametrize("form", batch_forms())
def test_every_form_of_batch_is_the_same_batch(form: str) -> None:
    image, label = image_and_label(batch_forms()[form])
    assert type(image) is Tensor
    assert type(label) is Tensor
    assert torch.equal(image, IMAGES)
    assert torch.equal(label, LABELS)


@pytest.mark.parametrize(
    "batch",
    [None, "images", [], {}, {"label": LABELS}, {"image": ["a", "b"]}, 3, torch.tensor(1.0),
     [{"image": torch.zeros(1, 2)}, {"image": torch.zeros(1, 3)}]],
)  # fmt: skip
def test_what_holds_no_image_is_refused_in_one_line(batch: Any) -> None:
    with pytest.raises(DatasetError, match="batch") as error:
        image_and_label(batch)
    assert "\n" not in str(error.value)


def test_a_network_without_parameters_is_looked_at_like_any_other() -> None:
    network = nn.Flatten()
    assert device_of(network) == torch.device("cpu")
    assert dtype_of(network) == torch.float32
    probabilities, _ = predict(network, [(torch.zeros(3, 2, 1), torch.zeros(3))])
    assert probabilities.shape == (3, 2)
    assert recalibrate(network, []) is network
    with pytest.raises(DatasetError, match="at least one"):
        predict(network, [])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.booleans(), min_size=4, max_size=4), st.booleans(), st.booleans())
def test_modes_flags_and_gradients_come_back_whatever_they_were(modes: list[bool], flag: bool, grad: bool) -> None:
    network = nn.Sequential(nn.Linear(1, 1), nn.Dropout(), nn.Sequential(nn.Linear(1, 1)))
    for module, mode in zip(network.modules(), modes, strict=False):
        module.training = mode
    network[0].weight.requires_grad_(flag)
    before = state(network)
    with torch.set_grad_enabled(grad):
        with evaluating(network):
            assert not torch.is_grad_enabled()
            assert not any(module.training for module in network.modules())
            network.requires_grad_(False)
        assert torch.is_grad_enabled() is grad
    assert state(network) == before
