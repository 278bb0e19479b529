"""A MONAI Label app that serves bundles: inference, training with merging, and what to label next by uncertainty."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.tasks.activelearning.first import First
from monailabel.tasks.activelearning.random import Random

import monai_medmerge
from monai_medmerge.errors import SettingError
from monai_medmerge.label.answers import explained, not_found
from monai_medmerge.label.infer import MedMergeInferTask
from monai_medmerge.label.scoring import MostUncertain, UncertaintyScoring, check_members
from monai_medmerge.label.train import MedMergeTrainTask


class MedMergeApp(MONAILabelApp):
    """Serves the bundles in `model/` of the app's folder.

    Every bundle gets an inference and, where it has `train.json`, a training; every one a score and a strategy
    `entropy` (`NAME_entropy` where several bundles are served), and with `--conf disagreement "a.pt,b.pt"` those two or
    more weights of its `models/` another, `disagreement`.

    Args:
        app_dir: folder of the app.
        studies: folder or address of the images.
        conf: `models`, names of bundles separated by commas, all in `model/` unless given; `disagreement`;
            `skip_trainers`.

    Raises:
        SettingError: a bundle is absent or cannot be served.
    """

    def __init__(self, app_dir: str, studies: str, conf: Mapping[str, str]) -> None:
        self.bundles = find_bundles(Path(app_dir) / "model", conf.get("models", ""))
        self.inferences: dict[str, MedMergeInferTask] = {}
        self.scorings: dict[str, UncertaintyScoring] = {}
        super().__init__(
            app_dir, studies, dict(conf), name="MedMerge", description="Networks merged from several pretrained ones",
            version=monai_medmerge.__version__,
        )  # fmt: skip

    def init_infers(self) -> dict[str, MedMergeInferTask]:
        """An inference for every bundle."""
        self.inferences = {name: MedMergeInferTask(str(path), self.conf) for name, path in self.bundles.items()}
        for name, task in self.inferences.items():
            if not task.is_valid():
                raise SettingError("configs/inference.json and models/model.pt or model.ts", "not both", name)
        return dict(self.inferences)

    def init_trainers(self) -> dict[str, MedMergeTrainTask]:
        """A training for every bundle that has one."""
        if self.conf.get("skip_trainers", "false").lower() == "true":
            return {}
        tasks = {name: MedMergeTrainTask(str(path), self.conf) for name, path in self.bundles.items()}
        return {name: task for name, task in tasks.items() if task.is_valid()}

    def init_scoring_methods(self) -> dict[str, UncertaintyScoring]:
        """Entropy, and disagreement where weights for it are named."""
        members = [name.strip() for name in self.conf.get("disagreement", "").split(",") if name.strip()]
        for bundle, task in self.inferences.items():
            prefix = f"{bundle}_" if len(self.inferences) > 1 else ""
            self.scorings[f"{prefix}entropy"] = UncertaintyScoring(task, f"{prefix}entropy")
            if members:
                check_members(task, members)
                self.scorings[f"{prefix}disagreement"] = UncertaintyScoring(task, f"{prefix}disagreement", members)
        return dict(self.scorings)

    def init_strategies(self) -> dict[str, Any]:
        """One per score, and Label's own two; MONAI Label makes them before the scores."""
        self.init_scoring_methods()
        return {"random": Random(), "first": First(), **{name: MostUncertain(s) for name, s in self.scorings.items()}}

    def infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> Any:
        """As MONAI Label does, with errors that say what is wrong."""
        image = request.get("image")
        known = not isinstance(image, str) or Path(image).exists() or self.datastore().get_image_uri(image)
        if request.get("model") in self.inferences and not known:
            raise not_found(f"There is no image {Path(str(image)).name!r}")
        with explained():
            return super().infer(request, datastore)

    def train(self, request: dict[str, Any]) -> Any:
        """As MONAI Label does, with errors that say what is wrong."""
        with explained():
            return super().train(request)

    def scoring(self, request: dict[str, Any], datastore: Datastore | None = None) -> Any:
        """As MONAI Label does, with errors that say what is wrong."""
        with explained():
            return super().scoring(request, datastore)

    def next_sample(self, request: dict[str, Any]) -> Any:
        """As MONAI Label does, with errors that say what is wrong."""
        with explained():
            return super().next_sample(request)

    def bundle_path(self, model: str | None) -> Any:
        """The folder of a bundle; asked for just before a process is begun to train it, so here is where to object."""
        if model is not None and model not in self._trainers:
            raise not_found(f"There is no training of {model!r}, but of {', '.join(self._trainers) or 'none'}")
        return super().bundle_path(model)


def find_bundles(folder: Path, names: str) -> dict[str, Path]:
    """The bundles to serve.

    Args:
        folder: that holds them.
        names: which, separated by commas; all if empty.

    Raises:
        SettingError: there is none, or not one of that name.
    """
    there = {path.name: path for path in sorted(folder.glob("*")) if (path / "configs" / "metadata.json").is_file()}
    wanted = [name.strip() for name in names.split(",") if name.strip()] or list(there)
    absent = [name for name in wanted if name not in there]
    if absent or not wanted:
        raise SettingError(f"bundles in {folder.name}", f"no {', '.join(absent) or 'bundle'}", "models")
    return {name: there[name] for name in wanted}
