"""What is learned from whom: a useful source against a random one, followed over training and layer by layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from monai_medmerge import Source, coefficients, fold, merge
from monai_medmerge.engines import CoefficientTrainer
from monai_medmerge.errors import DatasetError
from monai_medmerge.evaluation.course import ContributionCourse
from monai_medmerge.evaluation.report.plots import layers_of_weights
from monai_medmerge.evaluation.shares import contributions, summarise
from monai_medmerge.evaluation.similarity import layer_similarity


def task(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Stripes whose direction is the class, at any phase, under noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    angle = (labels * torch.pi / 4)[:, None, None]
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    phase = 6.28 * torch.rand(count, 1, 1, generator=generator)
    stripes = torch.sin(1.2 * (x * angle.cos() + y * angle.sin()) + phase)
    return (stripes + torch.randn(count, 16, 16, generator=generator))[:, None], labels


def build() -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, 12), (12, 16), (16, 16), (16, 24), (24, 24)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if outputs != inputs and inputs > 1 else []
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 4))


@pytest.fixture(scope="module")
def useful() -> Source:
    torch.manual_seed(0)
    network, (images, labels) = build(), task(400, 0)
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    for _ in range(6):
        for chosen in torch.randperm(400).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images[chosen]), labels[chosen]).backward()
            optimizer.step()
    return Source.from_network(network, "useful")


def test_a_useful_source_gets_more_than_a_random_one(useful: Source, tmp_path: Path) -> None:
    torch.manual_seed(1)
    network, random = build(), Source.from_network(build(), "random")
    merged = merge(network, [random, useful])
    images, labels = task(200, 5)
    batches = [{"image": i, "label": k} for i, k in zip(images.split(50), labels.split(50), strict=True)]
    writer = SummaryWriter(str(tmp_path))
    course = ContributionCourse(merged, writer)
    trainer = CoefficientTrainer(
        merged,
        batches,
        max_epochs=15,
        loss_function=nn.CrossEntropyLoss(),
        learning_rate=0.1,
        device="cpu",
        train_handlers=[course],
    )
    trainer.run()
    writer.close()
    frame = contributions(coefficients(merged), ["random", "useful"], course.sizes, course.start)
    layers = layers_of_weights(frame)
    assert (layers["useful"] > layers["random"]).mean() >= 0.8
    assert frame["movement"].gt(0).all()
    # The course begins where the merge began and ends where it ended.
    assert course.frame["epoch"].tolist() == list(range(16))
    assert course.frame["useful"].iloc[0] == pytest.approx(0.5)
    assert course.frame["useful"].iloc[-1] == pytest.approx(summarise(frame, None)["useful"].iloc[0])
    assert course.frame["movement"].iloc[0] == 0
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0}).Reload()
    assert len(events.Images("contributions")) == 16


def test_a_course_goes_on_where_it_stopped(useful: Source) -> None:
    merged = merge(build(), [useful])
    first = ContributionCourse(merged)
    engine = Engine(lambda _, __: None)
    first.attach(engine)
    engine.run([0], max_epochs=2)
    second = ContributionCourse(merged)
    second.load_state_dict(first.state_dict())
    engine = Engine(lambda _, __: None)
    second.attach(engine)
    engine.state.epoch = 2
    engine.run([0], max_epochs=3)
    assert [row["epoch"] for row in second.rows][:3] == [0, 1, 2]
    assert len(second.rows) > 3


def test_layers_answer_like_the_source_that_they_are_from(useful: Source) -> None:
    torch.manual_seed(2)
    random = Source.from_network(build(), "random")
    merged = merge(build(), [random, useful], constraint="free", start="anchor", anchor=1)
    data = [task(60, 7)]
    found = layer_similarity(merged, build(), [random, useful], data)
    assert found["layer"].tolist()[0] == "0"
    assert np.allclose(found["useful"], 1, atol=1e-3)
    assert (found["random"].iloc[3:] < 0.9).all()
    assert np.allclose(layer_similarity(fold(merged), build(), [useful], data)["useful"], 1, atol=1e-3)
    with pytest.raises(DatasetError, match="at least one batch"):
        layer_similarity(merged, build(), [useful], [])
