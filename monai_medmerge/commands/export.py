"""`export`: a merged network as a bundle for stock MONAI and the model zoo."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from monai_medmerge.bundle.definition.document import Activation
from monai_medmerge.bundle.export.choosing import Stated, choose
from monai_medmerge.bundle.export.texts import TASKS, BundleCard
from monai_medmerge.bundle.export.writing import export_bundle
from monai_medmerge.commands.ending import ended
from monai_medmerge.sources import Source

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
    command.add_argument("--weights", required=True, type=Path, help="as a run wrote them, beside a model.json")
    command.add_argument("--output", required=True, type=Path, help="folder of the bundle, to be made")
    beside = "without a model.json beside the weights"
    command.add_argument(
        "--network",
        metavar="FILE, FILE::ID or CLASS(...)",
        help=f"{beside}: a MONAI configuration with network_def, or another entry of it, whose expressions are run; "
        "a class with its arguments; or one of your own file, which is run: my_model.py::Net(classes=3)",
    )
    command.add_argument("--task", choices=TASKS, help=beside)
    command.add_argument("--spatial-shape", type=int, nargs="+", help=f"of the network's input, {beside}")
    command.add_argument("--classes", nargs="+", help="names of the output channels")
    command.add_argument(
        "--activation",
        choices=get_args(Activation),
        help=f"{beside}: from answers to probabilities, where no postprocessing and no loss of FILE tells",
    )
    command.add_argument(
        "--preprocessing",
        metavar="FILE::ID or generic",
        help=f"{beside}: where the configuration has none; generic: load, intensities from 0 to 1",
    )
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
    stated = Stated(
        arguments.network, arguments.task, arguments.classes, arguments.spatial_shape, arguments.activation,
        arguments.preprocessing,
    )  # fmt: skip
    chosen = choose(arguments.weights, stated)
    folder = export_bundle(
        arguments.output, chosen.network, arguments.weights, BundleCard(**chosen.card, **texts), chosen.preprocessing,
        licence=arguments.license, in_channels=arguments.in_channels, torchscript=not arguments.no_torchscript,
        onnx=not arguments.no_onnx, trace=arguments.trace, scripts=chosen.scripts, definition=chosen.definition,
    )  # fmt: skip
    inference = ["python", "-m", "monai.bundle", "run", "--config_file", f"{folder}/configs/inference.json"]
    inference += ["--bundle_root", str(folder), "--dataset_dir", "IMAGES", "--output_dir", "PREDICTIONS"]
    weights = Source.from_file(folder / "models" / "model.pt").sha256
    ended(folder, f"{chosen.card['task']}, weights {weights[:16]}", next_command=inference)
    return 0
