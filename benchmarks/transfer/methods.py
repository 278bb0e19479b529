"""What is compared: ways from source networks to a network for the target, all with the same optimisation steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel

from benchmarks.transfer.batches import Batches, plain
from benchmarks.transfer.targets import HEAD, Images, Target, all_source_names, load, shipped
from monai_medmerge import Source, align, fold, merge, recalibrate
from monai_medmerge.bundle import best_start
from monai_medmerge.engines import CoefficientTrainer, FineTuner, LinearProbeTrainer
from monai_medmerge.evaluation import macro_f1, predict
from monai_medmerge.methods import Ensemble, fisher_diagonal, gram_matrices, merge_with
from monai_medmerge.ranking.order import rank
from monai_medmerge.sources.filling import load_into

STEPS = 12
"""Optimisation steps of an epoch, whatever the number of labels."""
EPOCHS = 20
PROBE_EPOCHS = 5
MEASURED = 64
"""Labelled images that Fisher information is measured on."""


@dataclass(frozen=True)
class Learning:
    """How MedMerge learns its coefficients.

    Args:
        options: of `merge`.
        epochs: of learning, taken from those of fine-tuning.
        rate: of the coefficients.
        head_rate: of the head with them.
        pull: of fine-tuning, back to the merged weights.
        probe_epochs: of the head alone, before.
        layer_decay: of the rate of fine-tuning, from each stage of the network to the one before it.
        averaged: epochs at the end of fine-tuning whose weights are averaged.
        alignment: of the sources, by `weights` or `activations`, or empty.
        alone: without the further sources, for comparison.
        chosen: a start among the uniform average and every source: `probe` by a linear probe's macro F1 on validation
            images, `rank` by `best_start` on the labelled ones, empty for what the options say.
    """

    options: dict[str, Any] = field(default_factory=lambda: {"constraint": "free"})
    epochs: int = 8
    rate: float = 2e-2
    head_rate: float = 1e-3
    pull: float = 0.0
    probe_epochs: int = PROBE_EPOCHS
    layer_decay: float = 1.0
    averaged: int = 0
    alignment: str = ""
    alone: bool = False
    chosen: str = ""


LEARNINGS = {
    "medmerge": Learning(),
    "medmerge_softmax": Learning({"constraint": "softmax"}),
    "medmerge_layer": Learning({"constraint": "free", "granularity": "layer"}),
    "medmerge_network": Learning({"constraint": "free", "granularity": "network"}),
    "medmerge_best_start": Learning(epochs=3, chosen="rank"),
    "medmerge_with_weights": Learning(
        {"constraint": "free", "residual": True}, epochs=EPOCHS - PROBE_EPOCHS, chosen="probe"
    ),
    "medmerge_coefficients": Learning(epochs=EPOCHS - PROBE_EPOCHS, chosen="rank"),
    "medmerge_from_anchor": Learning({"constraint": "free", "start": "anchor"}),
    "medmerge_residual": Learning({"constraint": "free", "residual": True}),
    "medmerge_residual_from_anchor": Learning({"constraint": "free", "residual": True, "start": "anchor"}),
}
RIVALS: dict[str, dict[str, Any]] = {
    "uniform_average": {},
    "slerp": {},
    "task_arithmetic": {"scale": 0.5},
    "ties": {},
    "dare": {},
    "model_stock": {},
    "fisher": {},
    "regmean": {},
    "greedy_soup": {},
}
FROM_BASE = ("task_arithmetic", "ties", "dare", "model_stock")
"""Of differences from a base: the ancestor where sources have one, else the anchor."""
ALIGNMENTS = ("weights", "activations")
CONTROLS = ("random", "anchor")
METHODS = (
    "scratch",
    *(f"ft:{name}" for name in all_source_names()),
    *(f"lpft:{name}" for name in all_source_names()),
    "ensemble",
    *(f"{name}{suffix}" for name in RIVALS for suffix in ("", ":random")),
    *(f"{name}{suffix}" for name in LEARNINGS for suffix in ("", *(f":{c}" for c in (*CONTROLS, *ALIGNMENTS)))),
)


@dataclass
class Run:
    """One method on one target, budget and seed, with one learning rate for fine-tuning.

    Args:
        target: the task.
        labelled: its labelled images.
        seed: of heads, order and augmentation.
        rate: of the fine-tuning of all weights.
        trained: parameters that each phase trained.
    """

    target: Target
    labelled: Images
    seed: int
    rate: float
    trained: dict[str, int] = field(default_factory=dict)

    def sources(self) -> list[Source]:
        """All that may take part, the best for the labelled images first."""
        sources = self.target.sources
        prepare = partial(recalibrate, batches=self.plain)
        ranking = rank(self.target.network(), sources, self.plain, seed=self.seed, prepare=prepare)
        by_name = {source.name: source for source in sources}
        return [by_name[score.name] for score in ranking.scores]

    @property
    def plain(self) -> list[dict[str, torch.Tensor]]:
        """The labelled images without augmentation; a thousand of them are enough to recalibrate and to rank on."""
        # Sets come sorted by class: the first thousand would be of one.
        order = torch.randperm(len(self.labelled.labels), generator=torch.Generator().manual_seed(self.seed))
        chosen = order[:1000].sort().values
        return plain(self.labelled.images[chosen], self.labelled.labels[chosen])

    def _train(self, kind: Callable[..., Any], network: nn.Module, epochs: int, phase: int, **options: Any) -> None:
        batches = Batches(*self.labelled, STEPS, seed=1000 * self.seed + phase)
        trainer = kind(network, batches, epochs, nn.CrossEntropyLoss(), device="cpu", **options)
        self.trained[kind.__name__] = sum(parameter.numel() for parameter in trainer.parameters)
        trainer.run()

    def probe(self, network: nn.Module, epochs: int = PROBE_EPOCHS) -> nn.Module:
        """Fit the head alone."""
        self._train(LinearProbeTrainer, network, epochs, 0, head=HEAD, learning_rate=1e-2)
        return network

    def learn(self, merged: nn.Module, learning: Learning) -> nn.Module:
        """Learn coefficients, and weights with them where there are residuals; fold."""
        rates = {
            "learning_rate": learning.rate,
            "head_learning_rate": learning.head_rate,
            "residual_learning_rate": self.rate,
        }
        self._train(CoefficientTrainer, merged, learning.epochs, 1, **rates)
        return recalibrate(fold(merged), self.plain)

    def finetune(self, network: nn.Module, epochs: int, averaged: int = 0, **options: Any) -> nn.Module:
        """Train everything; end with the mean of the weights after each of the last epochs, if that is asked for."""
        mean = AveragedModel(network, use_buffers=True)
        handlers = [_Averaging(mean, epochs - averaged)] if averaged else None
        self._train(FineTuner, network, epochs, 2, learning_rate=self.rate, train_handlers=handlers, **options)
        return mean.module if averaged else network


class _Averaging:
    """Take the weights at the end of every epoch after the first `skipped` into a mean."""

    def __init__(self, mean: AveragedModel, skipped: int) -> None:
        self.mean, self.skipped = mean, skipped

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        if engine.state.epoch > self.skipped:
            self.mean.update_parameters(engine.network)


Networks = tuple[nn.Module, nn.Module]
"""Before fine-tuning, and after it."""


def train(name: str, run: Run) -> Networks:
    """The networks that a method ends with."""
    torch.manual_seed(run.seed)
    network = run.target.network()
    kind, _, detail = name.partition(":")
    if kind == "scratch":
        return network, run.finetune(_copy(network, run), EPOCHS)
    if kind in ("ft", "lpft"):
        source = next(source for source in run.target.sources if source.name == detail)
        return _transferred(network, source, run, probes=kind == "lpft")
    if kind == "ensemble":
        members = [_transferred(network, source, run, probes=True) for source in run.target.sources]
        return Ensemble([before for before, _ in members]), Ensemble([after for _, after in members])
    sources = _changed(network, run.sources(), detail, run)
    if kind in LEARNINGS:
        return train_merged(network, sources, run, LEARNINGS[kind])
    merged = run.probe(recalibrate(_rival(kind, network, sources, run), run.plain))
    return merged, run.finetune(_copy(merged, run), EPOCHS - PROBE_EPOCHS)


def train_merged(network: nn.Module, sources: Sequence[Source], run: Run, learning: Learning) -> Networks:
    """MedMerge: probe, coefficients, fine-tuning."""
    sources = sources[:1] if learning.alone else _changed(network, list(sources), learning.alignment, run)
    options = dict(learning.options)
    if learning.chosen == "probe":
        options["start"], options["anchor"] = _best_probe(network, sources, run)
    if learning.chosen == "rank":
        options["start"], options["anchor"] = best_start(network, sources, run.plain, HEAD, run.seed)
    merged = recalibrate(merge(network, sources, exclude=HEAD, **options), run.plain)
    learned = run.learn(run.probe(merged, learning.probe_epochs), learning)
    left = EPOCHS - learning.probe_epochs - learning.epochs
    rates = {"pull": learning.pull, "layer_decay": learning.layer_decay}
    return learned, run.finetune(_copy(learned, run), left, learning.averaged, **rates)


def _best_probe(network: nn.Module, sources: Sequence[Source], run: Run) -> tuple[str, int]:
    """Start and anchor by the images that FT and LP-FT choose their source on."""

    def score(start: str, anchor: int) -> float:
        merged = merge(network, sources, exclude=HEAD, constraint="free", start=start, anchor=anchor)
        return f1(run.probe(recalibrate(fold(merged), run.plain)), load(run.target).validation)

    return max([("uniform", 0), *(("anchor", n) for n in range(len(sources)))], key=lambda start: score(*start))


def _copy(network: nn.Module, run: Run) -> nn.Module:
    copied = run.target.network()
    copied.load_state_dict(network.state_dict())
    return copied


def _transferred(network: nn.Module, source: Source, run: Run, probes: bool) -> Networks:
    start = load_into(network, Source(source.name, _without_head(source)))
    if not probes:
        return start, run.finetune(_copy(start, run), EPOCHS)
    probed = run.probe(recalibrate(start, run.plain))
    return probed, run.finetune(_copy(probed, run), EPOCHS - PROBE_EPOCHS)


def _without_head(source: Source) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in source.tensors.items() if not name.startswith("fc.")}


def _changed(network: nn.Module, sources: list[Source], change: str, run: Run) -> list[Source]:
    """The sources, aligned, or with the further ones replaced by a control."""
    if change == "anchor":
        return sources[:1]
    if change == "random":
        return [sources[0], *(shuffled(source, run.seed + n) for n, source in enumerate(sources[1:]))]
    if change in ALIGNMENTS:
        batches = [batch["image"] for batch in run.plain]
        return align(network, sources, batches[0][:1], batches if change == "activations" else None)
    return sources


def shuffled(source: Source, seed: int) -> Source:
    """A random network of the same weight statistics: the numbers of every tensor, in random order."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: tensor.flatten()[torch.randperm(tensor.numel(), generator=generator)].reshape(tensor.shape)
        for name, tensor in source.tensors.items()
    }
    return Source(f"random, as {source.name}", tensors)


