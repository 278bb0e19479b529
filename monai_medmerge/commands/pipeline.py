"""`pipeline`: from sources and images to a gated, exported, parity-checked bundle, in one resumable command."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from monai_medmerge.bundle.running import locate_bundle, plain_settings
from monai_medmerge.commands.ending import ended
from monai_medmerge.commands.merge import TAKEN, named_sources
from monai_medmerge.pipeline import STAGES, Job, StoppedError, run_pipeline

if TYPE_CHECKING:
    from argparse import _SubParsersAction


def add(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to a parser's commands."""
    command = commands.add_parser(
        "pipeline", help="check, merge, gate, export, parity: 0 all done, 1 failed, 2 wrong use, 3 gate undecided"
    )
    command.add_argument("--bundle", default="medmerge_classification", metavar="FOLDER_OR_NAME")
    command.add_argument("--dataset", required=True, type=Path, metavar="FOLDER", help="with a dataset.json")
    command.add_argument("--source", action="append", default=[], metavar="[NAME=]PATH", help="repeat it")
    command.add_argument("--output", required=True, type=Path, help="folder of the stages")
    command.add_argument("--in-use", type=Path, metavar="WEIGHTS", help="the network in use, for the gate")
    command.add_argument("--until", metavar="STAGE", help=f"the last of {', '.join(s.name for s in STAGES)}")
    command.add_argument("--from", dest="start", metavar="STAGE", help="the first that is done anew")
    command.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    command.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="settings",
        help="a setting of merge.json; plain values; repeat it",
    )  # fmt: skip
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the stages: 0 done, else what the stage that stopped it says."""
    output = arguments.output.absolute()
    job = Job(
        locate_bundle(arguments.bundle, "merge"), arguments.dataset.absolute(), named_sources(arguments.source), output,
        arguments.in_use.absolute() if arguments.in_use else None, plain_settings(arguments.settings, TAKEN),
    )  # fmt: skip
    try:
        for name, why, _ in run_pipeline(job, STAGES, arguments.until, arguments.start, arguments.dry_run):
            print(f"{name}: {why}")
    except StoppedError as stopped:
        print(f"stopped: {stopped}", file=sys.stderr)
        return stopped.status
    if not arguments.dry_run:
        bundle = f"{arguments.output}/4_export/bundle"
        following = ["python", "-m", "monai.bundle", "run", "--config_file", f"{bundle}/configs/inference.json"]
        following += ["--bundle_root", bundle, "--dataset_dir", "IMAGES", "--output_dir", "PREDICTIONS"]
        ended(arguments.output, next_command=following if arguments.until is None else ())
    return 0
