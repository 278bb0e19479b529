"""A bundle's own training on submitted labels: from a merge of its sources, or from weights it has."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import monai.bundle
from monai.handlers import CheckpointLoader
from monailabel.interfaces.datastore import Datastore
from monailabel.tasks.train.bundle import BundleTrainTask

from monai_medmerge.errors import DatasetError, SettingError, causes
from monai_medmerge.label.bundles import TRAINED, class_names, read_metadata, task_type, weights_files
from monai_medmerge.label.door.checks import refuse_evaluated
from monai_medmerge.label.labels import class_number

logger = logging.getLogger(__name__)
STATS = "train_stats.json"
# The overlay is a configuration: its file is handed to MONAI, nothing of its room is imported.
OVERLAY = files("monai_medmerge") / "bundle" / "overlay" / "medmerge.json"


class MedMergeTrainTask(BundleTrainTask):
    """Label's task for bundles, that also merges, and whose result the next inference takes.

    Beyond Label's own options a request may have

    - `merge`: true learns a merge of the bundle's sources on the labels, and the training starts from it; nothing is
      loaded over it;
    - `sources`: their file names in the bundle's `models/`, separated by commas; all `.safetensors` there unless given;
    - `coefficient_epochs`: for how long.

    `pretrained` true starts from `model_filename`, false from whatever the bundle's `train.json` itself starts from.
    The weights at the end go to `models/model_label.pt`. Labels of a classification are JSON files, see `class_number`.

    Args:
        path: the bundle's folder.
        conf: of the app.

    Raises:
        SettingError: `metadata.json` is absent or names another task.
    """

    def __init__(self, path: str, conf: Mapping[str, str]) -> None:
        self.metadata = read_metadata(Path(path))
        self.task = task_type(self.metadata, Path(path).name)
        super().__init__(path, dict(conf), load_strict=True)

    @property
    def models(self) -> Path:
        """The folder of weights."""
        return Path(self.bundle_path) / "models"

    def config(self) -> dict[str, Any]:
        """What a client can choose, with defaults."""
        sources = ",".join(sorted(file.name for file in self.models.glob("*.safetensors")))
        offered = [file.name for file in weights_files(Path(self.bundle_path))]
        # Every training starts from the bundle's weights unless told otherwise, so that it can be repeated.
        offered.sort(key=lambda name: name == TRAINED)
        options = {"merge": False, "sources": sources, "coefficient_epochs": 5, "model_filename": offered}
        return {**super().config(), **options}

    def stats(self) -> dict[str, Any]:
        """Of the last training: `start`, `epoch`, `max_epochs`, `loss` of each epoch."""
        file = self.models / STATS
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Train.

        Args:
            request: options; see `config`.
            datastore: with the labels.

        Returns:
            What `stats` tells.

        Raises:
            DatasetError: there are too few labels, or one cannot be used.
            SettingError: an option cannot be met.
        """
        flags = {"merge": False, "pretrained": True}
        request = {**request, **{name: _truth(request, name, default) for name, default in flags.items()}}
        request["max_epochs"] = int(_number(request, "max_epochs", 50))
        if request["merge"]:
            # The overlay learns coefficients and starts the training in one process; Label's loader stays out.
            request = {**request, "pretrained": False, "multi_gpu": False, "force_multi_gpu": False}
        refuse_evaluated(request, "training")
        try:
            super().__call__(request, datastore)
        except RuntimeError as error:
            # The last line of a training's output is all that many clients show.
            *_, root = causes(error)
            raise root from error
        return self.stats()

    def run_single_gpu(self, request: dict[str, Any], overrides: dict[str, Any]) -> None:
        """Run the bundle's training, under the overlay if a merge is wanted."""
        configs = [self.bundle_config_path]
        if request.get("merge", False):
            configs.append(str(OVERLAY))
            sources = self._sources(request)
            overrides["sources"] = sources
            overrides["coefficient_epochs"] = int(_number(request, "coefficient_epochs", 5))
            # As in any training here, the bundle's own savers write where they always do.
            overrides["medmerge::overwrite"] = True
            record = overrides[self.const.key_train_handlers()][-1]
            record["start"] = f"merge of {', '.join(Path(source).name for source in sources)}"
        monai.bundle.run(
            run_id=request.get("run_id") or "run", init_id=None, final_id=None, meta_file=self.bundle_metadata_path,
            config_file=configs, **overrides,
        )  # fmt: skip

    def _fetch_datalist(self, request: dict[str, Any], datastore: Datastore) -> list[dict[str, Any]]:
        # One server's images may serve several bundles: classes come as JSON, label maps do not.
        classes = self.task == "classification"
        labelled = [pair for pair in datastore.datalist() if pair["label"].lower().endswith(".json") == classes]
        names = class_names(self.metadata)
        return [
            {"image": pair["image"], "label": class_number(Path(pair["label"]), names) if classes else pair["label"]}
            for pair in labelled
        ]

    def _partition_datalist(self, datalist: list[Any], request: dict[str, Any], shuffle: bool = False) -> Any:
        share = _number(request, "val_split", 0.2)
        if share != -1 and not 0 < share < 1:
            raise SettingError(
                "-1, for the bundle's own validation data, or a share between 0 and 1", f"{share}", "val_split"
            )
        needed = 1 if share == -1 else 2
        if len(datalist) < needed:
            raise DatasetError(f"{needed} or more images with a submitted label", f"{len(datalist)}", "datastore")
        if share == -1:
            return datalist, None
        validation = min(max(1, round(share * len(datalist))), len(datalist) - 1)
        return datalist[:-validation], datalist[-validation:]

    def _load_checkpoint(self, model_pytorch: str, pretrained: bool, train_handlers: list[Any]) -> None:
        if not pretrained:
            return
        if not Path(model_pytorch).is_file():
            offered = ", ".join(file.name for file in weights_files(Path(self.bundle_path)))
            raise SettingError(f"one of {offered}", Path(model_pytorch).name, "model_filename")
        super()._load_checkpoint(model_pytorch, pretrained, train_handlers)

    def _update_overrides(self, overrides: dict[str, Any]) -> dict[str, Any]:
        """Add the record of the training; let what `max_epochs` and `class_names` stand for follow."""
        handlers = overrides[self.const.key_train_handlers()]
        loaders = [h for h in handlers if h.get("_target_") == CheckpointLoader.__name__]
        record = {
            "_target_": "monai_medmerge.label.progress.TrainingRecord",
            "weights": str(self.models / TRAINED),
            "stats": str(self.models / STATS),
            "start": Path(str(loaders[0]["load_path"])).name if loaders else "as train.json has it",
        }
        overrides[self.const.key_train_handlers()] = [*handlers, record]
        key = self.const.key_train_trainer_max_epochs()
        epochs = self.bundle_config.get(key)
        if isinstance(epochs, str) and epochs.startswith("@"):
            # A schedule of the learning rate refers to the same number.
            overrides[epochs[1:]] = overrides[key]
        if self.bundle_config.get("class_names") is not None:
            overrides["class_names"] = class_names(self.metadata)
        return overrides

    def _sources(self, request: dict[str, Any]) -> list[str]:
        names = [name.strip() for name in str(request.get("sources") or self.config()["sources"]).split(",")]
        absent = [name for name in names if not name or Path(name).name != name or not (self.models / name).exists()]
        if absent:
            raise SettingError("files in the bundle's models folder", ", ".join(map(repr, absent)), "sources")
        return [str(self.models / name) for name in names]


def _truth(request: Mapping[str, Any], name: str, default: bool) -> bool:
    """An option that is true or false; forms send words."""
    value = request.get(name, default)
    word = str(value).lower()
    if word not in ("true", "false"):
        raise SettingError("true or false", repr(value), name)
    return word == "true"


def _number(request: Mapping[str, Any], name: str, default: float) -> float:
    """An option that is a number; forms send digits."""
    value = request.get(name, default)
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise SettingError("a number", repr(value), name) from error
    if not math.isfinite(number):
        raise SettingError("a finite number", repr(value), name)
    return number
