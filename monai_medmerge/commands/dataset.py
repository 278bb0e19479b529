"""`dataset`: from images as they lie to a dataset folder, checked and split."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tqdm import tqdm

from monai_medmerge.commands.ending import ended
from monai_medmerge.data.datasets import MEDMNIST
from monai_medmerge.data.gathering import PARTS, Item, check_items, find_items, split, write_dataset
from monai_medmerge.data.gathering.checks import Findings
from monai_medmerge.data.gathering.items import images_below
from monai_medmerge.data.gathering.tables import COLUMNS, read_arrays, read_table
from monai_medmerge.errors import DatasetError, SettingError
from monai_medmerge.files import shown
from monai_medmerge.transforms.dicom.results.codes import TYPE, offer_code

if TYPE_CHECKING:
    from argparse import _SubParsersAction


def add(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to a parser's commands."""
    command = commands.add_parser("dataset", help="make a dataset folder of images: found, checked, split, counted")
    command.add_argument(
        "data",
        type=Path,
        help="a folder (one subfolder a class, or NIfTI volumes with label maps), a CSV or .xlsx, or a MedMNIST .npz",
    )
    command.add_argument("--output", required=True, type=Path, help="the dataset folder to make")
    command.add_argument("--validation", type=float, default=0.15, help="its share, unless you name the part; 0.15")
    command.add_argument("--test", type=float, default=0.2, help="its share, unless you name the part; 0.2")
    command.add_argument("--seed", type=int, default=0, help="of the split")
    command.add_argument("--class-names", nargs="+", help="in the order of their numbers; background first for volumes")
    command.add_argument("--patient-pattern", help="regular expression; its one group is the patient in a file's name")
    command.add_argument("--unlabelled", type=Path, help="a folder of further images, to be used without labels")
    command.add_argument("--images", type=Path, help="of a table: the folder that its paths begin at")
    for use in COLUMNS:
        command.add_argument(f"--{use}-column", help=f"of a table: the column with the {use}")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Make the folder: 0 done, 1 the data has faults, and nothing was written."""
    with TemporaryDirectory() as scratch:
        items = _gather(arguments, Path(scratch))
        items = split(items, {"validation": arguments.validation, "test": arguments.test}, arguments.seed)
        names = _names(items, arguments)
        found = check_items(items, _progress)
        _print(found)
        if found.faults:
            print(f"{len(found.faults)} faults, so nothing was written", file=sys.stderr)
            return 1
        write_dataset(arguments.output, items, names, seed=arguments.seed)
    kind = "segmentation" if any(isinstance(item.label, Path) for item in items) else "classification"
    if kind == "segmentation":
        _offer_codes(names[1:])
    bundle = f"medmerge_{kind}"
    ended(
        arguments.output,
        f"{len(items)} images; look at thumbnails.png",
        next_command=["medmerge", "merge", "--bundle", bundle, "--dataset", str(arguments.output), "--output", "OUT"],
    )
    return 0


def _gather(arguments: argparse.Namespace, scratch: Path) -> list[Item]:
    data: Path = arguments.data
    columns = {use: name for use in COLUMNS if (name := getattr(arguments, f"{use}_column"))}
    suffix = data.suffix.lower()
    if suffix not in (".csv", ".tsv", ".xlsx") and (columns or arguments.images):
        raise SettingError("a table, for columns and --images", "another form", shown(data.name))
    if suffix == ".npz":
        known = MEDMNIST.get(data.stem)
        names = arguments.class_names or (list(known.class_names) if known else None)
        if names is None:
            raise SettingError("--class-names, in the order of the numbers", "none", shown(data.name))
        arguments.class_names = names
        items = read_arrays(data, names, scratch)
    elif suffix in (".csv", ".tsv", ".xlsx"):
        items, chosen = read_table(data, arguments.images, columns)
        print("columns: " + ", ".join(f"{use} from {shown(name)}" for use, name in chosen.items()))
    else:
        items = find_items(data, arguments.patient_pattern)
    if arguments.unlabelled:
        items += [Item(item.image, None, None, "unlabelled") for item in _loose(arguments.unlabelled)]
    return items


def _loose(folder: Path) -> list[Item]:
    """Images of a folder without classes, as if it were one."""
    if not folder.is_dir():
        raise DatasetError("a folder of images", "none of that name", shown(folder.name))
    return [Item(path) for path in images_below(folder)]


def _names(items: list[Item], arguments: argparse.Namespace) -> list[str]:
    there = sorted({item.label for item in items if isinstance(item.label, str)})
    if arguments.class_names:
        if strange := sorted(set(there) - set(arguments.class_names)):
            raise SettingError(
                f"the classes {', '.join(map(shown, there))}", f"none for {shown(strange[0])}", "--class-names"
            )
        return list(arguments.class_names)
    if any(isinstance(item.label, Path) for item in items):
        raise SettingError("--class-names, the background first, as label maps hold numbers", "none", "dataset")
    if not there:
        raise DatasetError("images with labels", "none", shown(arguments.data.name))
    return there


def _progress(items: Iterable[Item]) -> Iterable[Item]:
    return tqdm(items, desc="reading", unit="image", disable=not sys.stderr.isatty())


def _print(found: Findings) -> None:
    names = sorted({name for there in found.counts.values() for name in there})
    wide = max([len(shown(name, 40)) for name in names] + [5])
    print(f"{'class':<{wide}} " + " ".join(f"{part:>11}" for part in PARTS))
    for name in names:
        print(f"{shown(name, 40):<{wide}} " + " ".join(f"{found.counts[part][name]:>11}" for part in PARTS))
    for line in found.warnings:
        print(f"warning: {line}")
    for line in found.faults:
        print(f"error: {line}", file=sys.stderr)


def _offer_codes(names: list[str]) -> None:
    for name in names:
        code = offer_code(name)
        said = (
            f"{code[TYPE]['CodeMeaning']} ({code[TYPE]['CodeValue']})" if code else "none known; a codes.json needs it"
        )
        print(f"code of {shown(name)} for DICOM: {said}")
