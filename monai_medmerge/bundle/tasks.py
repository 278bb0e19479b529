"""What differs from task to task: the loss that trains, and the measures that are reported."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor, nn

from monai_medmerge.bundle.definition.document import Task
from monai_medmerge.errors import DatasetError, SettingError
from monai_medmerge.evaluation import bootstrap_interval, macro_f1, predict
from monai_medmerge.evaluation.measures import area_under_curve

LOSSES: dict[str, type[nn.Module]] = {
    "classification": nn.CrossEntropyLoss,
    "ordinal": nn.CrossEntropyLoss,
    "multilabel": nn.BCEWithLogitsLoss,
}


def task_loss(task: Task) -> nn.Module:
    """The loss of a task: cross-entropy, or of several labels a binary one for each.

    Args:
        task: `classification`, `ordinal` or `multilabel`.

    Raises:
        SettingError: it is another; a segmentation states its own.

    Example:
        >>> type(task_loss("multilabel")).__name__
        'BCEWithLogitsLoss'
    """
    if task not in LOSSES:
        raise SettingError(f"one of {', '.join(LOSSES)}", repr(task), "task")
    return LOSSES[task]()


def measure(
    task: Task, network: nn.Module, batches: Iterable[Any], class_names: Sequence[str], seed: int
) -> dict[str, Any]:
    """What a network reaches on labelled images, in the measures of its task.

    Macro F1 for classes, and for grades the quadratic kappa beside it; for several labels the mean average precision,
    and the area under the ROC curve of each.

    Args:
        task: of the network.
        network: its mode is put back.
        batches: dictionaries with `image` and `label`.
        class_names: one for each output.
        seed: of the bootstrap.
    """
    if task == "multilabel":
        return _several(network, batches, class_names)
    probabilities, labels = predict(network, batches)
    predictions, truth, classes = probabilities.argmax(1).numpy(), labels.numpy(), len(class_names)
    interval = bootstrap_interval(predictions, truth, classes, seed=seed)
    found = {
        "macro_f1": float(macro_f1(predictions, truth, classes)),
        "interval": [float(bound) for bound in interval],
        "cases": len(truth),
    }
    return {**found, **({"kappa": quadratic_kappa(predictions, truth, classes)} if task == "ordinal" else {})}


def quadratic_kappa(predictions: np.ndarray, labels: np.ndarray, classes: int) -> float:
    """Agreement beyond chance where grades that lie further apart disagree more: ``1 - sum(w o) / sum(w e)``.

    Cohen, Psychological Bulletin 1968, doi 10.1037/h0026256, with ``w = (i - j)^2``.

    Args:
        predictions: grades, int (case,).
        labels: grades, int (case,).
        classes: how many there are.

    Returns:
        At most 1; NaN where chance alone agrees wholly.

    Example:
        >>> quadratic_kappa(np.array([0, 1, 2, 2]), np.array([0, 1, 2, 1]), 3)
        0.8
    """
    observed = np.zeros((classes, classes))
    np.add.at(observed, (labels, predictions), 1)
    expected = np.outer(observed.sum(1), observed.sum(0)) / max(len(labels), 1)
    weights = (np.arange(classes)[:, None] - np.arange(classes)[None]) ** 2
    chance = float((weights * expected).sum())
    return 1 - float((weights * observed).sum()) / chance if chance else float("nan")


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """Precision at every positive case, from the highest score down, in the mean; ties count together.

    Args:
        scores: float (case,).
        positive: bool (case,).

    Returns:
        From 0 to 1; NaN without a positive case.

    Example:
        >>> average_precision(np.array([0.9, 0.8, 0.1]), np.array([True, False, True])).__round__(4)
        0.8333
    """
    if not positive.any():
        return float("nan")
    above = rankdata(-scores, method="max")
    positives_above = np.array([(positive & (scores >= score)).sum() for score in scores[positive]])
    return float((positives_above / above[positive]).mean())


def _several(network: nn.Module, batches: Iterable[Any], class_names: Sequence[str]) -> dict[str, Any]:
    device = next(network.parameters()).device
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            found = [
                (network(torch.as_tensor(b["image"]).to(device)).cpu(), torch.as_tensor(b["label"])) for b in batches
            ]
    finally:
        network.train(training)
    if not found:
        raise DatasetError("at least one batch of images", "none", "batches")
    scores = torch.cat([scores.flatten(1) for scores, _ in found]).sigmoid().as_subclass(Tensor).numpy()
    truth = torch.cat([labels for _, labels in found]).as_subclass(Tensor).numpy() > 0
    by_label = {
        name: {
            "average_precision": average_precision(s, t),
            "auroc": float(area_under_curve(s, t)(np.ones((1, len(t))))[0]),
            "positive": int(t.sum()),
        }
        for name, s, t in zip(class_names, scores.T, truth.T, strict=True)
    }
    # A label without a positive case has no precision, and counts in no mean.
    known = [entry["average_precision"] for entry in by_label.values() if entry["positive"]]
    mean = float(np.mean(known)) if known else float("nan")
    return {"mean_average_precision": mean, "labels": by_label, "cases": len(truth)}
