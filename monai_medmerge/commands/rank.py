"""`rank`: which sources are worth merging for a target."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from monai_medmerge.bundle.planning import check_input
from monai_medmerge.bundle.ranking import rank_sources
from monai_medmerge.bundle.target import labelled_batches, read_target
from monai_medmerge.commands.reading import add_reading
from monai_medmerge.sources import adapt, load_sources, match

if TYPE_CHECKING:
    from argparse import _SubParsersAction


def add(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to a parser's commands."""
    command = commands.add_parser("rank", help="which sources are worth merging for a target's labelled images")
    command.add_argument(
        "--network",
        required=True,
        metavar="CONFIG_OR_CLASS",
        help="a MONAI configuration with network_def or network, and preprocessing (its expressions are run), or a "
        "class with literal arguments, such as 'DenseNet121(spatial_dims=2, in_channels=1, out_channels=3)', or one of "
        "your own file, which is run: 'my_model.py::Net(classes=3)'",
    )
    command.add_argument("--source", required=True, action="append", help="a checkpoint or bundle folder; repeat it")
    command.add_argument("--data", required=True, help="folder with a dataset.json: labelled images of the target")
    command.add_argument("--section", default="training", help="of the dataset.json (default: training)")
    command.add_argument("--labels", type=int, help="take only so many images, classes in proportion")
    command.add_argument("--size", type=int, nargs="+", help="of images, where no preprocessing says it: 64 64")
    command.add_argument("--seed", type=_seed, default=0)
    command.add_argument("--adapt", action="store_true", help="fit other input channels, dimensions and precision")
    add_reading(command)
    command.add_argument("--json", action="store_true", help="print JSON instead of a table")
    command.set_defaults(run=run)


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0, found {text}")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Print the ranking: 0 it was made, 1 a source does not fit."""
    network, transform = read_target(arguments.network, arguments.data, arguments.size)
    sources = load_sources(arguments.source, arguments.key_map)
    if arguments.adapt:
        sources = [adapt(network, source) for source in sources]
    report = match(network, sources, arguments.exclude)
    if not report.compatible:
        print(report.table(problems_only=True))
        return 1
    batches = labelled_batches(arguments.data, transform, arguments.section, arguments.labels, arguments.seed)
    check_input(network, batches[0]["image"], "preprocessing")
    ranking = rank_sources(network, sources, "inform", batches, arguments.seed, arguments.exclude)
    print(json.dumps(ranking.as_dict(), indent=2) if arguments.json and ranking else ranking)
    return 0
