"""Does the ranking of sources agree with what they reach: one JSON line per run, resumable, and a table at the end.

    python -m benchmarks.ranking --cache FOLDER --output benchmarks/results/ranking.jsonl

Every source is ranked on a few labelled images of a target, and then fine-tuned on the very same images (a linear
probe, then all weights: LP-FT), the same number of steps for every source and budget. The table is the weighted Kendall
tau of the two orders, over the sources' means of all seeds. A source never meets a target that its images are from.

Beside the three sources of the classification bundle there are five that this file trains, once, into the cache: two
from the small targets, and three that saw the images of the bundle's sources for one or two epochs only.
The data is found through MEDMERGE_DATA. Runs whose line is in the file already are not run again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from scipy.stats import weightedtau
from torch import Tensor, nn

from benchmarks.transfer.targets import HEAD, MODELS, build
from monai_medmerge import Source, recalibrate
from monai_medmerge.bundle import label_budget
from monai_medmerge.engines import FineTuner, LinearProbeTrainer
from monai_medmerge.evaluation import macro_f1, predict
from monai_medmerge.files import whole_file
from monai_medmerge.ranking.order import SCORES, rank
from monai_medmerge.sources.filling import load_into

BUDGETS = (30, 60, 120, 240, 480)
BATCH = 16
# Rates fall from epoch to epoch, so that what is reached does not hang on the last steps.
STEPS, PROBE_EPOCHS, FINETUNE_EPOCHS = 12, 5, 12
TEST_IMAGES = 500
FILES = {
    "breast": "medmnist/breastmnist.npz",
    "retina": "medmnist/retinamnist.npz",
    "chest_xray": "classification_64/kermany_chest_xray_64.npz",
    "brain_mri": "classification_64/brain_tumor_mri_64.npz",
    "natural": "natural_32/cifar10_subset_32.npz",
}
TARGETS = ("breast", "retina", "chest_xray", "brain_mri")


@dataclass(frozen=True)
class Origin:
    """Where a source comes from: the images it was trained on, and for how long; the bundle's own has no epochs."""

    data: str
    epochs: int = 0


ORIGINS = {
    "natural": Origin("natural"),
    "chest_xray": Origin("chest_xray"),
    "brain_mri": Origin("brain_mri"),
    "breast": Origin("breast", 30),
    "retina": Origin("retina", 20),
    "natural_brief": Origin("natural", 2),
    "chest_xray_brief": Origin("chest_xray", 1),
    "brain_mri_brief": Origin("brain_mri", 2),
}


@cache
def read(name: str, split: str) -> tuple[Tensor, Tensor]:
    """Images (image, 1, 64, 64), grey and normalised as the bundle does, and labels; `split` is train or test."""
    with np.load(Path(os.environ["MEDMERGE_DATA"], FILES[name]), allow_pickle=False) as arrays:
        if "split" in arrays:
            chosen = arrays["split"] == split
            images, labels = arrays["images"][chosen], arrays["labels"][chosen]
        else:
            images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"].ravel()
    grey = images.astype(np.float32)
    # ITU-R 601 luma, and (column, row) as MONAI reads image files and the sources were trained.
    grey = grey @ np.array([0.299, 0.587, 0.114], np.float32) if grey.ndim == 4 else grey
    tensor = torch.from_numpy(np.ascontiguousarray(grey.transpose(0, 2, 1)))[:, None]
    tensor = nn.functional.interpolate(tensor, (64, 64), mode="bilinear", antialias=True)
    dims = (1, 2, 3)
    tensor = (tensor - tensor.mean(dims, keepdim=True)) / tensor.std(dims, keepdim=True).clamp_min(1e-6)
    return tensor, torch.from_numpy(labels.astype(np.int64))


def choose(labels: Tensor, count: int, seed: int) -> list[int]:
    """Numbers of that many images, classes in proportion."""
    items = [{"label": int(label), "index": n} for n, label in enumerate(labels)]
    return [item["index"] for item in label_budget(items, min(count, len(items)), seed)]


