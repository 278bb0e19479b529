"""What a few labels say should be done with sources: which to believe, where to start, whether to teach; and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from monai_medmerge.errors import DatasetError, SettingError
from monai_medmerge.ranking.mixture import mixture_weights

FLOOR = 1e-6
DOUBT = "No label of this site was seen: whether it may be used is undecided until labelled cases are held to the gate."
Way = Literal["teach", "fine-tune"]


@dataclass(frozen=True)
class Evidence:
    """What was measured on the labelled images; losses are mean ``-log p(label)`` of images that p was not fitted to.

    Args:
        names: of the sources.
        probes: cross-validated loss of a linear probe on each recalibrated source, and last on their average; NaN
            where labels are too few.
        said: what the sources say with heads of their own, probabilities (source, case, class); None of a source that
            has no head for these classes.
        labels: class numbers (case,); none for 0 labels.
        unlabelled: how many images there are without labels.
    """

    names: Sequence[str]
    probes: Sequence[float]
    said: Sequence[Float[np.ndarray, "case class"] | None]
    labels: Int[np.ndarray, " case"]
    unlabelled: int


@dataclass(frozen=True)
class Decision:
    """What to do, and why.

    Args:
        way: `teach` a student on unlabelled images, or `fine-tune` the start.
        start: index of a source, or None for the average.
        weights: of the sources as they are, among the teachers; 0 for those that are not believed. Sum 1, or all 0.
        tune: whether sources are fine-tuned too: with labels.
        reasons: one sentence a decision.
    """

    way: Way
    start: int | None
    weights: tuple[float, ...]
    tune: bool
    reasons: tuple[str, ...]


def decide(evidence: Evidence) -> Decision:
    """Which sources are believed, where training starts, and whether a student is taught.

    A source is believed as it is where it makes labels that it has not seen likelier than their frequencies do; those
    believed are weighed as a mixture (`mixture_weights`). Training starts from the source, or the average, with the
    lowest cross-validated loss of a linear probe. A student is taught wherever there are unlabelled images: it was
    ahead of fine-tuning on most sites (docs/evidence.md).

    Args:
        evidence: measured before anything is trained.

    Raises:
        SettingError: there is neither a label nor an unlabelled image, or no label and no source with a head.
        DatasetError: numbers of sources differ.

    Example:
        >>> good, bad = np.tile([0.9, 0.1], (20, 1)), np.tile([0.1, 0.9], (20, 1))
        >>> found = decide(Evidence(["a", "b"], [0.4, 0.9, 0.6], [good, bad], np.arange(20) // 18, 500))
        >>> found.way, found.start, found.weights
        ('teach', 0, (1.0, 0.0))
        >>> print(found.reasons[0])
        a is believed as it is (log loss 0.33; class frequencies 0.37); b is not (2.08).
    """
    names, count = list(evidence.names), len(evidence.labels)
    if len(evidence.said) != len(names) or len(evidence.probes) != len(names) + 1:
        found = f"{len(evidence.said)} and {len(evidence.probes)}"
        raise DatasetError(f"what {len(names)} sources say, and one loss more", found, "evidence")
    if not count and not evidence.unlabelled:
        raise SettingError("labels, or unlabelled images", "neither", "method auto")
    if not count and any(said is None for said in evidence.said):
        lacking = ", ".join(name for name, said in zip(names, evidence.said, strict=True) if said is None)
        raise SettingError("labels, or sources with a head for these classes", f"none in {lacking}", "method auto")
    weights, whom = _believed(evidence)
    start, whence = _start(evidence)
    way, why = _way(evidence, sum(weights) > 0)
    doubt = (
        "No label of this site was seen: whether it may be used is undecided until labelled cases are held to the gate."
    )
    return Decision(way, start, weights, bool(count), (whom, whence, why, *(() if count else (doubt,))))


def own_loss(said: Float[np.ndarray, "case class"], labels: Int[np.ndarray, " case"]) -> float:
    """Mean ``-log p(label)``.

    Example:
        >>> round(own_loss(np.array([[0.5, 0.5]]), np.array([0])), 3)
        0.693
    """
    return float(-np.log(np.maximum(said[np.arange(len(labels)), labels], FLOOR)).mean())


def frequency_loss(labels: Int[np.ndarray, " case"], classes: int) -> float:
    """The same of the class frequencies among the other labels, each class counted once more.

    Example:
        >>> round(frequency_loss(np.array([0, 0, 1, 1]), 2), 3)
        0.916
    """
    counts = np.bincount(labels, minlength=classes)
    return float(-np.log(counts[labels] / (len(labels) - 1 + classes)).mean())


def _believed(evidence: Evidence) -> tuple[tuple[float, ...], str]:
    names, labels, said = evidence.names, evidence.labels, evidence.said
    if not len(labels):
        return tuple(
            [1 / len(names)] * len(names)
        ), "All sources count the same, for there is no label to weigh them by."
    classes = next((found.shape[1] for found in said if found is not None), 0)
    if not classes:
        return tuple([0.0] * len(names)), "No source has a head for these classes, so none is believed as it is."
    losses = [math.inf if found is None else own_loss(found, labels) for found in said]
    bar = frequency_loss(labels, classes)
    kept = [n for n, loss in enumerate(losses) if loss < bar]
    weights = [0.0] * len(names)
    if kept:
        # The mixture is that of the sources that know something; the others cannot draw it towards themselves.
        found = mixture_weights(np.stack([np.asarray(said[n]) for n in kept]), labels)
        for n, weight in zip(kept, found, strict=True):
            weights[n] = weight
    return tuple(weights), _told(names, losses, bar, kept, weights)


def _told(
    names: Sequence[str], losses: Sequence[float], bar: float, kept: Sequence[int], weights: Sequence[float]
) -> str:
    def each(chosen: Sequence[int]) -> str:
        return ", ".join(f"{losses[n]:.2f}" if math.isfinite(losses[n]) else "no head" for n in chosen)

    def listed(chosen: Sequence[int]) -> str:
        return (
            " and ".join([", ".join(names[n] for n in chosen[:-1]), names[chosen[-1]]])
            if chosen[1:]
            else names[chosen[0]]
        )

    others = [n for n in range(len(names)) if n not in kept]
    parts = []
    if kept:
        verb = "is believed as it is" if len(kept) == 1 else "are believed as they are"
        shares = "" if len(kept) == 1 else f"; weights {', '.join(f'{weights[n]:.2f}' for n in kept)}"
        parts.append(f"{listed(kept)} {verb} (log loss {each(kept)}; class frequencies {bar:.2f}{shares})")
    if others:
        verb = "is not" if len(others) == 1 else "are not"
        beside = "" if kept else f" believed as they are, class frequencies alone have {bar:.2f}"
        parts.append(f"{listed(others)} {verb}{beside} ({each(others)})")
    return "; ".join(parts) + "."


def _start(evidence: Evidence) -> tuple[int | None, str]:
    names, probes = list(evidence.names), np.asarray(evidence.probes, float)
    if not len(evidence.labels):
        return None, "Training starts from the recalibrated average, for there is no label to pick a source by."
    if np.isnan(probes).all():
        losses = [math.inf if said is None else own_loss(said, evidence.labels) for said in evidence.said]
        if not np.isfinite(losses).any():
            return None, "Training starts from the recalibrated average: labels are too few to pick a source by."
        best = int(np.argmin(losses))
        return (
            best,
            f"Training starts from {names[best]}, whose own log loss is lowest; labels are too few for a probe.",
        )
    best = int(np.nanargmin(probes))
    told = ", ".join(f"{name} {loss:.2f}" for name, loss in zip([*names, "average"], probes, strict=True))
    chosen = names[best] if best < len(names) else "the recalibrated average"
    reason = f"Training starts from {chosen}: the lowest cross-validated log loss of a linear probe ({told})."
    return (best if best < len(names) else None), reason


def _way(evidence: Evidence, believed: bool) -> tuple[Way, str]:
    count = len(evidence.labels)
    if not evidence.unlabelled:
        return (
            "fine-tune",
            f"It is fine-tuned on {count} labels: without unlabelled images there is nothing to teach on.",
        )
    teachers = "the sources as they are" if believed else ""
    if count:
        teachers += (" and " if believed else "") + "the sources fine-tuned"
    beside = f", beside {count} labels" if count else ""
    return "teach", f"It is taught by {teachers} on {evidence.unlabelled} unlabelled images{beside}."
