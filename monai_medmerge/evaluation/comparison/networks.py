"""Two networks over the same images, read once: what `compare_predictions` and `compare_dice` are told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from monai_medmerge.errors import DatasetError, SettingError
from monai_medmerge.evaluation.bootstrap import SAMPLES, Resampling
from monai_medmerge.evaluation.comparison.cases import Naming, age_groups, read_columns
from monai_medmerge.evaluation.comparison.novelty import Distance, distance
from monai_medmerge.evaluation.comparison.perturbation import CHANGES, INTENSITY_CHANGES, Perturbation, stability
from monai_medmerge.evaluation.comparison.pictures import (
    COUNT,
    CasePicture,
    Gallery,
    Kept,
    classified,
    segmented,
)
from monai_medmerge.evaluation.comparison.predictions import compare_predictions
from monai_medmerge.evaluation.comparison.rows import Comparison, with_checks
from monai_medmerge.evaluation.comparison.saliency import Saliency
from monai_medmerge.evaluation.comparison.volumes import DROP, compare_dice, dice
from monai_medmerge.evaluation.results.segments import segment_measures, stacked
from monai_medmerge.inspection import device_of, evaluating
from monai_medmerge.ranking.features import extract, layer_before_scores, pair

Inferer = Callable[[Tensor, nn.Module], Tensor]
# Below this mean Dice a segmentation counts as wrong, where inputs far from the training data are judged.
WRONG_DICE = 0.5


def compare(
    reference: nn.Module,
    candidate: nn.Module,
    data: Iterable[Any],
    class_names: Sequence[str],
    *,
    subgroups: Sequence[str] = (),
    patient: str | None = None,
    training_data: Iterable[Any] | None = None,
    changes: Mapping[str, Perturbation] | None = None,
    naming: Naming | None = None,
    inferer: Inferer | None = None,
    layer: str | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
    pictures: int = COUNT,
    spacing: Sequence[float] | None = None,
) -> Comparison:
    """Compare a candidate with the network in use, or with the best source fine-tuned, on the site's own data.

    Labels that are one number per image make it a classification, label maps a segmentation with class 0 as background.

    Args:
        reference: the network in use. Both give scores (batch, class, ...) and stay as they are.
        candidate: the network that may replace it.
        data: batches of dictionaries with `image` and `label`, or pairs; gone through once, without augmentation.
        class_names: one per class; of a segmentation, with or without its background.
        subgroups: entries of the batches that divide the cases, such as `site`, `scanner` or `sex`.
        patient: entry of the batches that says which patient a case is of; cases of one are then drawn together. It
            is shown nowhere.
        training_data: what the candidate was trained on; inputs far from it are then looked for.
        changes: small changes of the images that should change no answer; the usual ones if not given.
        naming: what cases are called in reports.
        inferer: of (images, network), such as MONAI's `SlidingWindowInferer`; a plain call if not given.
        layer: whose input distances are measured in; the last linear or convolutional layer's if not given.
        samples: bootstrap resamples.
        seed: of resamples and noise.
        pictures: how many of the worst cases, of the most changed, and of those that flip either way are kept as
            pictures; 0 keeps none. Pictures are of patients, with whatever is burned into them.
        spacing: of the voxels of label maps, in millimetres; their own where they tell it, else 1 each.

    Raises:
        DatasetError: there are no images, or labels, scores and class names do not fit one another.
        SettingError: a column is absent or has too many groups.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
        >>> data = [{"image": torch.rand(20, 1, 8, 8), "label": torch.arange(20) % 2, "site": ["north", "south"] * 10}]
        >>> found = compare(network, network, data, ["benign", "malignant"], subgroups=["site"])
        >>> found.negative_flips.value, found.agreement.value, found.columns
        (0.0, 1.0, ['site'])
        >>> found.equal, found.pictures[0].kind
        (True, 'worst')
    """
    columns = [*subgroups, *([patient] if patient else [])]
    watch = _Watch((reference, candidate), inferer or _call, columns, naming or Naming(), changes, seed)
    watch.gallery, watch.spacing = Gallery(pictures), spacing
    networks, layers = (candidate, reference), [layer, layer]
    features: tuple[list[np.ndarray], ...] = ([], [])
    for batch in data:
        images = watch.see(batch)
        if training_data is not None:
            layers = [known or layer_before_scores(n, images) for known, n in zip(layers, networks, strict=True)]
            for kept, network, name in zip(features, networks, layers, strict=True):
                kept.append(_features(network, [(images,)], name))
    if not watch.names:
        raise DatasetError("at least one image", "none", "data")
    groups = watch.columns[patient] if patient else None
    resampling = Resampling(groups=groups, samples=samples, seed=seed)
    found, wrong = watch.compare(
        class_names, {name: age_groups(name, watch.columns[name]) for name in subgroups}, resampling
    )
    far: Distance | None = None
    if training_data is not None:
        training: tuple[list[np.ndarray], ...] = ([], [])
        for batch in training_data:
            for kept, network, name in zip(training, networks, layers, strict=True):
                kept.append(_features(network, [pair(batch)[:1]], name))
        found_far = [
            distance(np.concatenate(known), np.concatenate(kept), wrong, resampling)
            for known, kept in zip(training, features, strict=True)
        ]
        far = replace(found_far[0], before=found_far[1].far)
    stable = [
        stability(name, np.concatenate(first), np.concatenate(second), resampling)
        for name, (first, second) in watch.kept.items()
    ]
    return with_checks(found, stable, far, watch.draw(found.class_names))


def worst_cases(
    network: nn.Module,
    data: Iterable[Any],
    class_names: Sequence[str],
    *,
    naming: Naming | None = None,
    inferer: Inferer | None = None,
    count: int = COUNT,
    spacing: Sequence[float] | None = None,
) -> list[CasePicture]:
    """The cases that one network has most wrong, as pictures.

    Args:
        network: as of `compare`.
        data: as of `compare`.
        class_names: as of `compare`.
        naming: as of `compare`.
        inferer: as of `compare`.
        count: how many.
        spacing: as of `compare`.

    Raises:
        DatasetError: as `compare`.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
        >>> data = [(torch.rand(20, 1, 8, 8), torch.arange(20) % 2)]
        >>> {picture.kind for picture in worst_cases(network, data, ["benign", "malignant"], count=3)}
        {'worst'}
    """
    watch = _Watch((network, network), inferer or _call, (), naming or Naming(), {}, 0)
    watch.gallery, watch.spacing = Gallery(count), spacing
    for batch in data:
        watch.see(batch)
    if not watch.names:
        raise DatasetError("at least one image", "none", "data")
    if watch.segmentation:
        return watch.draw(_foreground(class_names, watch.answers[0][0].shape[1]), alone=True)
    return watch.draw(class_names, alone=True)


class _Watch:
    """Looks at batches with both networks and keeps, per case, what is compared."""

    def __init__(
        self,
        networks: tuple[nn.Module, nn.Module],
        inferer: Inferer,
        columns: Sequence[str],
        naming: Naming,
        changes: Mapping[str, Perturbation] | None,
        seed: int,
    ) -> None:
        self.networks, self.inferer, self.naming, self.changes = networks, inferer, naming, changes
        self.generator = torch.Generator().manual_seed(seed)
        self.segmentation: bool | None = None
        self.names: list[str] = []
        self.columns: dict[str, list[str]] = {column: [] for column in columns}
        self.labels: list[np.ndarray] = []
        # What is compared of reference, candidate and, for segmentations, of one to the other: (case, class).
        self.answers: tuple[list[np.ndarray], ...] = ([], [], [])
        self.kept: dict[str, tuple[list[np.ndarray], list[np.ndarray]]] = {}
        self.segments: tuple[list[dict[str, np.ndarray]], ...] = ([], [])
        self.gallery = Gallery(0)
        self.spacing: Sequence[float] | None = None

    def see(self, batch: Any) -> Tensor:
        """Take in one batch; its images come back."""
        images, label = pair(batch)
        segmentation = label.numel() != len(images)
        if self.segmentation not in (None, segmentation):
            raise DatasetError("labels of one kind", "numbers and label maps", "data")
        self.segmentation = segmentation
        for column, values in read_columns(batch, list(self.columns), len(images)).items():
            self.columns[column] += values
        self.names += self.naming.names(batch, len(images), len(self.names))
        scores = [self._scores(network, images) for network in self.networks]
        if segmentation:
            self._see_maps(images, scores, label)
        else:
            self._see_classes(images, scores, label)
        self._disturb(images, scores)
        return images

    def compare(
        self, class_names: Sequence[str], columns: Mapping[str, Sequence[str]], resampling: Resampling
    ) -> tuple[Comparison, np.ndarray]:
        """The comparison, and in which cases the candidate is wrong."""
        reference, candidate = (np.concatenate(kept) for kept in self.answers[:2])
        if self.segmentation:
            alike = np.concatenate(self.answers[2])
            found = compare_dice(
                reference,
                candidate,
                alike,
                _foreground(class_names, reference.shape[1]),
                columns,
                self.names,
                resampling,
                more=_more(*(stacked(parts) for parts in self.segments)),
            )
            known = np.where(np.isnan(candidate), 0, candidate).sum(1) / np.maximum((~np.isnan(candidate)).sum(1), 1)
            return found, (known < WRONG_DICE) & ~np.isnan(candidate).all(1)
        labels = np.concatenate(self.labels)
        found = compare_predictions(reference, candidate, labels, class_names, columns, self.names, resampling)
        return found, candidate.argmax(1) != labels

    def draw(self, class_names: Sequence[str], alone: bool = False) -> list[CasePicture]:
        """The cases that the gallery kept, as pictures; `alone` tells of the candidate only."""
        shown = self.gallery.shown()
        if self.segmentation:
            return [_segmented(kept, kind, alone) for kind, kept in shown]
        looks = [Saliency(network) for network in self.networks[int(alone) :]] if shown else []
        return [_drawn(kept, kind, class_names, looks) for kind, kept in shown]

    def _see_classes(self, images: Tensor, scores: Sequence[Tensor], label: Tensor) -> None:
        truth = label.reshape(-1).long().cpu().numpy()
        self.labels.append(truth)
        both = [found.softmax(1).double().numpy() for found in scores]
        for kept, found in zip(self.answers, both, strict=False):
            kept.append(found)
        first = len(self.names) - len(images)
        for n in range(len(images)) if self.gallery.count else ():
            wrong = 1 - both[1][n, truth[n]] if 0 <= truth[n] < both[1].shape[1] else 0.0
            # A case that is right by a hair is not among the worst.
            wrong = wrong if both[1][n].argmax() != truth[n] else 0.0
            facts = {"label": int(truth[n]), "said": [found[n] for found in both]}
            kept_case = Kept(self.names[first + n], _pixels(images[n]), facts)
            change = float(np.abs(both[0][n] - both[1][n]).sum() / 2)
            turn = int(both[1][n].argmax() == truth[n]) - int(both[0][n].argmax() == truth[n])
            self.gallery.see(kept_case, float(wrong), change, turn * change)

    def _see_maps(self, images: Tensor, scores: Sequence[Tensor], label: Tensor) -> None:
        first, second = (found.argmax(1, keepdim=True) for found in scores)
        classes = scores[0].shape[1]
        truth = label.argmax(1, keepdim=True) if label.shape[1] > 1 else label
        if truth.shape != first.shape:
            raise DatasetError(f"label maps {tuple(first.shape)}", f"{tuple(truth.shape)}", "label")
        truth, spacing = truth.cpu(), self.spacing or _spacing(label)
        measures = [segment_measures(said, truth, classes, spacing) for said in (first, second)]
        for parts, found in zip(self.segments, measures, strict=True):
            parts.append(found)
        for kept, values in zip(
            self.answers, (measures[0]["dice"], measures[1]["dice"], dice(second, first, classes)), strict=True
        ):
            kept.append(values)
        for n in range(len(images)) if self.gallery.count else ():
            before, now, alike = (_known_mean(kept[-1][n]) for kept in self.answers)
            maps = [(name, part[n, 0].numpy()) for name, part in
                    (("truth", truth.as_subclass(Tensor)), ("in use", first), ("candidate", second))]  # fmt: skip
            name = self.names[len(self.names) - len(images) + n]
            kept_case = Kept(name, _pixels(images[n]), {"dice": (before, now), "maps": maps})
            self.gallery.see(kept_case, 1 - now, 1 - alike, now - before if abs(now - before) > DROP else 0.0)

    def _disturb(self, images: Tensor, scores: Sequence[Tensor]) -> None:
        usual = INTENSITY_CHANGES if self.segmentation else CHANGES
        for name, change in (usual if self.changes is None else self.changes).items():
            changed = change(images.float(), self.generator)
            both = self.kept.setdefault(name, ([], []))
            for kept, network, before in zip(both, self.networks, scores, strict=True):
                now = self._scores(network, changed).argmax(1, keepdim=True)
                was = before.argmax(1, keepdim=True)
                if self.segmentation:
                    found = dice(now, was, before.shape[1])
                    known = ~np.isnan(found)
                    # Where there is nothing before and nothing after, all is kept.
                    kept.append(np.where(known.any(1), np.nansum(found, 1) / np.maximum(known.sum(1), 1), 1.0))
                else:
                    kept.append((now == was)[:, 0].double().numpy())

    def _scores(self, network: nn.Module, images: Tensor) -> Tensor:
        with evaluating(network):
            found = self.inferer(images.to(device_of(network)), network)
        if not isinstance(found, Tensor) or found.ndim < 2 or found.shape[1] < 2:
            raise SettingError("scores (batch, class, ...) of two classes or more", _shape(found), "network")
        return torch.as_tensor(found).as_subclass(Tensor).float().cpu()


def _foreground(class_names: Sequence[str], count: int) -> Sequence[str]:
    """The names without the background's, if it has one."""
    if len(class_names) not in (count, count + 1):
        expected = f"{count + 1} class names, or {count} without the background"
        raise DatasetError(expected, f"{len(class_names)}", "class_names")
    return class_names[len(class_names) - count :]


