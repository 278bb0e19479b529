"""What differs from task to task when a network is trained: the loss."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from monai_medmerge.bundle.definition.document import Task
from monai_medmerge.errors import SettingError

LOSSES: Mapping[str, type[nn.Module]] = {
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
