"""Every task of the bundles, small: simulated data, two sources of a tiny network, and the command to merge them.

    python examples/tasks.py multilabel --output multilabel

writes a folder with `data/dataset.json`, `chest.pt`, `brain.pt` and, of `own`, `my_model.py`, and prints the command.

| task | data | what tells it |
|---|---|---|
| `classes` | grey PNG, three classes | nothing |
| `multilabel` | a 0 or 1 for each of three labels | `--task multilabel` |
| `ordinal` | grades from 0 to 3 | `--task ordinal` |
| `colour` | RGB PNG | `--channels 3` |
| `volumes` | NIfTI volumes, one class each | `--image_size "[16,16,16]"` |
| `organs` | NIfTI volumes with label maps of three organs | the bundle medmerge_segmentation |
| `own` | as `classes` | `--network_def "my_model.py::Net(classes=3)"` |

The sources know another simulated task a little. None of it is patient data, and no figure of it means anything.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from PIL import Image

from monai_medmerge.bundle.definition.networks import build_network
from monai_medmerge.data.datasets import write_datalist

SIDE = 16
OWN = '''"""A network of one's own: any class of torch.nn.Module in a file that needs no other file beside it."""

import torch
from torch import Tensor, nn


class Net(nn.Module):
    """Two convolutions and a linear head."""

    def __init__(self, classes: int, width: int = 8) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(),
        )
        self.head = nn.Linear(2 * width, classes)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(torch.amax(self.features(image), (2, 3)))
'''
RESNET = (
    "ResNet(block='basic', layers=[1, 1, 1, 1], block_inplanes=[4, 4, 8, 8], spatial_dims={dims}, "
    "n_input_channels={channels}, conv1_t_size=3, num_classes={outputs})"
)
SEGRESNET = (
    "SegResNet(spatial_dims=3, init_filters=8, in_channels=1, out_channels={outputs}, blocks_down=[1, 1], "
    "blocks_up=[1])"
)


@dataclass(frozen=True)
class Case:
    """One task.

    Args:
        names: of classes, labels, grades or organs.
        settings: of `merge.json` that tell it.
        network: with `outputs` to be filled in.
        dims: 2 or 3.
        channels: of an image.
        bundle: that does it.
    """

    names: Sequence[str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    network: str = RESNET
    dims: int = 2
    channels: int = 1
    bundle: str = "medmerge_classification"

    @property
    def description(self) -> str:
        """The network, with its arguments."""
        return self.network.format(dims=self.dims, channels=self.channels, outputs=len(self.names))


CASES = {
    "classes": Case(("round", "long", "none")),
    "multilabel": Case(("round", "long", "bright"), {"task": "multilabel"}),
    "ordinal": Case(("none", "mild", "moderate", "severe"), {"task": "ordinal"}),
    "colour": Case(("red", "green", "blue"), {"channels": 3}, channels=3),
    "volumes": Case(("small", "large"), {"image_size": [SIDE] * 3}, dims=3),
    "organs": Case(
        ("background", "liver", "spleen", "kidney"), {"patch": [SIDE] * 3}, SEGRESNET, 3, 1, "medmerge_segmentation"
    ),
    "own": Case(("round", "long", "none"), {}, "my_model.py::Net(classes={outputs})"),
}


def write_task(task: str, folder: Path, images: int = 12, seed: int = 0) -> dict[str, Any]:
    """Write data and sources of a task.

    Args:
        task: a key of `CASES`.
        folder: to be made.
        images: in each of training, validation and test.
        seed: of all that is drawn.

    Returns:
        The settings of `merge.json`.
    """
    case, rng = CASES[task], np.random.default_rng(seed)
    data = folder / "data"
    data.mkdir(parents=True)
    sections: dict[str, list[dict[str, Any]]] = {}
    for section in ("training", "validation", "test"):
        (data / section).mkdir()
        drawn = [_draw(task, case, number, rng) for number in range(images)]
        sections[section] = [
            _written(data, f"{section}/{number:03d}", image, truth) for number, (image, truth) in enumerate(drawn)
        ]
    write_datalist(data, sections, case.names)
    description = case.description
    if "::" in description:
        (folder / "my_model.py").write_text(OWN, encoding="utf-8")
        description = f"{folder / 'my_model.py'}::{description.partition('::')[2]}"
    sources = []
    for number, name in enumerate(("chest", "brain")):
        torch.manual_seed(seed + number)
        sources.append(str(folder / f"{name}.pt"))
        torch.save(build_network(description).state_dict(), sources[-1])
    given = {} if case.bundle.endswith("segmentation") else {"image_size": [SIDE] * 2}
    return {
        "dataset_dir": str(data), "output_dir": str(folder / "out"), "source_files": sources,
        "network_def": description, **given, **case.settings,
    }  # fmt: skip


def _draw(task: str, case: Case, number: int, rng: np.random.Generator) -> tuple[np.ndarray, Any]:
    """An image, uint8 (row, column[, colour]) or float (x, y, z), and its label."""
    noise = rng.normal(100, 10, (SIDE,) * case.dims)
    grid = np.indices(noise.shape).astype(float) - rng.uniform(5, 10, case.dims).reshape(-1, *[1] * case.dims)
    distance = np.sqrt((grid**2).sum(0))
    label = number % len(case.names)
    if task == "organs":
        organ = 1 + number % (len(case.names) - 1)
        maps = np.where(distance < 4, organ, 0) + np.where((distance >= 4) & (distance < 6), 1 + organ % 3, 0)
        return (noise + 30 * maps).astype(np.float32), maps.astype(np.uint8)
    if task == "volumes":
        return (noise + 60 * (distance < (3, 6)[label])).astype(np.float32), label
    if task == "colour":
        image = np.repeat(noise[..., None], 3, 2)
        image[..., label] += 60 * (distance < 5)
        return image.clip(0, 255).astype(np.uint8), label
    if task == "ordinal":
        return (noise + 30 * label * (distance < 4)).clip(0, 255).astype(np.uint8), label
    shapes = 60 * (distance < 4), 60 * (np.abs(grid[0]) < 1.5), np.full_like(noise, 60.0)
    if task == "multilabel":
        truth = [int(number >> bit & 1) for bit in range(3)]
        noise += sum(there * shape for there, shape in zip(truth, shapes, strict=True))
        return noise.clip(0, 255).astype(np.uint8), truth
    return (noise + (shapes[label] if label < 2 else 0)).clip(0, 255).astype(np.uint8), label


def _written(data: Path, name: str, image: np.ndarray, truth: Any) -> dict[str, Any]:
    if image.dtype == np.uint8:
        Image.fromarray(image).save(data / f"{name}.png")
        return {"image": f"{name}.png", "label": truth}
    nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), data / f"{name}.nii.gz")
    if not isinstance(truth, np.ndarray):
        return {"image": f"{name}.nii.gz", "label": truth}
    nibabel.save(nibabel.Nifti1Image(truth, np.eye(4)), data / f"{name}_label.nii.gz")
    return {"image": f"{name}.nii.gz", "label": f"{name}_label.nii.gz"}


def main() -> None:
    """Write one task and print the command that merges its sources."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=CASES)
    parser.add_argument("--output", required=True, type=Path, help="folder to be made")
    arguments = parser.parse_args()
    settings = write_task(arguments.task, arguments.output)
    bundle = f"bundles/{CASES[arguments.task].bundle}"
    given = " ".join(f"--{name} {shlex.quote(str(value))}" for name, value in settings.items())
    print(f"python -m monai.bundle run --config_file {bundle}/configs/merge.json --bundle_root {bundle} {given}")


if __name__ == "__main__":
    main()