def _more(reference: dict[str, np.ndarray], candidate: dict[str, np.ndarray]) -> dict[str, Any]:
    """What is measured of segmentations beside Dice, as rows call it."""
    missed = [found["lesions"] - found["lesions_found"] for found in (reference, candidate)]
    return {
        "surface distance 95 %": (reference["surface_distance_95"], candidate["surface_distance_95"]),
        "normalised surface Dice": (reference["normalised_surface_dice"], candidate["normalised_surface_dice"]),
        "volume error": (reference["volume_error"], candidate["volume_error"]),
        "lesions missed": (missed[0], missed[1]),
        "lesions invented": (reference["lesions_invented"], candidate["lesions_invented"]),
    }


def _segmented(kept: Kept, kind: str, alone: bool) -> CasePicture:
    before, now = kept.facts["dice"]
    if not alone:
        return segmented(kept, kind, f"Dice in use {before:.2f}, candidate {now:.2f}", kept.facts["maps"])
    maps = [("truth", kept.facts["maps"][0][1]), ("network", kept.facts["maps"][2][1])]
    return segmented(kept, kind, f"Dice {now:.2f}", maps)


def _drawn(kept: Kept, kind: str, class_names: Sequence[str], looks: Sequence[Saliency]) -> CasePicture:
    whose = ("in use", "candidate") if len(looks) > 1 else ("network",)
    answers = kept.facts["said"][-len(looks) :]
    said = [f"{name} {class_names[int(a.argmax())]}, {a.max():.2f}" for name, a in zip(whose, answers, strict=True)]
    caption = f"label {class_names[kept.facts['label']]}; " + "; ".join(said)
    image = torch.as_tensor(kept.image)[None]
    heats = [
        (f"{name} looks at", look(image, int(found.argmax())))
        for name, look, found in zip(whose, looks, answers, strict=True)
    ]
    return classified(kept, kind, caption, heats)


