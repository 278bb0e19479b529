"""`plan`: whether sources fit a network, and what merging them costs."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from monai_medmerge.bundle.definition.networks import build_network
from monai_medmerge.bundle.planning import check_input, plan
from monai_medmerge.commands.reading import add_reading
from monai_medmerge.errors import SettingError
from monai_medmerge.sources import load_sources

if TYPE_CHECKING:
    from argparse import _SubParsersAction


def add(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to a parser's commands."""
    command = commands.add_parser("plan", help="whether sources fit a network, and what merging them costs")
    command.add_argument(
        "--network",
        required=True,
        metavar="CONFIG_OR_CLASS",
        help="a MONAI configuration (FILE or FILE::ID; its expressions are run), or a class with literal arguments, "
        "such as 'DenseNet121(spatial_dims=2, in_channels=1, out_channels=3)', or one of your own file, which is run: "
        "'my_model.py::Net(classes=3)'",
    )
    command.add_argument("--source", required=True, action="append", help="a checkpoint or bundle folder; repeat it")
    command.add_argument("--adapt", action="store_true", help="fit other input channels, dimensions and precision")
    add_reading(command)
    command.add_argument(
        "--align", choices=["weights"], help="match the sources' channels with the first one's as well"
    )
    command.add_argument(
        "--image",
        type=_image_shape,
        metavar="CHANNELS,SIZES",
        help="with --align: channels and sizes of an image that the network takes, such as 1,64,64; small is quick",
    )
    command.add_argument("--json", action="store_true", help="print JSON instead of tables")
    command.set_defaults(run=run)


def _image_shape(text: str) -> tuple[int, ...]:
    lengths = [length.strip() for length in text.split(",")]
    if len(lengths) < 2 or not all(length.isdecimal() and int(length) > 0 for length in lengths):
        raise argparse.ArgumentTypeError(f"expected channels and sizes, such as 1,64,64, found {text}")
    return tuple(map(int, lengths))


def _example(network: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """Two images that differ, as batch-norm needs in training."""
    images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    check_input(network, images, "--image")
    return images


def run(arguments: argparse.Namespace) -> int:
    """Print the plan: 0 it fits, 1 it does not."""
    if (arguments.align is None) != (arguments.image is None):
        raise SettingError("--align and --image together", "one of them", "plan")
    network = build_network(arguments.network)
    sources = load_sources(arguments.source, arguments.key_map)
    example = None if arguments.image is None else _example(network, arguments.image)
    found = plan(network, sources, arguments.adapt, example, arguments.exclude)
    print(json.dumps(found.as_dict(), indent=2) if arguments.json else found)
    if found.report.compatible and not arguments.json:
        print("next: medmerge merge --bundle FOLDER_OR_NAME --dataset DATA --source ... --output OUT")
    return 0 if found.report.compatible else 1