def _rival(name: str, network: nn.Module, sources: Sequence[Source], run: Run) -> nn.Module:
    options = dict(RIVALS[name])
    if name == "slerp":
        sources = sources[:2]
    if name in FROM_BASE and run.target.ancestor:
        options["base"] = shipped(run.target.ancestor)
    if name == "fisher":
        options["fishers"] = [_fisher(network, source, run) for source in sources]
    if name == "regmean":
        options["grams"] = [gram_matrices(load_into(network, source), run.plain[:2]) for source in sources]
    if name == "greedy_soup":
        options["score"] = lambda soup: f1(run.probe(recalibrate(soup, run.plain)), load(run.target).validation)
    return merge_with(name, network, sources, exclude=HEAD, **options)


def _fisher(network: nn.Module, source: Source, run: Run) -> dict[str, torch.Tensor]:
    probed = run.probe(recalibrate(load_into(network, source), run.plain))
    batch = [{key: value[:MEASURED] for key, value in run.plain[0].items()}]
    return fisher_diagonal(probed, batch, lambda output, label: cross_entropy(output, label))


def f1(network: nn.Module, images: Images) -> float:
    """Macro F1 of a network."""
    probabilities, labels = predict(network, plain(*images, 256))
    return macro_f1(probabilities.argmax(1).numpy(), labels.numpy(), probabilities.shape[1])