def _pixels(image: Tensor) -> np.ndarray:
    return np.asarray(image.as_subclass(Tensor).detach().cpu().float().numpy())


def _known_mean(values: np.ndarray) -> float:
    """1 where there is nothing to measure: nothing was wrong."""
    return float(np.nanmean(values)) if not np.isnan(values).all() else 1.0


def _spacing(label: Tensor) -> Sequence[float] | None:
    """Millimetres of voxels, where the label maps tell."""
    found = getattr(label, "pixdim", None) if isinstance(label, MetaTensor) else None
    if found is None:
        return None
    steps = np.asarray(found[0] if isinstance(found, list) else found, float).reshape(-1)[: label.ndim - 2]
    return [float(step) for step in steps] if (steps > 0).all() and len(steps) == label.ndim - 2 else None


def _shape(found: object) -> str:
    return str(tuple(found.shape)) if isinstance(found, Tensor) else type(found).__name__


def _call(images: Tensor, network: nn.Module) -> Tensor:
    found: Tensor = network(images)
    return found


def _features(network: nn.Module, images: Iterable[tuple[Tensor, ...]], layer: str | None) -> np.ndarray:
    """Features averaged over space, whatever the labels are."""
    unlabelled = ((image, torch.zeros(len(image))) for (image,) in images)
    return extract([network], unlabelled, layer)[0].values
