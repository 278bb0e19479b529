"""`merge`: sources into one network, on the images of a dataset, or from file to file without any."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_medmerge.bundle.definition.networks import build_network
from monai_medmerge.bundle.running import locate_bundle, plain_settings, refuse_expressions, run_config
from monai_medmerge.commands.ending import ended
from monai_medmerge.errors import SettingError
from monai_medmerge.files import read_json, shown
from monai_medmerge.methods import merge_files
from monai_medmerge.sources import Source, load_sources, match

if TYPE_CHECKING:
    from argparse import _SubParsersAction

TAKEN = {
    "bundle_root": "--bundle", "dataset_dir": "--dataset", "output_dir": "--output", "source_files": "--source",
    "method": "--method",
}  # fmt: skip
PLAIN_NAMES = {"mean": "uniform_average"}


def add(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to a parser's commands."""
    command = commands.add_parser(
        "merge", help="merge sources on your images with a bundle, or files into a file without any images"
    )
    command.add_argument("--bundle", metavar="FOLDER_OR_NAME", help="whose merge.json is run; its code is run, too")
    command.add_argument("--dataset", type=Path, metavar="FOLDER", help="with a dataset.json; with --bundle")
    command.add_argument(
        "--source", action="append", default=[], metavar="[NAME=]PATH", help="repeat it; the bundle's own if none"
    )
    command.add_argument("--method", help="mean, or another of docs/methods.md; with --bundle the bundle's if none")
    command.add_argument("--output", required=True, type=Path, help="folder, or without --bundle a .safetensors file")
    command.add_argument("--network", metavar="CONFIG_OR_CLASS", help="without --bundle: what the sources must fit")
    command.add_argument("--base", help="without --bundle: file that all were fine-tuned from, `anchor` or `mean`")
    command.add_argument("--exclude", action="append", default=[], metavar="PATTERN", help="without --bundle")
    command.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="settings",
        help="a setting of merge.json, or without --bundle of the method; plain values; repeat it",
    )  # fmt: skip
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Merge, and say what was reached: 0 it is there, 1 sources do not fit."""
    sources = named_sources(arguments.source)
    if arguments.bundle is None:
        return _files(arguments, list(sources.values()) if isinstance(sources, dict) else sources)
    for option in ("network", "base", "exclude"):
        if getattr(arguments, option):
            raise SettingError(f"no --{option} with --bundle, but --set {option}=...", "both", "merge")
    if arguments.dataset is None:
        raise SettingError("--dataset with --bundle", "none", "merge")
    bundle = locate_bundle(arguments.bundle, "merge")
    settings: dict[str, Any] = plain_settings(arguments.settings, TAKEN)
    if arguments.method is not None:
        refuse_expressions(arguments.method, "--method")
        settings["method"] = PLAIN_NAMES.get(arguments.method, arguments.method)
    if sources:
        settings["source_files"] = sources
    output = arguments.output.absolute()
    places = {"dataset_dir": str(arguments.dataset.absolute()), "output_dir": str(output)}
    status = run_config(bundle, "merge", settings | places)
    if status == 0:
        following = ["medmerge", "export", "--weights", str(arguments.output / "model.pt"), "--output", "BUNDLE"]
        ended(arguments.output, *_reached(output), next_command=following)
    return status


def named_sources(texts: list[str]) -> list[str] | dict[str, str]:
    """Sources of the command line, absolute, with their names where they were given.

    Args:
        texts: `PATH` or `NAME=PATH`, all of one kind; a text that is a path is one, whatever signs it has.

    Raises:
        SettingError: some have names and some have not, or a name comes twice.

    Example:
        >>> list(named_sources(["chest=a.pt", "brain=b.pt"]))
        ['chest', 'brain']
    """
    found: list[tuple[str, str]] = []
    for text in texts:
        name, sign, path = text.partition("=")
        if not sign or Path(text).exists():
            name, path = "", text
        elif not name or not path:
            raise SettingError("NAME=PATH or PATH", shown(text), "--source")
        found.append((name, str(Path(path).absolute())))
    names = [name for name, _ in found if name]
    if not names:
        return [path for _, path in found]
    if len(names) != len(found) or len(set(names)) != len(names):
        raise SettingError("a name of its own for each source, or for none", ", ".join(map(shown, names)), "--source")
    sources = dict(found)
    refuse_expressions(dict.fromkeys(names, ""), "--source")
    return sources


def _files(arguments: argparse.Namespace, paths: list[str]) -> int:
    if arguments.dataset is not None:
        raise SettingError("--bundle with --dataset", "none", "merge")
    if arguments.method is None or not paths:
        raise SettingError("--source and --method, or --bundle and --dataset", "neither", "merge")
    if arguments.network is not None:
        report = match(build_network(arguments.network), load_sources(paths), arguments.exclude)
        if not report.compatible:
            print(report)
            return 1
    method = PLAIN_NAMES.get(arguments.method, arguments.method)
    options = plain_settings(arguments.settings, {"base": "--base", "exclude": "--exclude"})
    written = merge_files(
        method, paths, arguments.output, base=arguments.base, exclude=arguments.exclude, **options
    )  # fmt: skip
    ended(
        written,
        f"{method} of {len(paths)} sources, weights {Source.from_file(written).sha256[:16]}",
        next_command=["medmerge", "plan", "--network", arguments.network or "NETWORK", "--source", str(written)],
    )
    return 0


def _reached(output: Path) -> list[str]:
    """A line for the last stage, and one for the weights."""
    metrics = read_json(output / "metrics.json")
    stage, found = list(metrics["stages"].items())[-1]
    measure = "macro_f1" if "macro_f1" in found else "dice"
    known = [found[measure], *found["interval"]]
    value = "unknown" if None in known else "{:.3f}, 95 % interval {:.3f} to {:.3f}".format(*known)
    name = stage.replace("_", " ")
    return [f"{name}: {measure.replace('_', ' ')} {value}, {found['cases']} cases of the test part",
            f"weights {metrics['weights_sha256'][:16]}, merged from {', '.join(metrics['sources'])}"]  # fmt: skip
