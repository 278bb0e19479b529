"""Decide by the labels what to do with sources, and do it: the method `auto`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from monai.data import DataLoader
from torch import Tensor, nn
from torch.utils.data import Dataset, RandomSampler

from monai_medmerge.bundle.phases import phase_handlers
from monai_medmerge.bundle.results.history import TrainingHistory
from monai_medmerge.engines import FineTuner, LinearProbeTrainer, PhaseTrainer, TeachTrainer
from monai_medmerge.engines.teach import SOFT
from monai_medmerge.errors import SettingError
from monai_medmerge.handlers import EpochSeedHandler
from monai_medmerge.inspection import copy_network, device_of, evaluating, image_of
from monai_medmerge.methods import Ensemble, merge_with
from monai_medmerge.networks import recalibrate
from monai_medmerge.ranking.decision import Decision, Evidence, decide
from monai_medmerge.ranking.picking import probe_losses
from monai_medmerge.sources import Source, resolve
from monai_medmerge.sources.filling import load_into
from monai_medmerge.sources.patterns import selects

logger = logging.getLogger(__name__)
EPOCH = 24
"""Steps of an epoch, however many images there are: what is saved and seeded at once."""


@dataclass(frozen=True)
class AutoRecipe:
    """How long and how fast each phase trains; decided on sites that no comparison used (docs/evidence.md).

    Args:
        probe_steps: of a head that a source lacks.
        tune_steps: of fine-tuning a source.
        student_steps: of teaching.
        probe_rate: learning rate of the head alone.
        tune_rate: of fine-tuning.
        student_rate: of teaching.
        label_weight: of labelled images beside the teachers' word.
        beside: labelled images in each step of the student.
        batch_size: images in each step.
    """

    probe_steps: int = 96
    tune_steps: int = 240
    student_steps: int = 480
    probe_rate: float = 1e-2
    tune_rate: float = 1e-4
    student_rate: float = 1e-3
    label_weight: float = 0.2
    beside: int = 4
    batch_size: int = 16


class Shown(Dataset[dict[str, Any]]):
    """Images as training sees them: augmented, and with the teachers' word where there is one.

    Args:
        items: prepared cases, dictionaries with `image`.
        augment: from such a dictionary to another; None to leave them as they are.
        soft: probabilities (case, class), or None.
    """

    def __init__(
        self, items: Sequence[Mapping[str, Any]], augment: Callable[..., Any] | None, soft: Tensor | None = None
    ) -> None:
        self.items, self.augment, self.soft = items, augment, soft
        # What tells one run's data from another's.
        self.data = getattr(items, "data", ())

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = dict(self.items[index])
        if self.soft is not None:
            item = {"image": item["image"], SOFT: self.soft[index]}
        found: dict[str, Any] = self.augment(item) if self.augment else item
        return found


class AutoMerge:
    """Measure what sources are worth on the labels, decide, train, and leave one plain network.

    Every source and their average are recalibrated on the unlabelled images. `decide` says which sources are believed
    as they are, where training starts and whether a student is taught. With labels every source is fine-tuned; the
    teachers are, half and half, the mixture of the sources as they are and the mean of the fine-tuned. The student
    starts from the fine-tuned start. Without unlabelled images the start is fine-tuned, and that is all.

    Each training is a phase with checkpoints: a run that was killed goes on where it was.

    Args:
        network: gives class and names, and the values of what no source has. Stays untouched.
        sources: one or more, with names of their own.
        labelled: prepared cases with `image` and `label`, not augmented; none for 0 labels.
        unlabelled: prepared cases with `image`; may be none.
        output_dir: of checkpoints and events.
        head: name patterns of what tells classes apart.
        augment: from a prepared case to what training sees.
        loss_function: of (prediction, label).
        recipe: how long and how fast.
        seed: of the run.
        device: where to train.
        history: to be told what happens, for the report.
        exclude: must be empty: teachers are whole networks, and one with tensors of nobody would teach nonsense.

    Raises:
        SettingError: there are neither labels nor unlabelled images, or a source lacks a head where there is no label;
            or it is a distributed run, something is excluded, or the loss is one of several labels an image.
        IncompatibleSourcesError: a source does not fit.
    """

    def __init__(
        self,
        network: nn.Module,
        sources: Sequence[Source],
        labelled: Sequence[Mapping[str, Any]],
        unlabelled: Sequence[Mapping[str, Any]],
        output_dir: str | Path,
        head: str | Sequence[str] = (),
        augment: Callable[..., Any] | None = None,
        loss_function: Callable[[Tensor, Tensor], Tensor] | None = None,
        recipe: AutoRecipe | Mapping[str, Any] | None = None,
        seed: int = 0,
        device: str | torch.device = "cpu",
        history: TrainingHistory | None = None,
        exclude: Sequence[str] = (),
    ) -> None:
        if exclude:
            raise SettingError("no exclude, as whole networks teach", ", ".join(exclude), "method auto")
        if isinstance(loss_function, nn.BCEWithLogitsLoss):
            raise SettingError("classes that exclude one another", "several labels an image", "method auto")
        if idist.get_world_size() > 1:
            raise SettingError("one process", f"{idist.get_world_size()}", "method auto")
        self.network, self.sources, self.head = network, list(sources), head
        self.labelled, self.unlabelled, self.augment = labelled, unlabelled, augment
        self.loss_function = loss_function or nn.CrossEntropyLoss()
        self.recipe = _recipe(recipe)
        self.output_dir, self.seed, self.device, self.history = output_dir, seed, torch.device(device), history
        self.phases: list[PhaseTrainer] = []

    def run(self, into: nn.Module | None = None) -> nn.Module:
        """Decide and train.

        Args:
            into: a network of the same class that is given the result.

        Returns:
            The plain network, recalibrated.
        """
        decision = self.decision
        for reason in decision.reasons:
            logger.info("auto: %s", reason)
        start = self._tuned(decision.start) if decision.tune else self._plain_of(decision.start)
        found = start if decision.way == "fine-tune" else self._taught(start, decision)
        if into is None:
            return found
        into.load_state_dict(found.state_dict())
        return into

    @cached_property
    def decision(self) -> Decision:
        """What the labels say is to be done, before anything is trained."""
        labels = _class_numbers(self.labelled)
        candidates = [*self.networks, self.average]
        probes = [float("nan")] * len(candidates)
        if len(labels):
            probes = probe_losses(candidates, self._plain(self.labelled), seed=self.seed)
        said = [
            self._said(network, self.labelled).numpy() if headed else None
            for network, headed in zip(self.networks, self.headed, strict=True)
        ]
        return decide(Evidence([s.name for s in self.sources], probes, said, labels, len(self.unlabelled)))

    @cached_property
    def headed(self) -> list[bool]:
        """Which sources have the network's head, in names and shapes."""
        wanted = {name: value.shape for name, value in self.network.state_dict().items() if selects(self.head, name)}
        found = [resolve(self.network, source).tensors for source in self.sources]
        return [all(name in own and own[name].shape == shape for name, shape in wanted.items()) for own in found]

    @cached_property
    def networks(self) -> list[nn.Module]:
        """The sources, recalibrated."""
        return [self._settled(load_into(self.network, source)) for source in self.sources]

    @cached_property
    def average(self) -> nn.Module:
        """Of all sources, recalibrated; its head too where all have one."""
        exclude = () if all(self.headed) else self.head
        merged = merge_with("uniform_average", self.network, self.sources, exclude=exclude)
        return self._settled(merged)

    def _taught(self, start: nn.Module, decision: Decision) -> nn.Module:
        teachers = [pair for pair in zip(decision.weights, self.networks, strict=True) if pair[0]]
        if decision.tune:
            tuned = [start if n == decision.start else self._tuned(n) for n in range(len(self.sources))]
            half = 0.5 if teachers else 1.0
            teachers = [(half * weight, network) for weight, network in teachers]
            teachers += [(half / len(tuned), network) for network in tuned]
        weights, networks = zip(*teachers, strict=True)
        soft = self._said(Ensemble(networks, weights=weights), self.unlabelled, scores=False)
        student, recipe = copy_network(start), self.recipe
        seen = Shown(self.unlabelled, self.augment, soft)
        few = Shown(self.labelled, self.augment) if decision.tune else None
        seed = self.seed + 2 + len(self.sources)
        trainer = TeachTrainer(
            student,
            self._batches(seen, recipe.batch_size),
            _epochs(recipe.student_steps),
            self.loss_function,
            labelled=None if few is None else self._batches(few, recipe.beside),
            learning_rate=recipe.student_rate,
            label_weight=recipe.label_weight,
            device=self.device,
            train_handlers=[
                *self._handlers("teach", seed, seen),
                *([] if few is None else [EpochSeedHandler(seed, few)]),
            ],
        )
        return self._trained(trainer)

    def _tuned(self, of: int | None) -> nn.Module:
        """A fine-tuned copy of a source, or of the average; its head is fitted first where it had none."""
        tuned, recipe, shown = copy_network(self._plain_of(of)), self.recipe, Shown(self.labelled, self.augment)
        batches = self._batches(shown, recipe.batch_size)
        number, name = (0, "the average") if of is None else (of + 1, self.sources[of].name)
        logger.info("auto: fine-tuning %s", name)
        if not (all(self.headed) if of is None else self.headed[of]):
            probe = LinearProbeTrainer(
                tuned, batches, _epochs(recipe.probe_steps), self.loss_function, self.head, recipe.probe_rate,
                device=self.device, train_handlers=self._handlers(f"probe_{number}", self.seed + number, shown),
            )  # fmt: skip
            probe.run()
            self.phases.append(probe)
        trainer = FineTuner(
            tuned, batches, _epochs(recipe.tune_steps), self.loss_function, recipe.tune_rate,
            device=self.device, train_handlers=self._handlers(f"tune_{number}", self.seed + number, shown),
        )  # fmt: skip
        return self._trained(trainer)

    def _plain_of(self, of: int | None) -> nn.Module:
        return self.average if of is None else self.networks[of]

    def _trained(self, trainer: PhaseTrainer) -> nn.Module:
        trainer.run()
        self.phases.append(trainer)
        return self._settled(trainer.plain_network)

    def _handlers(self, name: str, seed: int, shown: Shown) -> list[Any]:
        return phase_handlers(name, self.output_dir, seed, shown, history=self.history)

    def _batches(self, shown: Shown, size: int) -> DataLoader:
        sampler = RandomSampler(shown, num_samples=EPOCH * size)
        return DataLoader(shown, batch_size=size, sampler=sampler, num_workers=0)

    def _plain(self, cases: Sequence[Mapping[str, Any]]) -> DataLoader:
        return DataLoader(Shown(cases, None), batch_size=64, num_workers=0)

    def _settled(self, network: nn.Module) -> nn.Module:
        return recalibrate(network.to(self.device), self._plain(self.unlabelled or self.labelled))

    def _said(self, network: nn.Module, cases: Sequence[Mapping[str, Any]], scores: bool = True) -> Tensor:
        """Probabilities (case, class), on the CPU."""
        found = []
        with evaluating(network):
            for batch in self._plain(cases) if len(cases) else ():
                said = network(image_of(batch).to(device_of(network)))
                found.append((said.softmax(1) if scores else said).float().cpu())
        return torch.cat(found) if found else torch.empty(0, 0)


def _class_numbers(cases: Sequence[Mapping[str, Any]]) -> np.ndarray:
    found = [np.asarray(cases[n]["label"]) for n in range(len(cases))]
    shapes = [label.shape for label in found if label.size != 1]
    if shapes:
        raise SettingError("one class number for each image", f"a label of shape {shapes[0]}", "method auto")
    return np.array([label.item() for label in found], np.int64)


def _epochs(steps: int) -> int:
    if steps % EPOCH or steps < EPOCH:
        raise SettingError(f"a multiple of {EPOCH} steps", f"{steps}", "method auto, recipe")
    return steps // EPOCH


def _recipe(given: AutoRecipe | Mapping[str, Any] | None) -> AutoRecipe:
    if isinstance(given, AutoRecipe):
        return given
    known = AutoRecipe.__dataclass_fields__
    if wrong := sorted(set(given or {}) - set(known)):
        raise SettingError(f"one of {', '.join(known)}", ", ".join(wrong), "method auto, method_options")
    return AutoRecipe(**(given or {}))
