"""Teach one network what several say of unlabelled images; a few labelled ones may stand beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from ignite.engine import Events
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from monai_medmerge.engines.phase import PhaseTrainer, trainable
from monai_medmerge.errors import DatasetError, SettingError
from monai_medmerge.files import weights_sha256
from monai_medmerge.inspection import image_and_label, image_of

SOFT = "soft"


class TeachTrainer(PhaseTrainer):
    """Minimise ``T^2 KL(q_T || p_T)`` on unlabelled images, plus ``label_weight * loss`` on labelled ones.

    q are the teacher's probabilities and p the student's, both at temperature T: ``q_T`` is ``q^(1/T)`` normalised
    (Hinton, Vinyals, Dean, arXiv:1503.02531). An image has one distribution, or a map of one per voxel. Labelled
    images go through the student in one batch with the unlabelled ones, so that both are normalised alike. With few
    labels they are for correction, not for learning: where they are half of the loss, the student overfits them.

    Args:
        network: the student; every parameter that takes a gradient is trained.
        train_data_loader: batches of unlabelled images: dictionaries with `image`, and with the teacher's
            probabilities (batch, class, ...) under `soft` where there is no teacher. A `label` is not looked at.
        max_epochs: epochs over the unlabelled images.
        loss_function: of (prediction, label), for the labelled images.
        teacher: gives probabilities of images as the student sees them: `Ensemble`, or None if the batches have them.
        labelled: batches of dictionaries with `image` and `label`, gone through again and again; each epoch begins
            anew. None for none.
        learning_rate: of all weights.
        label_weight: of the loss on labelled images.
        temperature: above 1 small probabilities count for more.
        kwargs: further arguments of `PhaseTrainer`.

    Raises:
        SettingError: nothing is trainable, or a temperature or weight is out of range.
        DatasetError: (in the run) a batch has no soft labels and there is no teacher, or they do not fit the student.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> student, images = nn.Linear(4, 2), torch.randn(64, 4)
        >>> soft = torch.stack([images[:, 0] > 0, images[:, 0] <= 0], 1).float()
        >>> TeachTrainer(student, [{"image": images, "soft": soft}], 60, learning_rate=0.1).run()
        >>> bool(((student(images).argmax(1) == soft.argmax(1)).float().mean()) > 0.95)
        True
    """

    def __init__(
        self,
        network: nn.Module,
        train_data_loader: Iterable[Any],
        max_epochs: int,
        loss_function: Callable[..., Tensor] | None = None,
        teacher: nn.Module | None = None,
        labelled: Iterable[Any] | None = None,
        learning_rate: float = 1e-3,
        label_weight: float = 0.2,
        temperature: float = 1.0,
        **kwargs: Any,
    ) -> None:
        if not temperature > 0:
            raise SettingError("a temperature above 0", f"{temperature}", "TeachTrainer")
        if not label_weight >= 0:
            raise SettingError("a label_weight of 0 or more", f"{label_weight}", "TeachTrainer")
        loss = loss_function or nn.CrossEntropyLoss()

        def taught(prediction: Tensor, target: tuple[Tensor, Tensor | None]) -> Tensor:
            soft, label = target
            found = divergence(prediction[: len(soft)], soft, temperature)
            return found if label is None else found + label_weight * loss(prediction[len(soft) :], label)

        # Without a weight, labelled images would still move what batch-norm measures.
        beside = Endless(labelled) if labelled is not None and label_weight else None
        super().__init__(
            network=network,
            groups=trainable(network, learning_rate),
            train_data_loader=train_data_loader,
            max_epochs=max_epochs,
            loss_function=taught,
            prepare_batch=_Prepare(teacher, beside),
            facts={
                "start_sha256": weights_sha256(network),
                "teacher_sha256": weights_sha256(teacher) if teacher is not None else "",
                "label_weight": label_weight if beside else 0.0,
                "temperature": temperature,
            },
            **kwargs,
        )
        if beside is not None:
            # What an epoch sees then depends on its seed alone, and a run can go on from any.
            self.add_event_handler(Events.EPOCH_STARTED, beside.begin)


def divergence(
    scores: Float[Tensor, "case class *voxel"], soft: Float[Tensor, "case class *voxel"], temperature: float = 1.0
) -> Tensor:
    """``T^2`` times the mean Kullback-Leibler divergence of a student's scores from soft labels, at temperature T.

    Args:
        scores: before softmax.
        soft: probabilities; of 0 too.
        temperature: of both.

    Raises:
        DatasetError: the shapes differ.

    Example:
        >>> soft = torch.tensor([[0.9, 0.1]])
        >>> round(divergence(soft.log(), soft).item(), 6)
        0.0
    """
    if scores.shape != soft.shape:
        raise DatasetError(f"soft labels of shape {tuple(scores.shape)}", f"{tuple(soft.shape)}", SOFT)
    wanted = sharpened(soft, temperature)
    # 0 log 0 is 0.
    entropy = torch.special.entr(wanted).sum(1)
    cross = -(wanted * log_softmax(scores / temperature, 1)).sum(1)
    return temperature**2 * (cross - entropy).mean()


def sharpened(
    probabilities: Float[Tensor, "case class *voxel"], temperature: float
) -> Float[Tensor, "case class *voxel"]:
    """``p^(1/T)``, normalised: below a temperature of 1 the likely becomes likelier.

    Example:
        >>> sharpened(torch.tensor([[0.8, 0.2]]), 0.5)
        tensor([[0.9412, 0.0588]])
    """
    if temperature == 1:
        return probabilities
    return (probabilities.log() / temperature).softmax(1)


class Endless:
    """Batches again and again, from the first one after `begin`.

    Args:
        batches: what can be gone through more than once.

    Raises:
        DatasetError: (when asked for the next) there is none.

    Example:
        >>> batches = Endless([1, 2])
        >>> [batches.next() for _ in range(3)]
        [1, 2, 1]
    """

    def __init__(self, batches: Iterable[Any]) -> None:
        self.batches = batches
        self.left: Iterator[Any] = iter(())

    def begin(self) -> None:
        """Start with the first batch."""
        self.left = iter(self.batches)

    def next(self) -> Any:
        """One more."""
        for batch in self.left:
            return batch
        self.begin()
        for batch in self.left:
            return batch
        raise DatasetError("at least one batch of labelled images", "none", "labelled")


class _Prepare:
    """From a batch to (images, (soft labels, labels)); the unlabelled images first."""

    def __init__(self, teacher: nn.Module | None, labelled: Endless | None) -> None:
        self.teacher, self.labelled = teacher, labelled

    def __call__(self, batch: Any, device: Any = None, non_blocking: bool = False, **kwargs: Any) -> Any:
        images = image_of(batch).to(device, non_blocking=non_blocking, **kwargs)
        soft = self._soft(batch, images)
        if self.labelled is None:
            return images, (soft, None)
        more, label = image_and_label(self.labelled.next())
        if not isinstance(label, Tensor):
            raise DatasetError("a label with every image", type(label).__name__, "labelled")
        more, label = more.to(device, non_blocking=non_blocking, **kwargs), label.to(device, non_blocking=non_blocking)
        if more.shape[1:] != images.shape[1:]:
            expected, came = (f"{tuple(tensor.shape[1:])}" for tensor in (images, more))
            raise DatasetError(f"images as the unlabelled ones: {expected}", came, "labelled, image")
        return torch.cat([images, more]), (soft, label)

    def _soft(self, batch: Any, images: Tensor) -> Tensor:
        if self.teacher is None:
            if not isinstance(batch, Mapping) or SOFT not in batch:
                raise DatasetError("soft labels under `soft`, or a teacher", "neither", "unlabelled batch")
            return torch.as_tensor(batch[SOFT]).to(images)
        self.teacher.to(images.device).eval()
        with torch.no_grad():
            found: Tensor = self.teacher(images)
        return found
