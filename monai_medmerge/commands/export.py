"""`export`: a merged network as a bundle for stock MONAI and the model zoo."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from monai_medmerge.bundle.export.texts import TASKS, BundleCard
from monai_medmerge.bundle.export.writing import export_bundle, network_config

if TYPE_CHECKING:
    from argparse import _SubParsersAction

TEXTS = {
    "name": "title",
    "version": "of the bundle",
    "description": "one or more sentences",
    "authors": "names",
    "copyright": "line of the holder",
    "modality": "such as MR, CT or US",
    "intended-use": "what for, and what not",
}


def add(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to a parser's commands."""
    command = commands.add_parser("export", help="write a merged network as a bundle for MONAI and its model zoo")
    command.add_argument(
        "--network",
        required=True,
        metavar="FILE or FILE::ID",
        help="a MONAI configuration with network_def, or another entry of it; its expressions are run",
    )
    command.add_argument("--weights", required=True, type=Path, help="of that network, as a run wrote them")
    command.add_argument("--output", required=True, type=Path, help="folder of the bundle, to be made")
    command.add_argument("--task", required=True, choices=TASKS)
    command.add_argument("--spatial-shape", required=True, type=int, nargs="+", help="of the network's input")
    command.add_argument("--classes", nargs="+", default=[], help="names of the output channels")
    command.add_argument("--in-channels", type=int, help="of the image, where the first convolution does not tell")
    command.add_argument("--license", type=Path, help="file with the terms of the weights")
    command.add_argument("--no-torchscript", action="store_true")
    command.add_argument("--no-onnx", action="store_true")
    command.add_argument("--trace", action="store_true", help="trace for TorchScript, where scripting fails")
    for name, help_text in TEXTS.items():
        command.add_argument(f"--{name}", help=help_text)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the bundle and print its folder: 0 it is there."""
    names = [name.replace("-", "_") for name in TEXTS]
    texts = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    card = BundleCard(arguments.task, arguments.spatial_shape, arguments.classes, **texts)
    folder = export_bundle(
        arguments.output, network_config(arguments.network), arguments.weights, card, licence=arguments.license,
        in_channels=arguments.in_channels, torchscript=not arguments.no_torchscript, onnx=not arguments.no_onnx,
        trace=arguments.trace,
    )  # fmt: skip
    print(folder)
    return 0
