"""Sources that know part of a target: each tells some of its classes apart, on images of other patients.

They are trained here when they are first needed, the same from the same seed, and kept under `outputs/`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from benchmarks.transfer.batches import Batches
from monai_medmerge import Source
from monai_medmerge.bundle import save_weights
from monai_medmerge.engines import FineTuner
from monai_medmerge.sources.filling import load_into

KEPT = Path(__file__).parents[2] / "outputs" / "transfer_sources"
EPOCHS, STEPS, RATE = 40, 30, 1e-3


def related_source(
    name: str,
    network: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    ancestor: Source | None,
    seed: int,
    epochs: int = EPOCHS,
    head: str = "fc.",
    settled: Callable[[nn.Module], nn.Module] | None = None,
) -> Source:
    """A source for the classes of these images.

    Args:
        name: of the source, no other's.
        network: with one output per class, at random.
        images: standardised.
        labels: numbers from 0.
        ancestor: what training starts from; the network's random weights if None.
        seed: of order and augmentation.
        epochs: of training.
        head: how the names of the ancestor's own head begin.
        settled: what is done with the trained network before it is kept.
    """
    path = KEPT / f"{name}.pt"
    if not path.exists():
        if ancestor is not None:
            body = {key: value for key, value in ancestor.tensors.items() if not key.startswith(head)}
            network = load_into(network, Source(ancestor.name, body))
        batches = Batches(images, labels, STEPS, seed)
        FineTuner(network, batches, epochs, nn.CrossEntropyLoss(), RATE, device="cpu").run()
        path.parent.mkdir(parents=True, exist_ok=True)
        save_weights(path, settled(network) if settled else network)
    return Source.from_file(path, name=name)
