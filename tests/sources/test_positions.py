"""Position embeddings for images of another size: interpolated when asked, refused otherwise, told in the report."""

from __future__ import annotations

import monai.networks.nets as nets
import pytest
import torch
from torch import Tensor, nn

from monai_medmerge import Source, match
from monai_medmerge.sources import adapt

NAME = "patch_embedding.position_embeddings"


def vit(size: int, dimensions: int) -> nn.Module:
    return nets.ViT(1, (size,) * dimensions, (8,) * dimensions, 12, 24, 2, 3, spatial_dims=dimensions).eval()


def ramp(places: int, dimensions: int, channels: int) -> Tensor:
    """An embedding (1, token, channel) that grows evenly along the first axis of the image, from 0 to 1."""
    along = (torch.arange(places) + 0.5) / places
    grid = along.reshape(-1, *[1] * (dimensions - 1)).expand(*[places] * dimensions)
    return grid.reshape(1, -1, 1).expand(1, -1, channels).contiguous()


@pytest.mark.parametrize(("found", "wanted", "dimensions"), [(4, 6, 2), (6, 4, 2), (4, 6, 3), (6, 4, 3)])
def test_an_even_embedding_stays_even(found: int, wanted: int, dimensions: int) -> None:
    torch.manual_seed(0)
    original, network = vit(8 * found, dimensions), vit(8 * wanted, dimensions)
    tensors = {**original.state_dict(), NAME: ramp(found, dimensions, 12)}
    source = Source("source", tensors)
    report = match(network, [source])
    assert not report.compatible
    assert "--adapt" in report.reasons[0]
    adapted = adapt(network, source)
    grid = " x ".join([str(found)] * dimensions)
    assert f"{NAME}: positions of {grid} to" in "".join(adapted.provenance["adaptations"])
    assert match(network, [adapted]).compatible
    # Away from the border, where there is nothing to continue with, an even slope is what it was.
    new = adapted.tensors[NAME].reshape(*[wanted] * dimensions, 12)
    expected = ramp(wanted, dimensions, 12).reshape(new.shape)
    middle = slice(wanted // 2 - 1, wanted // 2 + 1)
    torch.testing.assert_close(new[middle], expected[middle], rtol=0, atol=0.02)
    network.load_state_dict(dict(adapted.tensors))
    with torch.no_grad():
        assert network(torch.zeros(1, 1, *[8 * wanted] * dimensions))[0].isfinite().all()


def test_a_table_of_relative_positions_follows_the_window() -> None:
    def swin(window: int) -> nn.Module:
        return nets.SwinUNETR(1, 2, feature_size=12, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1), spatial_dims=2,
                              window_size=window)  # fmt: skip

    original, network = swin(4), swin(6)
    state = original.state_dict()
    tables = [name for name in state if name.endswith("relative_position_bias_table")]
    source = Source("source", {n: torch.full_like(t, 0.25) if n in tables else t for n, t in state.items()})
    adapted = adapt(network, source)
    assert len(tables) == 4
    for name in tables:
        assert adapted.tensors[name].shape == network.state_dict()[name].shape == (121, 1)
        torch.testing.assert_close(adapted.tensors[name], torch.full((121, 1), 0.25))
        assert any(f"{name}: positions of 7 x 7 to 11 x 11" in note for note in adapted.provenance["adaptations"])


def test_another_number_of_channels_is_no_other_size() -> None:
    network = vit(32, 2)
    tensors = {**network.state_dict(), NAME: torch.zeros(1, 16, 24)}
    assert not match(network, [adapt(network, Source("wide", tensors))]).compatible
