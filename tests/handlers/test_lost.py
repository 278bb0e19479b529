"""A class of which nothing is found is told of, by an evaluator of MONAI's and by what a run writes of its stages."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from monai.engines import SupervisedEvaluator
from monai.transforms import AsDiscreted
from torch import Tensor, nn

from monai_medmerge.bundle import Outcome, SegmentationOutcome
from monai_medmerge.handlers import LostClassWarner

NAMES = ["background", "front", "tail"]


class Says(nn.Module):
    """Everything it is shown is of the class of the pixel's value, but the classes it does not know."""

    def __init__(self, unknown: int | None = None) -> None:
        super().__init__()
        self.unknown = unknown
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, image: Tensor) -> Tensor:
        said = nn.functional.one_hot(image[:, 0].long(), 3).movedim(-1, 1).float()
        if self.unknown is not None:
            said[:, self.unknown] = -1
        return said * self.scale


def label_map() -> Tensor:
    label = torch.zeros(1, 1, 8, 8)
    label[..., 1:4, 1:4], label[..., 5:7, 5:7] = 1, 2
    return label


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.parametrize(("unknown", "lost"), [(None, []), (1, ["front"]), (0, [])])
def test_an_evaluator_of_volumes_tells_of_a_lost_label_once(
    unknown: int | None, lost: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    label = label_map()
    warner = LostClassWarner(NAMES, background=True)
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"), val_data_loader=[{"image": label, "label": label}], network=Says(unknown),
        postprocessing=AsDiscreted(keys=["pred", "label"], argmax=[True, False], to_onehot=3), val_handlers=[warner],
    )  # fmt: skip
    for epoch in range(2):
        evaluator.run(epoch + 1)
    assert warner.lost == lost
    said = [line for line in warnings(caplog) if "lost" in line]
    assert len(said) == bool(lost)
    assert all("front" in line and "tail" not in line for line in said)


def test_an_evaluator_of_images_counts_over_batches(caplog: pytest.LogCaptureFixture) -> None:
    batches = [{"image": torch.full((2, 1), float(k)), "label": torch.full((2,), k)} for k in range(3)]
    warner = LostClassWarner(NAMES)
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"), val_data_loader=batches, network=Says(2), val_handlers=[warner], decollate=False
    )
    evaluator.run()
    assert warner.lost == ["tail"]
    # A class without a case is not lost, and found again it is not told of.
    evaluator.state.dataloader = batches[:2]
    evaluator.network = Says()
    evaluator.run(2)
    assert warner.lost == []
    assert len([line for line in warnings(caplog) if "lost" in line]) == 1


def test_stages_of_a_run_tell_of_a_lost_label(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    label = label_map()
    outcome = SegmentationOutcome(
        tmp_path, [{"image": label, "label": label}], NAMES, 0, lambda image, network: network(image)
    )
    outcome.evaluate("whole", Says())
    assert not [line for line in warnings(caplog) if "lost" in line]
    outcome.evaluate("merged", Says(1))
    (line,) = (line for line in warnings(caplog) if "lost" in line)
    assert line.startswith("merged: lost: front,")


def test_stages_of_a_run_tell_of_a_lost_class(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    batches = [{"image": labels[:, None].float(), "label": labels}]
    Outcome(tmp_path, batches, NAMES, 0).evaluate("fine_tuned", Says(2))
    (line,) = (line for line in warnings(caplog) if "lost" in line)
    assert line.startswith("fine_tuned: lost: tail,")
