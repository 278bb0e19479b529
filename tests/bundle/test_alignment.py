"""The alignment stage: its choices, and that merging what it returns still works."""

from __future__ import annotations

import pytest
import torch
from variants import build, example, output

from monai_medmerge import SettingError, Source, merge
from monai_medmerge.bundle import align_sources

VARIANT = "ResNet18-2d"


@pytest.mark.parametrize("alignment", ["weights", "activations"])
def test_aligned_sources_compute_what_they_did_and_merge(alignment: str) -> None:
    network, image = build(VARIANT, 0), example(VARIANT)
    sources = [Source.from_network(build(VARIANT, seed), f"source{seed}") for seed in (1, 2)]
    aligned = align_sources(network, sources, alignment, [{"image": image}, {"image": image + 1}], anchor=0)
    assert aligned[1].provenance["alignment"]["groups"] > 0
    assert aligned[1].sha256 != sources[1].sha256
    merged = merge(network, aligned, start="anchor", anchor=1).eval()
    for found, expected in zip(output(merged, image), output(build(VARIANT, 2).eval(), image), strict=True):
        assert torch.allclose(found, expected, atol=1e-4 * float(expected.abs().max()))


def test_none_returns_the_sources_and_the_unknown_is_refused() -> None:
    network = build(VARIANT, 0)
    sources = [Source.from_network(build(VARIANT, seed), f"source{seed}") for seed in (1, 2)]
    assert align_sources(network, sources, "none", iter(())) == sources
    with pytest.raises(SettingError, match="none, weights, activations"):
        align_sources(network, sources, "best", [])
