"""Dice on held-out hippocampus volumes with few labelled ones: merged, beside LP-FT from each source and scratch.

    python -m benchmarks.segmentation --output benchmarks/results/segmentation
    python -m benchmarks.segmentation --report benchmarks/results/segmentation

The volumes are found under MEDMERGE_DATA; sources were trained on others (examples/hippocampus.py splits them once).
All methods take the same number of optimisation steps on the same volumes of a seed. The rate of fine-tuning is chosen
for each method from one grid on validation volumes, with volumes of another seed; test volumes are read once, at the
end of a run. One JSON line per run; finished runs are not run again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import CacheDataset, DataLoader
from monai.losses import DiceCELoss
from monai.transforms import Compose
from torch import nn

from benchmarks.transfer.__main__ import Lines
from monai_medmerge import Source, fold, merge
from monai_medmerge.bundle import volume_dice
from monai_medmerge.engines import CoefficientTrainer, FineTuner, LinearProbeTrainer
from monai_medmerge.handlers import EpochSeedHandler
from monai_medmerge.methods import merge_with

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "examples"))
from hippocampus import CLASS_NAMES, split  # noqa: E402
from train_segmentation_source import build_network, padded  # noqa: E402

BUNDLE = ROOT / "bundles" / "medmerge_segmentation"
SOURCES = ("whole_hippocampus", "reconstruction")
HEAD = ["conv_final.2.*"]
METHODS = (
    "scratch",
    *(f"lpft:{name}" for name in SOURCES),
    "uniform_average",
    "merged",
)
VOLUMES = (4, 8, 16)
RATES = (1e-3, 3e-3)
STEPS = {"probe": 16, "learn": 32, "all": 96}
CHOICE = (8, 100)
"""Volumes and seed with which rates are chosen."""
BATCH = 2


@lru_cache
def config() -> ConfigParser:
    """The bundle's own transforms."""
    parser = ConfigParser()
    parser.read_config(BUNDLE / "configs" / "merge.json")
    return parser


def dataset(names: list[str], augmented: bool) -> CacheDataset:
    """Volumes by name, prepared as the bundle prepares them."""
    folder = Path(os.environ["MEDMERGE_DATA"], "hippocampus")
    transforms = list(config().get_parsed_content("preprocessing"))
    transforms += config().get_parsed_content("augmentation") if augmented else []
    items = [{"image": str(folder / "imagesTr" / n), "label": str(folder / "labelsTr" / n)} for n in names]
    return CacheDataset(items, Compose(transforms), num_workers=1, progress=False)


@lru_cache
def held_out(section: str) -> DataLoader:
    """Whole volumes for measuring."""
    found = split(Path(os.environ["MEDMERGE_DATA"], "hippocampus"))
    return DataLoader(dataset(getattr(found, section), augmented=False), batch_size=1)


def score(network: nn.Module, section: str) -> float:
    """Mean Dice over volumes and labels."""
    return float(np.nanmean(volume_dice(network, held_out(section), padded, len(CLASS_NAMES))))