class Steps:
    """A fixed number of random batches, mirrored and moved a little: what every epoch has, whatever the budget."""

    def __init__(self, images: Tensor, labels: Tensor, steps: int, seed: int) -> None:
        self.images, self.labels, self.steps = images, labels, steps
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        order = torch.empty(0, dtype=torch.long)
        for _ in range(self.steps):
            while len(order) < BATCH:
                order = torch.cat([order, torch.randperm(len(self.images), generator=self.generator)])
            chosen, order = order[:BATCH], order[BATCH:]
            images = self.images[chosen]
            right, down, mirrored = torch.randint(-4, 5, (3,), generator=self.generator).tolist()
            images = images.roll((right, down), (2, 3))
            yield {"image": images.flip(2) if mirrored > 0 else images, "label": self.labels[chosen]}


def in_batches(images: Tensor, labels: Tensor) -> list[dict[str, Tensor]]:
    """The images as they are."""
    return [{"image": i, "label": k} for i, k in zip(images.split(64), labels.split(64), strict=True)]


def classes(name: str) -> int:
    """How many the data set has."""
    return int(read(name, "train")[1].max()) + 1


def load(name: str, folder: Path) -> Source:
    """A source: the bundle's, or one trained into the folder, if it is not there yet."""
    origin = ORIGINS[name]
    if not origin.epochs:
        return Source.from_file(MODELS / f"{name}.safetensors", name)
    path = folder / f"{name}.safetensors"
    if not path.exists():
        torch.manual_seed(sorted(ORIGINS).index(name))
        images, labels = read(origin.data, "train")
        network = build(classes(origin.data))
        steps = Steps(images, labels, origin.epochs * len(images) // BATCH, seed=0)
        FineTuner(network, steps, 1, nn.CrossEntropyLoss(), learning_rate=2e-3).run()
        with whole_file(path) as part:
            save_file(network.state_dict(), part)
    return Source.from_file(path, name)


def fine_tuned(target: str, source: Source, budget: int, seed: int) -> float:
    """Macro F1 on the target's test images after LP-FT from a source on a few labelled images."""
    images, labels = read(target, "train")
    chosen = choose(labels, budget, seed)
    images, labels = images[chosen], labels[chosen]
    torch.manual_seed(seed)
    network = recalibrate(load_into(build(classes(target)), source), in_batches(images, labels))
    loss = nn.CrossEntropyLoss()
    steps = Steps(images, labels, STEPS, seed)
    LinearProbeTrainer(network, steps, PROBE_EPOCHS, loss, head=HEAD).run()
    FineTuner(network, steps, FINETUNE_EPOCHS, loss).run()
    test_images, test_labels = read(target, "test")
    tested = choose(test_labels, TEST_IMAGES, 0)
    found, truth = predict(network, in_batches(test_images[tested], test_labels[tested]))
    return macro_f1(found.argmax(1).numpy(), truth.numpy(), classes(target))


def run(target: str, budget: int, seed: int, folder: Path) -> dict[str, Any]:
    """One line: what the ranking says of each source, and the macro F1 that it reaches."""
    start = time.monotonic()
    sources = [load(name, folder) for name, origin in ORIGINS.items() if origin.data != target]
    images, labels = read(target, "train")
    chosen = choose(labels, budget, seed)
    batches = in_batches(images[chosen], labels[chosen])
    torch.manual_seed(seed)
    network = build(classes(target))
    ranking = rank(network, sources, batches, seed=seed, prepare=lambda n: recalibrate(n, batches))
    seconds = time.monotonic() - start
    columns = (*SCORES, "mean_rank")
    scores = {score.name: {name: round(getattr(score, name), 5) for name in columns} for score in ranking.scores}
    reached = {source.name: round(fine_tuned(target, source, budget, seed), 5) for source in sources}
    return {
        "target": target, "labels": budget, "seed": seed, "scores": scores, "proposed": list(ranking.proposed),
        "macro_f1": reached, "ranking_seconds": round(seconds, 1), "seconds": round(time.monotonic() - start, 1),
    }  # fmt: skip


def agreement(lines: Sequence[dict[str, Any]], by: str) -> float:
    """Weighted Kendall tau of one score with what the sources reach, over their means of these lines."""
    names = sorted(lines[0]["macro_f1"])
    sign = -1 if by == "mean_rank" else 1
    predicted = [sign * np.mean([line["scores"][name][by] for line in lines]) for name in names]
    reached = [np.mean([line["macro_f1"][name] for line in lines]) for name in names]
    return float(weightedtau(predicted, reached).statistic)


def between_seeds(lines: Sequence[dict[str, Any]]) -> float:
    """Weighted Kendall tau of what the sources reach with one seed and with another: what a ranking can hope for."""
    names = sorted(lines[0]["macro_f1"])
    reached = [[line["macro_f1"][name] for name in names] for line in lines]
    pairs = itertools.combinations(reached, 2)
    return float(np.mean([weightedtau(*pair).statistic for pair in pairs])) if len(lines) > 1 else float("nan")


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Agreement per target and budget, of the ranking and of each of its scores; then what its choice is worth."""
    cells: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        cells[line["target"], line["labels"]].append(line)
    shown = ("mean_rank", *SCORES)
    rows = [f"{'target':<12}{'labels':>7}{'sources':>9}{'seeds':>7}  " + "".join(f"{name:>14}" for name in shown)
            + f"{'two seeds':>11}{'F1 of choice':>14}{'best F1':>9}{'mean F1':>9}"]  # fmt: skip
    every: dict[str, list[float]] = defaultdict(list)
    for (target, labels), found in sorted(cells.items(), key=lambda cell: (TARGETS.index(cell[0][0]), cell[0][1])):
        taus = {name: agreement(found, name) for name in shown}
        chosen = np.mean([line["macro_f1"][next(iter(line["scores"]))] for line in found])
        best = max(np.mean([line["macro_f1"][name] for line in found]) for name in found[0]["macro_f1"])
        average = np.mean([list(line["macro_f1"].values()) for line in found])
        rows.append(f"{target:<12}{labels:>7}{len(found[0]['macro_f1']):>9}{len(found):>7}  "
                    + "".join(f"{taus[name]:>14.2f}" for name in shown)
                    + f"{between_seeds(found):>11.2f}{chosen:>14.3f}{best:>9.3f}{average:>9.3f}")  # fmt: skip
        every["seeds"].append(between_seeds(found))
        for name, tau in taus.items():
            every[name].append(tau)
    means = "".join(f"{np.mean(every[name]):>14.2f}" for name in shown)
    rows.append(f"{'mean':<35}  {means}{np.nanmean(every['seeds']):>11.2f}")
    return "\n".join(rows)


def main() -> None:
    """Run what is not there yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/ranking.jsonl"))
    parser.add_argument("--cache", type=Path, default=Path("outputs/ranking"), help="where sources are trained into")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--labels", type=int, nargs="+", default=list(BUDGETS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--most", type=int, help="end after so many runs; the same command goes on later")
    parser.add_argument("--table", action="store_true", help="run nothing, print the table of what is there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lines = (
        [json.loads(line) for line in arguments.output.read_text().splitlines()] if arguments.output.exists() else []
    )
    done = {(line["target"], line["labels"], line["seed"]) for line in lines}
    wanted = [(t, n, s) for s in arguments.seeds for t in arguments.targets for n in arguments.labels]
    missing = [] if arguments.table else [case for case in wanted if case not in done][: arguments.most]
    for target, labels, seed in missing:
        lines.append(run(target, labels, seed, arguments.cache))
        with arguments.output.open("a", encoding="utf-8") as file:
            file.write(json.dumps(lines[-1]) + "\n")
        print(json.dumps(lines[-1]), flush=True)
    print(table(lines))


if __name__ == "__main__":
    main()
