"""`compare`: two networks, or two tables of predictions, on the same cases."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from monai_medmerge.bundle.results.comparing import compare_weights
from monai_medmerge.commands.ending import ended
from monai_medmerge.errors import SettingError
from monai_medmerge.evaluation import Comparison, Naming, ReportContent, Resampling, write_report
from monai_medmerge.evaluation.bootstrap import SAMPLES
from monai_medmerge.evaluation.comparison.tables import TableTask, compare_tables
from monai_medmerge.evaluation.report.page import PAGE
from monai_medmerge.files import file_sha256

if TYPE_CHECKING:
    from argparse import _SubParsersAction

TABLE = ".csv"


def add(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to a parser's commands."""
    command = commands.add_parser("compare", help="two networks, or tables of predictions, on the same cases")
    command.add_argument("reference", type=Path, help="weights with model.json beside them, or predictions.csv")
    command.add_argument("candidate", type=Path, help="likewise")
    command.add_argument("--output", required=True, type=Path, help="folder for the page and its numbers")
    command.add_argument("--data", type=Path, help="of networks: folder with a dataset.json")
    command.add_argument("--section", default="test", help="of the dataset.json")
    command.add_argument("--truth", type=Path, help="of tables: CSV with file and label, or a column of each label")
    command.add_argument("--task", choices=get_args(TableTask), help="of tables; classification if not given")
    command.add_argument("--subgroup", action="append", default=[], help="a column that divides the cases; repeat it")
    command.add_argument("--patient", help="a column that says which patient a case is of; shown nowhere")
    command.add_argument("--show-file-names", action="store_true", help="call cases by their file")
    command.add_argument("--samples", type=int, default=SAMPLES, help="of the bootstrap")
    command.add_argument("--seed", type=int, default=0)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the comparison and write its page: 0 it is there."""
    if arguments.samples < 1:
        raise SettingError("at least one resample", str(arguments.samples), "--samples")
    found = _compare(arguments)
    content = ReportContent(
        title="Two networks on the same cases",
        purpose="The first of the two is called in use, or reference; the second, candidate.",
        comparison=found,
        settings={name: file_sha256(getattr(arguments, name)) for name in ("reference", "candidate")},
        seeds={"resamples": arguments.seed},
        command=["medmerge", "compare", *sys.argv[2:]],
    )
    written = write_report(arguments.output, content)
    print(found)
    ended(written[PAGE])
    return 0


def _compare(arguments: argparse.Namespace) -> Comparison:
    tables = [path.suffix.lower() == TABLE for path in (arguments.reference, arguments.candidate)]
    if tables[0] != tables[1]:
        raise SettingError("two files of weights or two tables", "one of each", "compare")
    needed, other = ("truth", "data") if tables[0] else ("data", "truth")
    if getattr(arguments, needed) is None or getattr(arguments, other) is not None:
        kind = "tables" if tables[0] else "networks"
        raise SettingError(f"--{needed}, and no --{other}, with two {kind}", "another choice", "compare")
    columns = {"subgroups": arguments.subgroup, "patient": arguments.patient}
    if tables[0]:
        resampling = Resampling(samples=arguments.samples, seed=arguments.seed)
        return compare_tables(
            arguments.reference, arguments.candidate, arguments.truth, arguments.task or "classification",
            resampling=resampling, plain=arguments.show_file_names, **columns,
        )  # fmt: skip
    if arguments.task is not None:
        raise SettingError("no --task, which the networks' definition tells", arguments.task, "compare")
    naming = Naming(key="file", plain=True) if arguments.show_file_names else None
    return compare_weights(
        arguments.reference, arguments.candidate, arguments.data, arguments.section, naming=naming,
        samples=arguments.samples, seed=arguments.seed, **columns,
    )  # fmt: skip
