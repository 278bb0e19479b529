"""One target, budget and seed: what all ways share there, made once and only when a way asks for it."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.sites.data import TARGETS
from benchmarks.sites.rates import RATES
from benchmarks.transfer.batches import BATCH, Batches, augmented, plain
from benchmarks.transfer.methods import shuffled
from benchmarks.transfer.targets import HEAD, Images
from monai_medmerge import Source, recalibrate
from monai_medmerge.engines import FineTuner, LinearProbeTrainer
from monai_medmerge.engines.teach import TeachTrainer
from monai_medmerge.evaluation import predict
from monai_medmerge.methods import merge_with
from monai_medmerge.ranking.decision import Decision, Evidence, decide
from monai_medmerge.ranking.mixture import mixture_weights
from monai_medmerge.ranking.picking import probe_losses
from monai_medmerge.sources.filling import load_into

STEPS = 240
"""Of optimisation, of every training of all weights."""
EPOCH = 24
PROBE_STEPS = 96
BESIDE = 4
"""Labelled images in each step of a student."""
ANOTHER = {"kermany": "brain_mri", "brain_mri": "kermany"}


class SoftBatches:
    """Unlabelled images, augmented, with the soft labels of the plain ones.

    Args:
        images: standardised.
        soft: probabilities (case, class).
        steps: batches of a pass.
        seed: of order and augmentation.
        size: of a batch.
    """

    def __init__(self, images: Tensor, soft: Tensor, steps: int, seed: int, size: int = BATCH) -> None:
        self.images, self.soft, self.steps, self.size = images, soft, steps, size
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        count, wanted = len(self.soft), self.steps * self.size
        orders = [torch.randperm(count, generator=self.generator) for _ in range(math.ceil(wanted / count))]
        for index in torch.cat(orders)[:wanted].split(self.size):
            yield {"image": augmented(self.images[index], self.generator), "soft": self.soft[index]}


class Task(Protocol):
    """What a cell asks of its target."""

    @property
    def name(self) -> str:
        """Of the target."""

    @property
    def classes(self) -> int:
        """How many there are."""

    def network(self) -> nn.Module:
        """At random."""

    def unlabelled(self) -> Tensor:
        """Images that are used without labels."""

    def labelled(self, labels: int, seed: int) -> Images:
        """The images of a budget."""

    def test(self) -> tuple[Images, np.ndarray]:
        """Test images, and the number of the patient of each."""

    def sources(self) -> list[Source]:
        """Networks that have seen none of its images."""


@dataclass
class Cell:
    """A target, a number of labels and a seed.

    Args:
        target: the new site, or another new task.
        labels: how many; 0 for none.
        seed: of the draw of labelled images, of order and of augmentation.
        rate: of fine-tuning, where it is to be tried; the one decided on otherwise.
        steps: that networks here were trained for, by what trained them.
        notes: what a way decided, for its line.
    """

    head: ClassVar[list[str]] = HEAD
    rates: ClassVar[dict[str, float]] = RATES
    length: ClassVar[int] = STEPS
    """Steps of a fine-tuning."""

    target: Task
    labels: int
    seed: int
    rate: float | None = None
    steps: dict[str, int] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def labelled(self) -> Images:
        """The k images that decide everything."""
        if not self.labels:
            return Images(self.unlabelled[:0], torch.zeros(0, dtype=torch.long))
        return self.target.labelled(self.labels, self.seed)

    @cached_property
    def unlabelled(self) -> Tensor:
        """Images of the same task."""
        return self.target.unlabelled()

    @cached_property
    def others(self) -> Tensor:
        """Images of another task, for a control."""
        task, _, region = self.target.name.rpartition("_")
        return TARGETS[f"{ANOTHER[task]}_{region}"].unlabelled()

    def network(self) -> nn.Module:
        """At random."""
        torch.manual_seed(self.seed)
        return self.target.network()

    def settled(self, network: nn.Module) -> nn.Module:
        """Batch norm measured anew on unlabelled images."""
        return recalibrate(network, self.unlabelled.split(100))

    def fitted(self, network: nn.Module) -> nn.Module:
        """What can be done with a network before any of its own weights is trained: here, to recalibrate it."""
        return self.settled(network)

    @cached_property
    def sources(self) -> list[Source]:
        """Fitted, as sources of a merge."""
        return [self._source(source) for source in self.target.sources()]

    def _source(self, source: Source) -> Source:
        return Source.from_network(self.fitted(load_into(self.network(), source)), source.name)

    @cached_property
    def networks(self) -> list[nn.Module]:
        """The same, as networks."""
        return [load_into(self.network(), source) for source in self.sources]

    @cached_property
    def random_sources(self) -> list[Source]:
        """The picked one, and in place of each other one a random network of the same weight statistics."""
        return [
            source if n == self.picked else self._source(shuffled(source, self.seed + n))
            for n, source in enumerate(self.sources)
        ]

    @cached_property
    def random_networks(self) -> list[nn.Module]:
        """The same, as networks."""
        return [load_into(self.network(), source) for source in self.random_sources]

    @cached_property
    def losses(self) -> list[float]:
        """Cross-validated log loss of a linear probe on the labelled images, for each recalibrated source."""
        return probe_losses(self.networks, plain(*self.labelled), seed=self.seed)

    @cached_property
    def picked(self) -> int:
        """The source that the labels pick."""
        return int(np.argmin(self.losses))

    @cached_property
    def decision(self) -> Decision:
        """What `method: auto` decides, from the labels and before anything is trained."""
        average = self.average()
        labels = self.labelled.labels.numpy()
        probes = [float("nan")] * (len(self.networks) + 1)
        if self.labels:
            probes = [*self.losses, *probe_losses([average], plain(*self.labelled), seed=self.seed)]
        said = [self.said(network, self.labelled.images).numpy() if self.labels else None for network in self.networks]
        empty = np.empty((0, self.target.classes))
        said = [empty if found is None else found for found in said]
        return decide(Evidence([s.name for s in self.sources], probes, said, labels, len(self.unlabelled)))

    def tuned(self, network: nn.Module, phase: int, rate: float | None = None, steps: int | None = None) -> nn.Module:
        """A fine-tuned copy, recalibrated."""
        steps = steps or self.length
        tuned = copy.deepcopy(network)
        batches = Batches(*self.labelled, EPOCH, seed=1000 * self.seed + phase)
        rate = rate or self.rate or self.rates["ft"]
        FineTuner(tuned, batches, steps // EPOCH, nn.CrossEntropyLoss(), rate, device="cpu").run()
        self.steps["ft"] = self.steps.get("ft", 0) + steps
        return self.settled(tuned)

    def probed(self, network: nn.Module) -> nn.Module:
        """A copy with a head fitted from where it is."""
        probed = copy.deepcopy(network)
        batches = Batches(*self.labelled, EPOCH, seed=1000 * self.seed)
        epochs = PROBE_STEPS // EPOCH
        LinearProbeTrainer(probed, batches, epochs, nn.CrossEntropyLoss(), self.head, 1e-2, device="cpu").run()
        return probed

    @cached_property
    def fine_tuned(self) -> nn.Module:
        """The picked source, fine-tuned."""
        return self.tuned(self.networks[self.picked], 1)

    @cached_property
    def all_tuned(self) -> list[nn.Module]:
        """Every source, fine-tuned."""
        return [
            self.fine_tuned if n == self.picked else self.tuned(network, 10 + n)
            for n, network in enumerate(self.networks)
        ]

    def average(self, weights: Sequence[float] | None = None, sources: Sequence[Source] | None = None) -> nn.Module:
        """Of the sources, fitted."""
        sources = sources or self.sources
        weights = list(weights or [1.0] * len(sources))
        merged = merge_with("weighted_average", self.network(), sources, weights=weights)
        return self.fitted(merged)

    def weights(self, networks: Sequence[nn.Module]) -> list[float]:
        """Of the mixture, by the labels."""
        if not self.labels:
            return [1 / len(networks)] * len(networks)
        said = torch.stack([self.said(network, self.labelled.images) for network in networks])
        return mixture_weights(said, self.labelled.labels)

    def said(self, network: nn.Module, images: Tensor) -> Tensor:
        """Probabilities (case, class)."""
        return predict(network, plain(images, torch.zeros(len(images)), 250))[0]

    def soft(self, weighted: Sequence[tuple[float, nn.Module]], images: Tensor | None = None) -> Tensor:
        """Weighted mean of what networks say of the unlabelled images."""
        images = self.unlabelled if images is None else images
        return torch.stack([weight * self.said(network, images) for weight, network in weighted]).sum(0)

    def student(
        self,
        start: nn.Module,
        soft: Tensor,
        images: Tensor | None = None,
        rate: float = 1e-3,
        steps: int = STEPS,
        label_weight: float = 0.2,
        temperature: float = 1.0,
        size: int = BATCH,
    ) -> nn.Module:
        """A copy of the start, taught soft labels of the unlabelled images."""
        student = copy.deepcopy(start)
        images = self.unlabelled if images is None else images
        batches = SoftBatches(images, soft, EPOCH, 1000 * self.seed + 9, size)
        labelled = None
        if self.labels:
            labelled = _Few(*self.labelled, EPOCH, seed=1000 * self.seed + 8)
        TeachTrainer(
            student, batches, steps // EPOCH, labelled=labelled, learning_rate=rate,
            label_weight=label_weight, temperature=temperature, device="cpu",
        ).run()  # fmt: skip
        self.steps["teach"] = self.steps.get("teach", 0) + steps
        return self.settled(student)


class _Few(Batches):
    """Labelled batches of a student's step."""

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        count, wanted = len(self.labels), self.steps * BESIDE
        orders = [torch.randperm(count, generator=self.generator) for _ in range(math.ceil(wanted / count))]
        for index in torch.cat(orders)[:wanted].split(BESIDE):
            yield {"image": augmented(self.images[index], self.generator), "label": self.labels[index]}
