"""Teaching: the loss by an independent oracle, both kinds of teachers, maps of voxels, and resuming."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.transforms import RandGaussianNoised
from torch import nn
from torch.nn.functional import kl_div

from monai_medmerge import DatasetError, ResumeError, SettingError
from monai_medmerge.engines import TeachTrainer, divergence
from monai_medmerge.files import weights_sha256
from monai_medmerge.handlers import EpochSeedHandler, ResumeHandler, WeightAverager
from monai_medmerge.methods import Ensemble

IMAGES = torch.randn(24, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


def data(soft: bool = True) -> Dataset:
    items = [{"image": image} for image in IMAGES]
    if soft:
        said = Ensemble([network(1).eval()])(IMAGES).detach()
        items = [{**item, "soft": row} for item, row in zip(items, said, strict=True)]
    return Dataset(items, transform=RandGaussianNoised(keys="image", prob=0.5, std=0.5))


def labelled() -> Dataset:
    items = [{"image": IMAGES[n] + 1, "label": n % 3} for n in range(5)]
    return Dataset(items, transform=RandGaussianNoised(keys="image", prob=0.5, std=0.5))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("space", [(), (5, 4)])
def test_the_divergence_is_torchs(temperature: float, space: tuple[int, ...]) -> None:
    scores, soft = torch.randn(6, 3, *space), torch.randn(6, 3, *space).softmax(1)
    wanted = (soft ** (1 / temperature)) / (soft ** (1 / temperature)).sum(1, keepdim=True)
    per_case = kl_div((scores / temperature).log_softmax(1), wanted, reduction="none").sum(1)
    assert divergence(scores, soft, temperature).item() == pytest.approx(temperature**2 * per_case.mean().item(), 1e-4)


def test_certain_soft_labels_have_a_finite_loss_and_gradient() -> None:
    scores = torch.randn(2, 3, requires_grad=True)
    divergence(scores, torch.eye(3)[:2], 2.0).backward()
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()


@pytest.mark.parametrize("asked", [True, False])
def test_a_student_learns_what_a_teacher_says(asked: bool) -> None:
    teacher, student = Ensemble([network(1)]), network(2)
    loader = DataLoader(Dataset(data(not asked).data), batch_size=12)
    before = divergence(student.eval()(IMAGES), teacher.eval()(IMAGES)).item()
    TeachTrainer(student, loader, 40, teacher=teacher if asked else None, learning_rate=1e-2, device="cpu").run()
    assert divergence(student.eval()(IMAGES), teacher(IMAGES)).item() < before / 5


def test_voxels_are_taught_as_images_are() -> None:
    torch.manual_seed(0)
    teacher, student = nn.Conv2d(1, 2, 1), nn.Conv2d(1, 2, 1)
    loader = [{"image": IMAGES}]
    TeachTrainer(student, loader, 60, teacher=Ensemble([teacher]), learning_rate=0.1, device="cpu").run()
    agree = student(IMAGES).argmax(1) == teacher(IMAGES).argmax(1)
    assert agree.float().mean() > 0.98


def run(folder: Path, kill: int = 0, weight: float = 0.2) -> tuple[str, str, int]:
    """Hash of the student and of its mean, and the steps that were made."""
    seen, few, student, steps = data(), labelled(), network(2), 0
    averager = WeightAverager(student, start=2)
    trainer = TeachTrainer(
        student,
        DataLoader(seen, batch_size=8, shuffle=True),
        3,
        labelled=DataLoader(few, batch_size=2, shuffle=True),
        label_weight=weight,
        device="cpu",
        train_handlers=[
            EpochSeedHandler(0, seen),
            EpochSeedHandler(0, few),
            averager,
            ResumeHandler(folder, "teach", beside={"mean": averager}),
        ],
    )

    @trainer.on(Events.ITERATION_COMPLETED)
    def count() -> None:
        nonlocal steps
        steps += 1
        if steps == kill:
            raise KeyboardInterrupt

    trainer.run()
    return weights_sha256(student), weights_sha256(averager.into(network(2))), steps


def test_a_killed_run_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    expected = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", kill=8)
    assert run(tmp_path / "killed") == (*expected[:2], 3)
    assert expected[0] != expected[1]


def test_another_weight_cannot_resume(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(ResumeError, match="label_weight"):
        run(tmp_path, weight=0.3)


def test_what_does_not_fit_is_one_clear_line() -> None:
    loader = DataLoader(Dataset([{"image": image} for image in IMAGES]), batch_size=8)
    with pytest.raises(DatasetError, match="or a teacher"):
        TeachTrainer(network(0), loader, 1, device="cpu").run()
    with pytest.raises(DatasetError, match=r"soft labels of shape \(8, 3\), found \(8, 2\)"):
        TeachTrainer(network(0), [{"image": IMAGES[:8], "soft": torch.rand(8, 2)}], 1, device="cpu").run()
    with pytest.raises(DatasetError, match="labelled images"):
        TeachTrainer(network(0), loader, 1, teacher=Ensemble([network(1)]), labelled=[], device="cpu").run()
    with pytest.raises(SettingError, match="temperature"):
        TeachTrainer(network(0), loader, 1, temperature=0)


def test_an_average_along_a_run_is_the_mean_of_its_weights() -> None:
    student, seen = network(0), []
    for decay in (None, 0.5):
        averager = WeightAverager(student, decay=decay)
        for step in range(3):
            nn.init.constant_(student[4].weight, float(step**2))
            averager.update()
        seen.append(averager.into(network(1))[4].weight[0, 0].item())
    assert seen == pytest.approx([(0 + 1 + 4) / 3, 0.25 * 0 + 0.25 * 1 + 0.5 * 4])
    with pytest.raises(SettingError, match="an epoch that counts"):
        WeightAverager(student, start=5).into(student)
