"""The coefficients' optimizer steps where the user's own iteration steps, however many optimizers it has."""

from __future__ import annotations

import functools
import json

import pytest
import torch
from bundle.overlay.overlay_runs import Bundle, load, overriding, same
from torch import nn

from monai_medmerge.bundle.overlay.rates import Idle, StandIns, optimizers
from monai_medmerge.bundle.overlay.starting import OVERLAY_FILE


@pytest.mark.parametrize("bundle", ["two_optimizers"], indirect=True)
def test_optimizers_in_the_arguments_of_an_iteration_are_as_good_as_the_trainers(bundle: Bundle) -> None:
    starts, losses = [], []
    for changes in (
        {},
        {"fit#engine#optimizer": "@optimizers#1",
         "fit#engine#iteration_update": "$functools.partial(step, scaler=@scaler, optimizers=@optimizers[::-1])"},
    ):  # fmt: skip
        bundle.run(OVERLAY_FILE, overriding(bundle.root, **changes), sources=bundle.sources, coefficient_epochs=3)
        starts.append(load(bundle.root / "medmerge" / "initialization.pt"))
        losses.append(json.loads((bundle.root / "medmerge" / "merge.json").read_text())["coefficient_losses"])
    assert same(*starts)
    assert losses[0][-1] < losses[0][0]


def test_each_optimizer_has_one_stand_in_wherever_it_is_held() -> None:
    weight = nn.Parameter(torch.ones(2))
    first, second = torch.optim.SGD([weight]), torch.optim.Adam([weight])
    ours = torch.optim.AdamW([weight])
    stand_ins = StandIns(ours)
    held = {"both": (first, second), "step": functools.partial(print, second, optimizer=first), "rate": 0.1}
    other = stand_ins.of(held)
    assert other["both"][0] is other["step"].keywords["optimizer"] is ours
    assert isinstance(other["both"][1], Idle)
    assert other["step"].args == other["both"][1:]
    assert other["rate"] == 0.1
    assert held["both"] == (first, second)
    plain = {"weights": [1, 2]}
    assert stand_ins.of(plain) is plain
    assert list(optimizers(held)) == [first, second, second, first]


def test_a_scaler_steps_an_idle_optimizer() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    idle = Idle()
    for _ in range(2):
        idle.zero_grad(set_to_none=True)
        scaler.scale(torch.ones(1, requires_grad=True)).backward()
        scaler.step(idle)
        scaler.update()
    assert scaler.get_scale() == 2.0
