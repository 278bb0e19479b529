"""`verify`: a candidate held against the network in use, on a site's cases and within its limits."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_medmerge.bundle.running import locate_bundle, plain_settings, run_config
from monai_medmerge.commands.ending import ended
from monai_medmerge.evaluation.report.page import DATA, PAGE
from monai_medmerge.files import read_json

if TYPE_CHECKING:
    from argparse import _SubParsersAction

TAKEN = {
    "bundle_root": "--bundle", "site_data": "--dataset", "reference": "--reference", "candidate": "--candidate",
    "output_dir": "--output", "report_dir": "--output", "gate_file": "--gate",
}  # fmt: skip


def add(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to a parser's commands."""
    command = commands.add_parser(
        "verify", help="hold a candidate against the network in use: 0 passed, 1 failed, 2 wrong use, 3 undecided"
    )
    command.add_argument(
        "--bundle", required=True, metavar="FOLDER_OR_NAME", help="whose verify.json is run; its code is run, too"
    )
    command.add_argument("--dataset", required=True, type=Path, metavar="FOLDER", help="with a dataset.json")
    command.add_argument("--reference", required=True, type=Path, help="weights of the network in use")
    command.add_argument("--candidate", required=True, type=Path, help="weights that may take its place")
    command.add_argument("--output", required=True, type=Path, help="folder for the report")
    command.add_argument("--gate", type=Path, help="JSON of your limits; the bundle's if none")
    command.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="settings",
        help="a setting of verify.json, such as subgroups='[\"scanner\"]'; plain values; repeat it",
    )  # fmt: skip
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Compare and decide: 0 passed, 1 failed, 3 undecided."""
    bundle = locate_bundle(arguments.bundle, "verify")
    settings: dict[str, Any] = plain_settings(arguments.settings, TAKEN)
    output = str(arguments.output.absolute())
    settings |= {
        "site_data": str(arguments.dataset.absolute()),
        "reference": str(arguments.reference.absolute()),
        "candidate": str(arguments.candidate.absolute()),
        "output_dir": output,
        "report_dir": output,
    }
    if arguments.gate is not None:
        settings["gate_file"] = str(arguments.gate.absolute())
    status = run_config(bundle, "verify", settings)
    verdicts = read_json(arguments.output / DATA)["gate"]["verdicts"]
    counts = {outcome: [v["outcome"] for v in verdicts].count(outcome) for outcome in {v["outcome"] for v in verdicts}}
    said = {0: "passed", 1: "failed", 3: "undecided"}[status]
    following = ["medmerge", "export", "--weights", str(arguments.candidate), "--output", "BUNDLE"]
    ended(
        arguments.output / PAGE,
        f"{said}; limits: {', '.join(f'{count} {outcome}' for outcome, count in sorted(counts.items()))}",
        next_command=following if status == 0 else (),
    )
    return status