def train(method: str, volumes: int, seed: int, rate: float) -> tuple[nn.Module, nn.Module]:
    """The networks before and after fine-tuning."""
    names = split(Path(os.environ["MEDMERGE_DATA"], "hippocampus")).training
    chosen = [names[n] for n in np.random.default_rng(seed).permutation(len(names))[:volumes]]
    patches = dataset(chosen, augmented=True)
    loader = DataLoader(patches, batch_size=BATCH, shuffle=True)
    epoch = len(loader)
    common: dict[str, Any] = {
        "train_data_loader": loader,
        "loss_function": DiceCELoss(include_background=False, to_onehot_y=True, softmax=True),
        "device": "cpu",
    }

    def phase(number: int) -> list[EpochSeedHandler]:
        return [EpochSeedHandler(10 * seed + number, patches)]

    torch.manual_seed(seed)
    network: nn.Module = build_network(len(CLASS_NAMES))
    kind, _, name = method.partition(":")
    sources = [Source.from_file(BUNDLE / "models" / f"{n}.safetensors") for n in ([name] if name else SOURCES)]
    left = STEPS["all"]
    if kind == "lpft":
        network = fold(merge(network, sources, exclude=HEAD))
    elif kind == "uniform_average":
        network = merge_with(kind, network, sources, exclude=HEAD)
    elif kind != "scratch":
        network = merge(network, sources, constraint="free", start="anchor", residual=True, exclude=HEAD)
    if kind != "scratch":
        LinearProbeTrainer(
            network, max_epochs=STEPS["probe"] // epoch, head=HEAD, train_handlers=phase(0), **common
        ).run()
        left -= STEPS["probe"]
    if kind == "merged":
        epochs = STEPS["learn"] // epoch
        rates: dict[str, Any] = {"residual_learning_rate": rate, "head_learning_rate": 2e-3}
        CoefficientTrainer(network, max_epochs=epochs, train_handlers=phase(1), **rates, **common).run()
        network = fold(network)
        left -= STEPS["learn"]
    before = build_network(len(CLASS_NAMES))
    before.load_state_dict(network.state_dict())
    FineTuner(network, max_epochs=left // epoch, learning_rate=rate, train_handlers=phase(2), **common).run()
    return before, network


def chosen_rate(lines: Lines, method: str) -> float:
    """The rate of the grid with the best Dice on validation volumes."""
    scores = {}
    for rate in RATES:
        line = lines.get(method=method, rate=rate)
        if line is None:
            found = score(train(method, *CHOICE, rate)[1], "validation")
            line = lines.add({"method": method, "rate": rate, "validation": round(found, 5)})
        scores[rate] = line["validation"]
    return max(scores, key=lambda rate: scores[rate])


def report(lines: list[dict[str, Any]]) -> str:
    """Mean Dice and its range over seeds, a row a method, a column a number of volumes."""
    shown = [
        "| method | " + " | ".join(f"{n} volumes" for n in VOLUMES) + " | mean |",
        "|---" * (len(VOLUMES) + 2) + "|",
    ]
    for method, key in itertools.chain(((m, "fine_tuned") for m in METHODS), (("merged", "not_fine_tuned"),)):
        found = [[line[key] for line in lines if (line["method"], line["volumes"]) == (method, n)] for n in VOLUMES]
        if not all(found):
            continue
        cells = [f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})" for values in found]
        name = method + (", not fine-tuned" if key == "not_fine_tuned" else "")
        shown.append(f"| {name} | {' | '.join(cells)} | {np.mean([np.mean(values) for values in found]):.3f} |")
    return "\n".join(shown)


def main() -> None:
    """Run what is not there yet, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/segmentation"))
    parser.add_argument("--report", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run after this time")
    arguments = parser.parse_args()
    rates = Lines((arguments.report or arguments.output) / "rates.jsonl", "method", "rate")
    runs = Lines((arguments.report or arguments.output) / "runs.jsonl", "volumes", "seed", "method")
    if arguments.report:
        print(report(list(runs.found.values())))
        return
    torch.set_num_threads(1)
    end = time.monotonic() + 60 * arguments.minutes
    for seed, volumes, method in itertools.product(arguments.seeds, VOLUMES, METHODS):
        case = {"volumes": volumes, "seed": seed, "method": method}
        if runs.get(**case):
            continue
        if time.monotonic() > end:
            print("time is up; the same command goes on from here")
            return
        rate, start = chosen_rate(rates, method), time.monotonic()
        before, after = train(method, volumes, seed, rate)
        seconds = round(time.monotonic() - start, 1)
        line = {**case, "rate": rate, "fine_tuned": round(score(after, "test"), 5), "seconds": seconds}
        if method == "merged":
            line["not_fine_tuned"] = round(score(before, "test"), 5)
        print(json.dumps(runs.add(line)), flush=True)
    print(f"all runs are in {runs.path}")


if __name__ == "__main__":
    main()
