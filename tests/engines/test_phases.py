"""The three phases: what each trains, that a killed run ends as an undisturbed one, and that strangers are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.transforms import RandGaussianNoised
from torch import nn
from variants import build

from monai_medmerge import ResumeError, SettingError, Source, coefficients, fold, merge, recalibrate
from monai_medmerge.engines import CoefficientTrainer, FineTuner, LinearProbeTrainer, PhaseTrainer
from monai_medmerge.files import weights_sha256
from monai_medmerge.handlers import EpochSeedHandler, ResumeHandler

VARIANT = "ResNet18-2d"
PHASES = ("probe", "coefficients", "finetune")


def dataset() -> Dataset:
    generator = torch.Generator().manual_seed(0)
    items = [{"image": torch.randn(1, 16, 16, generator=generator), "label": n % 3} for n in range(20)]
    return Dataset(items, transform=RandGaussianNoised(keys="image", prob=0.5, std=0.5))


def sources(*seeds: int) -> list[Source]:
    return [Source.from_network(build(VARIANT, seed), f"source{seed}") for seed in seeds]


class Killed(BaseException):
    """Not an Exception, as a signal is none."""


def run(
    folder: Path, kill: str = "", iteration: int = 0, seeds: tuple[int, ...] = (1, 2)
) -> tuple[str, dict[str, int]]:
    """The three phases in a row: the final weights' hash, and how many steps each phase really made."""
    data = dataset()
    loader = DataLoader(data, batch_size=8, shuffle=True)
    steps: dict[str, int] = {}

    def follow(trainer: PhaseTrainer, name: str) -> None:
        steps[name] = 0

        @trainer.on(Events.ITERATION_COMPLETED)
        def count(engine: PhaseTrainer) -> None:
            steps[name] += 1
            if name == kill and steps[name] == iteration:
                raise Killed

        trainer.run()

    def handlers(name: str) -> list[object]:
        return [EpochSeedHandler(0, data), ResumeHandler(folder, name)]

    loss = nn.CrossEntropyLoss()
    merged = merge(build(VARIANT, 0), sources(*seeds), exclude=["fc.*"])
    common = {"train_data_loader": loader, "loss_function": loss, "max_epochs": 3}
    follow(LinearProbeTrainer(merged, head=["fc.*"], train_handlers=handlers("probe"), **common), "probe")
    learn = CoefficientTrainer(merged, entropy=0.1, pull=0.1, train_handlers=handlers("coefficients"), **common)
    follow(learn, "coefficients")
    folded = recalibrate(fold(merged), [{"image": torch.stack([item["image"] for item in data.data])}])
    follow(FineTuner(folded, pull=0.01, train_handlers=handlers("finetune"), **common), "finetune")
    return weights_sha256(folded), steps


@pytest.mark.parametrize("phase", PHASES)
def test_a_killed_run_ends_as_an_undisturbed_one(phase: str, tmp_path: Path) -> None:
    expected, steps = run(tmp_path / "whole")
    assert steps == dict.fromkeys(PHASES, 9)
    with pytest.raises(Killed):
        run(tmp_path / "killed", kill=phase, iteration=5)
    found, steps = run(tmp_path / "killed")
    assert found == expected
    # Epoch 1 was saved and epoch 2 was not: the phase goes on from there, the ones before make no step.
    before = PHASES[: PHASES.index(phase)]
    assert steps == {name: 0 if name in before else 6 if name == phase else 9 for name in PHASES}


def test_a_partial_checkpoint_is_never_taken_for_a_whole_one(tmp_path: Path) -> None:
    expected, _ = run(tmp_path)
    newest = tmp_path / "coefficients_checkpoint_epoch=3.pt"
    newest.write_bytes(newest.read_bytes()[:-1000])
    for path in tmp_path.glob("finetune*"):
        path.unlink()
    found, steps = run(tmp_path)
    assert found == expected
    assert steps["coefficients"] == 3
    assert (tmp_path / "coefficients_checkpoint_epoch=3.pt.damaged").exists()


def test_other_sources_cannot_resume(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(ResumeError, match="sha256"):
        run(tmp_path, seeds=(1, 3))


def test_a_coefficient_checkpoint_holds_no_source(tmp_path: Path) -> None:
    run(tmp_path)
    state = torch.load(tmp_path / "coefficients_checkpoint_epoch=3.pt", weights_only=True)
    assert state["record"]["sha256"] == [source.sha256 for source in sources(1, 2)]
    saved = sum(tensor.numel() for name, tensor in state["network"].items() if tensor.is_floating_point())
    coefficient_count = sum(2 * table.shape[1] for name, table in merged_tables().items() if name.endswith("weight"))
    buffers = sum(b.numel() for name, b in build(VARIANT, 0).named_buffers() if "running" in name)
    head = sum(p.numel() for name, p in build(VARIANT, 0).named_parameters() if name.startswith("fc"))
    # Biases follow their weights and have no coefficients of their own.
    assert saved == coefficient_count + buffers + head


def merged_tables() -> dict[str, torch.Tensor]:
    return coefficients(merge(build(VARIANT, 0), sources(1, 2), exclude=["fc.*"]))


def test_the_probe_moves_the_head_alone() -> None:
    network = build("DenseNet-2d", 0)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    loader = DataLoader(dataset(), batch_size=8)
    LinearProbeTrainer(network, loader, 2, nn.CrossEntropyLoss(), head=["class_layers.out.*"]).run()
    moved = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {"class_layers.out.weight", "class_layers.out.bias"}
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_coefficient_learning_leaves_the_sources_alone() -> None:
    given = sources(1, 2)
    before = [Source(source.name, dict(source.tensors)).sha256 for source in given]
    merged = merge(build(VARIANT, 0), given, residual=True, exclude=["fc.*"])
    CoefficientTrainer(merged, DataLoader(dataset(), batch_size=8), 2, nn.CrossEntropyLoss()).run()
    assert [Source(source.name, dict(source.tensors)).sha256 for source in given] == before
    tables = {name: table for name, table in coefficients(merged).items() if "conv" in name}
    assert all((table - 0.5).abs().max() > 1e-3 for table in tables.values())


def test_nothing_to_train_is_an_error() -> None:
    with pytest.raises(SettingError, match="trainable"):
        LinearProbeTrainer(build(VARIANT, 0), [], 1, nn.CrossEntropyLoss(), head=["nothing.*"])


def test_rates_of_earlier_stages_are_lower() -> None:
    network = build(VARIANT, 0)
    tuner = FineTuner(network, [], 1, nn.CrossEntropyLoss(), learning_rate=0.1, layer_decay=0.5, device="cpu")
    rates = {id(p): group["lr"] for group in tuner.optimizer.param_groups for p in group["params"]}
    assert set(rates) == {id(p) for p in network.parameters()}
    stages = [child for child in network.children() if list(child.parameters())]
    for n, stage in enumerate(reversed(stages)):
        assert {rates[id(p)] for p in stage.parameters()} == {0.1 * 0.5**n}


def test_a_probe_takes_one_pattern_as_text() -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    before = network[0].weight.clone()
    data = [{"image": torch.randn(8, 4), "label": torch.randint(2, (8,))}]
    LinearProbeTrainer(network, data, 1, nn.CrossEntropyLoss(), head="1.*").run()
    assert torch.equal(network[0].weight, before)
