"""Any registered method by its name in a configuration, in code and in the bundle."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from monai_medmerge import Source, recalibrate
from monai_medmerge.bundle import merge_sources
from monai_medmerge.errors import SettingError
from monai_medmerge.methods import METHODS, gram_matrices, merge_with
from monai_medmerge.networks import is_merged
from monai_medmerge.sources.filling import load_into

RIVALS = sorted(set(METHODS) - {"medmerge"})
HEAD = ["6.*"]


def build() -> nn.Module:
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(6, 2))


@pytest.fixture
def sources() -> list[Source]:
    torch.manual_seed(0)
    return [Source.from_network(build(), name) for name in ("a", "b", "c")]


@pytest.fixture
def batches() -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    label = torch.arange(24) % 2
    image = torch.randn(24, 1, 9, 9, generator=generator) * (1 + label[:, None, None, None])
    return [{"image": i, "label": n} for i, n in zip(image.split(8), label.split(8), strict=True)]


def merged_by(
    method: str, sources: list[Source], batches: list[dict[str, torch.Tensor]], **options: object
) -> nn.Module:
    torch.manual_seed(2)
    return merge_sources(method, build(), sources, batches, nn.CrossEntropyLoss(), HEAD, options=options)


@pytest.mark.parametrize("method", RIVALS)
def test_every_method_merges_by_its_name_alone(
    method: str, sources: list[Source], batches: list[dict[str, torch.Tensor]]
) -> None:
    chosen = sources[: METHODS[method].most or 3]
    options = {"weights": [0.5, 0.3, 0.2]} if method == "weighted_average" else {}
    merged = merged_by(method, chosen, batches, **options)
    torch.manual_seed(2)
    untouched = build().state_dict()
    assert not is_merged(merged)
    assert all(torch.isfinite(tensor).all() for tensor in merged.state_dict().values())
    same = {name for name, tensor in merged.named_parameters() if torch.equal(tensor, untouched[name])}
    # Fresh norms are the same in every source.
    assert {name for name in same if not name.startswith("1.")} == {"6.weight", "6.bias"}


def test_what_is_measured_is_what_a_user_would_measure(
    sources: list[Source], batches: list[dict[str, torch.Tensor]]
) -> None:
    merged = merged_by("regmean", sources, batches)
    torch.manual_seed(2)
    network = build()
    grams = [gram_matrices(recalibrate(load_into(network, s), batches), batches) for s in sources]
    expected = merge_with("regmean", network, sources, exclude=HEAD, grams=grams)
    assert all(torch.equal(a, b) for a, b in zip(merged.parameters(), expected.parameters(), strict=True))


def test_fisher_information_weighs_sources_by_the_data(
    sources: list[Source], batches: list[dict[str, torch.Tensor]]
) -> None:
    mean = merged_by("uniform_average", sources, batches)
    assert not torch.allclose(merged_by("fisher", sources, batches)[3].weight, mean[3].weight)


def test_a_base_may_be_a_file(sources: list[Source], batches: list[dict[str, torch.Tensor]], tmp_path: Path) -> None:
    save_file(dict(sources[0].tensors), tmp_path / "base.safetensors")
    merged = merged_by("task_arithmetic", sources[1:], batches, base=str(tmp_path / "base.safetensors"), scale=1.0)
    first, *others = (source.tensors["3.weight"] for source in sources)
    torch.testing.assert_close(merged[3].weight.data, first + sum(other - first for other in others))


def test_wrong_choices_are_named(sources: list[Source], batches: list[dict[str, torch.Tensor]]) -> None:
    with pytest.raises(SettingError, match="uniform_average"):
        merged_by("uniform", sources, batches)
    with pytest.raises(SettingError, match="density"):
        merged_by("ties", sources, batches, sharpness=3)
    with pytest.raises(SettingError, match="scale"):
        merged_by("medmerge", sources, batches, scale=3)


@pytest.mark.slow
def test_the_bundle_runs_a_rival(bundle_command: Callable[..., list[str]], phantoms: Path, tmp_path: Path) -> None:
    epochs = {"probe_epochs": 1, "finetune_epochs": 1}
    settings = {"method": "ties", "method_options": "{'density': 0.5, 'base': 'mean'}", "rank": "off"}
    command = bundle_command("merge", dataset_dir=phantoms, output_dir=tmp_path, **epochs, **settings)
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["method"] == "ties"
    assert set(metrics["sources"]) == {"natural", "chest_xray", "brain_mri"}
    assert set(metrics["stages"]) == {"merged", "fine_tuned"}
    assert "granularity" not in metrics
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["settings"]["method"] == "ties"
    assert report["contributions"] is None
    assert (tmp_path / "report.html").exists()
    assert not (tmp_path / "contributions.png").exists()
