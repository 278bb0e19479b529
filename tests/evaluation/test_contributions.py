"""Shares of sources: exact on coefficients known beforehand, and drawn."""

from __future__ import annotations

import itertools
import os
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.networks.nets import DenseNet, ResNet, UNet
from PIL import Image
from torch import nn

from monai_medmerge import Source, coefficients, merge
from monai_medmerge.errors import SettingError
from monai_medmerge.evaluation.bootstrap import Estimate
from monai_medmerge.evaluation.reliability import calibration
from monai_medmerge.evaluation.report import plots
from monai_medmerge.evaluation.report.drawing import png
from monai_medmerge.evaluation.shares import contributions, source_names, summarise

NETWORKS = {
    "ResNet": lambda: ResNet("basic", [1, 1, 1, 1], [4, 8, 8, 16], 2, 1, num_classes=3),
    "DenseNet": lambda: DenseNet(2, 1, 3, 8, 4, (2, 2)),
    "UNet": lambda: UNet(2, 1, 3, (4, 8, 16), (2, 2)),
    "one layer": lambda: nn.Linear(3, 2),
}


@pytest.mark.parametrize(
    ("name", "granularity", "constraint"),
    [
        *itertools.product(NETWORKS, ["kernel"], ["softmax"]),
        ("ResNet", "slice", "free"),
        ("ResNet", "network", "affine"),
    ],
)
def test_equal_coefficients_are_equal_shares(name: str, granularity: str, constraint: str) -> None:
    sources = [Source.from_network(NETWORKS[name](), s) for s in "abcd"]
    merged = merge(NETWORKS[name](), sources, granularity, constraint)
    frame = contributions(coefficients(merged), list("abcd"))
    assert source_names(frame) == list("abcd")
    assert np.allclose(frame[list("abcd")], 0.25)
    assert np.allclose(frame["entropy"], np.log(4), atol=1e-6)
    assert not frame["whole"].any()
    assert np.allclose(frame["movement"], 0)
    for by in ("layer", "stage", None):
        assert np.allclose(summarise(frame, by)[list("abcd")].sum(axis=1), 1)


def test_a_one_hot_start_is_that_source() -> None:
    sources = [Source.from_network(NETWORKS["ResNet"](), s) for s in "ab"]
    merged = merge(NETWORKS["ResNet"](), sources, constraint="free", start="anchor", anchor=1)
    table = coefficients(merged)
    frame = contributions(table, list("ab"), start=table)
    assert frame["b"].eq(1).all()
    assert frame["whole"].eq(1).all()
    assert frame["entropy"].eq(0).all()
    assert frame["movement"].eq(0).all()


def test_numbers_known_beforehand() -> None:
    tables = {
        "body.block1.conv.weight": torch.tensor([[2.0, -1.0, 0.0], [-2.0, 0.0, 0.0]]),
        "body.block1.conv.bias": torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]),
        "body.block2.conv.weight": torch.tensor([[[0.0, 1.0]], [[1.0, 3.0]]]),
    }
    sizes = {"body.block1.conv.weight": 27, "body.block1.conv.bias": 3, "body.block2.conv.weight": 2}
    frame = contributions(tables, ["x", "y"], sizes)
    # A kernel that takes nothing from anybody has no share: (0.5 + 1 + 0) / 3.
    assert frame["x"].tolist() == pytest.approx([0.5, 1, 0.125])
    assert frame["whole"].tolist() == pytest.approx([1 / 3, 1, 0.5])
    assert frame["stage"].tolist() == ["body.block1", "body.block1", "body.block2"]
    assert frame["movement"].tolist()[0] == pytest.approx((1.5 + 1.5 + 0.5 + 2.5 + 0.5 + 0.5) / 6)
    stages = summarise(frame, "stage")
    assert stages["x"].tolist() == pytest.approx([(27 * 0.5 + 3) / 30, 0.125])
    assert stages["numbers"].tolist() == [30, 2]


def test_useful_sources_get_more_of_planted_coefficients() -> None:
    frame = contributions({"a.weight": torch.tensor([[0.9, 0.8], [0.1, 0.2]])}, ["useful", "random"])
    assert (frame["useful"] > frame["random"]).all()


def test_wrong_use_is_refused() -> None:
    table = {"a.weight": torch.ones(2, 3)}
    with pytest.raises(SettingError, match="layer"):
        contributions(table, ["a", "layer"])
    with pytest.raises(SettingError, match="2 source names"):
        contributions(table, ["a"])
    with pytest.raises(SettingError, match="'block'"):
        summarise(contributions(table, ["a", "b"]), "block")


def _spread(picture: bytes) -> float:
    return float(np.asarray(Image.open(BytesIO(picture)).convert("L")).std())


@pytest.mark.parametrize("dark", [False, True])
def test_plots_show_something_and_know_their_page(dark: bool) -> None:
    tables = {f"layer{n}.weight": torch.rand(3, 8) for n in range(70)}
    frame, names = contributions(tables, ["a", "b", "c"]), ["a", "b", "c"]
    probabilities = np.random.default_rng(0).dirichlet([2, 1], 60)
    found = calibration(probabilities, np.arange(60) % 2)
    drawn = [
        png(plots.contributions_plot, frame, dark=dark),
        png(plots.heat_map, frame[names].to_numpy().T, names, frame["layer"], title="shares", dark=dark),
        png(plots.histogram_plot, tables, names, dark=dark),
        png(plots.histogram_plot, {"a": torch.ones(3, 2)}, names, dark=dark),
        png(plots.curves_plot, {"loss": [(1, 0.5), (2, 0.4)]}, title="loss", ylabel="loss", dark=dark),
        png(plots.reliability_plot, {"reference": found, "candidate": found}, dark=dark),
        png(plots.differences_plot, {"a": Estimate(0.1, 0.0, 0.2)}, limit=0.02, dark=dark),
    ]
    for picture in drawn:
        corner = Image.open(BytesIO(picture)).convert("L").getpixel((1, 1))
        assert (corner < 40) == dark
        assert _spread(picture) > 5
        assert len(picture) < 150_000


def test_a_plot_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "shares.png"
    frame = contributions({"a.weight": torch.rand(2, 8)}, ["a", "b"])
    plots.contributions_plot(frame, path)
    whole = path.read_bytes()
    with pytest.raises(TypeError, match="shape"):
        plots.heat_map(np.ones(3), ["a"], ["b"], path, title="not a table")
    assert path.read_bytes() == whole
    assert os.listdir(tmp_path) == ["shares.png"]  # noqa: PTH208
