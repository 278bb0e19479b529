"""A score for every unlabelled image: the more unsure, the more its label teaches."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from torch import Tensor

from monai_medmerge.errors import DatasetError, MedMergeError, SettingError
from monai_medmerge.label.bundles import weights_files
from monai_medmerge.label.infer import MedMergeInferTask
from monai_medmerge.label.uncertainty import disagreement, entropy, probabilities

logger = logging.getLogger(__name__)


class UncertaintyScoring(ScoringMethod):
    """Scores images by what one or several weights of a bundle answer, and keeps the scores in the datastore.

    With one file of weights the score is the entropy of its answer, with several their disagreement (see
    `uncertainty`), both means over the whole image, so that scores of unlike fields of view compare badly.

    Args:
        task: gives preprocessing, network and inferer.
        name: of the score.
        members: file names of weights in the bundle's `models/`; the default ones if empty.
    """

    def __init__(self, task: MedMergeInferTask, name: str, members: Sequence[str] = ()) -> None:
        what = f"disagreement of {', '.join(members)}" if members else "entropy of the answer"
        super().__init__(f"Uncertainty by {what}")
        self.task = task
        self.name = name
        self.members = list(members)

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Score what has neither a label nor a score of these weights.

        Args:
            request: `max_samples`, at most so many images; `device`.
            datastore: of the images.

        Returns:
            Numbers of images: `executed`, `skipped` (scored before), `failed` (could not be read; the log names them).
        """
        version = self.version()
        images = datastore.get_unlabeled_images()
        due = [image for image in images if self.score(datastore, image) is None]
        limit = int(request.get("max_samples", 0)) or len(due)
        failed = 0
        for image in due[:limit]:
            try:
                score = self._uncertainty(datastore.get_image_uri(image), request.get("device", "cpu"))
            except MedMergeError as error:
                failed += 1
                logger.error("No %s for an image: %s", self.name, error)
                continue
            datastore.update_image_info(image, {self.name: {"score": score, "version": version}})
        executed = len(due[:limit]) - failed
        return {"executed": executed, "skipped": len(images) - len(due), "failed": failed}

    def version(self) -> str:
        """Changes when weights change, which ends the validity of scores."""
        return " ".join(f"{file.name}:{file.stat().st_mtime_ns}" for file in self._files())

    def score(self, datastore: Datastore, image: str) -> float | None:
        """The score of an image, if it has one of the weights as they are."""
        known = datastore.get_image_info(image).get(self.name, {})
        return known["score"] if known.get("version") == self.version() else None

    def _files(self) -> list[Any]:
        files = weights_files(self.task.folder)
        return [file for file in files if file.name in self.members] if self.members else files[:1]

    def _uncertainty(self, path: str, device: str) -> float:
        answers = [self._answer(path, device, file.name) for file in self._files()]
        found = disagreement(answers) if self.members else entropy(answers[0])
        if not math.isfinite(found):
            raise DatasetError("an image of which the network gives finite scores", "NaN", Path(path).name)
        return found

    def _answer(self, path: str, device: str, weights: str) -> Tensor:
        data: Any = copy.deepcopy(self.task.config())
        data |= {"image": path, "image_path": path, "device": device, "model_filename": weights, "logging": "ERROR"}
        data = self.task.run_pre_transforms(data, self.task.pre_transforms(data))
        data = self.task.run_inferer(data, device=device)
        return probabilities(torch.as_tensor(data[self.task.output_label_key]))


class MostUncertain(Strategy):
    """Chooses the unlabelled image with the highest score.

    Args:
        scoring: gives the scores.
    """

    def __init__(self, scoring: UncertaintyScoring) -> None:
        super().__init__(f"Highest score first. {scoring.description}")
        self.scoring = scoring

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """Choose.

        Args:
            request: not looked at.
            datastore: of the images.

        Returns:
            `id` and `weight` (the score); None if every image has a label.

        Raises:
            SettingError: no image has a score of the weights as they are.
        """
        images = datastore.get_unlabeled_images()
        if not images:
            return None
        scores = {image: self.scoring.score(datastore, image) for image in images}
        known = {image: score for image, score in scores.items() if score is not None}
        if not known:
            raise SettingError(
                f"scores; POST /scoring/{self.scoring.name} makes them", "none of these weights", self.scoring.name
            )
        best = max(known, key=lambda image: known[image])
        return {"id": best, "weight": known[best]}


def check_members(task: MedMergeInferTask, members: Sequence[str]) -> None:
    """Whether weights can vote on the same answer.

    Raises:
        SettingError: there are fewer than two.
        DatasetError: one is absent.
    """
    if len(set(members)) < 2:
        raise SettingError("two or more files of weights", ", ".join(members) or "none", "disagreement")
    offered = [file.name for file in weights_files(task.folder)]
    absent = [name for name in members if name not in offered]
    if absent:
        raise DatasetError(f"among {', '.join(offered)}", ", ".join(absent), "disagreement")
