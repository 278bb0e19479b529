"""What a network says of a set of images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from monai_medmerge.errors import DatasetError
from monai_medmerge.inspection import device_of, evaluating, image_and_label


def predict(
    network: nn.Module,
    batches: Iterable[Any],
    image: str = "image",
    label: str = "label",
    sigmoid: bool = False,
) -> tuple[Tensor, Tensor]:
    """Class probabilities and labels of all batches, in their order.

    Args:
        network: gives one score per class (batch, class); every module's mode is put back.
        batches: images (batch, channel, ...) and class numbers (batch,), in any form of `image_and_label`.
        image: key of the images.
        label: key of the labels.
        sigmoid: whether labels do not exclude one another: labels are then (batch, class), 0 or 1 or NaN.

    Returns:
        Probabilities (case, class), float32, and labels (case,), int64, on the CPU; with `sigmoid` (case, class).

    Raises:
        DatasetError: there is no batch.

    Example:
        >>> probabilities, labels = predict(nn.Linear(4, 2), [{"image": torch.ones(3, 4), "label": torch.zeros(3)}])
        >>> probabilities.shape, labels.tolist()
        (torch.Size([3, 2]), [0, 0, 0])
    """
    device = device_of(network)
    found = []
    with evaluating(network):
        for images, labels in (image_and_label(batch, image, label) for batch in batches):
            if not isinstance(labels, Tensor):
                raise DatasetError(f"a number under `{label}` with every image", type(labels).__name__, "batch")
            found.append((network(images.to(device)), labels))
    if not found:
        raise DatasetError("at least one batch of images", "none", "batches")
    scores = torch.cat([torch.as_tensor(scores).cpu().float() for scores, _ in found])
    if sigmoid:
        return scores.sigmoid().as_subclass(Tensor), torch.cat([labels for _, labels in found]).as_subclass(Tensor)
    # Images may be MetaTensors; what is returned is plain.
    return scores.softmax(1).as_subclass(Tensor), torch.cat([labels for _, labels in found]).long().as_subclass(Tensor)
