"""Sites: shares of patients, each seen by a scanner of its own; and the sources that grew at each."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.sites.scanners import SITES, Scanner, region
from benchmarks.transfer.related import related_source
from benchmarks.transfer.targets import BRAIN, KERMANY, Images, build, shipped
from monai_medmerge import Source
from monai_medmerge.bundle import label_budget

SITE_IMAGES = 400
"""That each source site has."""
UNLABELLED = 1000
"""Images of the new site that are used without their labels."""
HELD_OUT = 400
"""Training images of a trial's site that what was tried is scored on."""
REGIONS, TRIALS = (0, 1, 2), (10, 11)
"""Of the comparison; and where whatever was decided by trying was decided."""
FILES = {"kermany": KERMANY, "brain_mri": BRAIN}


class Raw(NamedTuple):
    """Grey values from 0 to 1 (case, 1, 64, 64), class numbers, and which share each image is in: -1 for test."""

    images: Tensor
    labels: Tensor
    share: np.ndarray
    patients: np.ndarray


@dataclass(frozen=True)
class Target:
    """A new site.

    Args:
        task: of `FILES`.
        region: number of the scanners' draw.
    """

    task: str
    region: int

    @property
    def name(self) -> str:
        """Of the target."""
        return f"{self.task}_{self.region}"

    @property
    def classes(self) -> int:
        """How many there are."""
        return len(torch.unique(raw(self.task).labels))

    def network(self) -> nn.Module:
        """At random."""
        return build(self.classes)

    def pool(self, held_out: bool = False) -> Images:
        """Training images of the new site: those that may be labelled, and the unlabelled ones. In drawn order.

        Args:
            held_out: of a trial, those that what was tried is scored on instead.
        """
        found = _seen(self.task, region(self.region)[-1], SITES - 1, seed=100)
        if self.region in TRIALS:
            found = Images(*(part[:HELD_OUT] if held_out else part[HELD_OUT:] for part in found))
        return found

    def unlabelled(self) -> Tensor:
        """Images that are used without labels; whether an image is among the labelled ones makes no difference."""
        return self.pool().images[:UNLABELLED]

    def labelled(self, labels: int, seed: int) -> Images:
        """The images of a budget, classes in proportion."""
        pool = self.pool()
        items = [{"label": int(label), "index": n} for n, label in enumerate(pool.labels)]
        chosen = torch.tensor([item["index"] for item in label_budget(items, labels, seed)])
        return Images(pool.images[chosen], pool.labels[chosen])

    def test(self) -> tuple[Images, np.ndarray]:
        """Test images from this site's scanner, and the number of the patient of each."""
        found = _seen(self.task, region(self.region)[-1], -1, seed=200)
        task = raw(self.task)
        return found, np.unique(task.patients[task.share == -1], return_inverse=True)[1]

    def sources(self) -> list[Source]:
        """One of each source site."""
        return [site_source(self.task, self.region, number) for number in range(SITES - 1)]


TARGETS = {target.name: target for target in (Target(task, n) for n in (*REGIONS, *TRIALS) for task in FILES)}


@lru_cache(maxsize=2)
def raw(task: str) -> Raw:
    """A task's images, patients dealt out to the source sites; the new site has what is left of the training part."""
    with np.load(Path(os.environ["MEDMERGE_DATA"], FILES[task]), allow_pickle=False) as data:
        images, labels, test = data["images"], data["labels"], data["split"] == "test"
        patients = data["group"] if "group" in data else np.arange(len(labels))
    share = np.full(len(labels), SITES - 1)
    share[test] = -1
    names, inverse = np.unique(patients[~test], return_inverse=True)
    order = np.random.default_rng(7).permutation(len(names))
    counts = np.bincount(inverse)[order].cumsum()
    # Whole patients, until a site has its images.
    dealt = np.minimum(counts // SITE_IMAGES, SITES - 1)
    of_patient = np.empty(len(names), int)
    of_patient[order] = dealt
    share[~test] = of_patient[inverse]
    # MONAI reads image files as (column, row), and the ancestor was trained on them so.
    found = torch.from_numpy(images.astype(np.float32) / 255)[:, None].transpose(2, 3).contiguous()
    return Raw(found, torch.from_numpy(labels.astype(np.int64)), share, patients)


@lru_cache(maxsize=6)
def _seen(task: str, scanner: Scanner, share: int, seed: int) -> Images:
    found = raw(task)
    index = np.flatnonzero(found.share == share)
    if share >= 0:
        index = np.random.default_rng(seed).permutation(index)
    chosen = torch.from_numpy(index)
    return Images(scanner(found.images[chosen], seed), found.labels[chosen])


def site_source(task: str, where: int, number: int) -> Source:
    """The network of a source site, grown from the shipped `natural` on its images; trained once, then kept."""
    seen = _seen(task, region(where)[number], number, seed=number)
    torch.manual_seed(number)
    network = build(len(torch.unique(seen.labels)))
    name = f"site_{task}_{where}_{number}"
    return related_source(name, network, seen.images, seen.labels, shipped("natural"), number, epochs=10)
