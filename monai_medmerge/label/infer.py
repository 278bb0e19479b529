"""Answers of a bundle's network: label maps and classes."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.transforms import SaveClassificationd, SaveImaged
from monailabel.interfaces.tasks.infer_v2 import InferType
from monailabel.tasks.infer.bundle import BundleInferTask

from monai_medmerge.errors import DatasetError, MedMergeError, SettingError, UnsafeCheckpointError
from monai_medmerge.label.bundles import class_names, read_metadata, task_type, weights_files
from monai_medmerge.label.texts_aside import path_safe
from monai_medmerge.label.uncertainty import probabilities
from monai_medmerge.transforms import SaveDicomSegd, SaveSegmentationd

# A bundle's own inference writes files; here MONAI Label does.
WRITERS = (SaveImaged, SaveClassificationd, SaveSegmentationd, SaveDicomSegd)
# What MONAI Label writes a label map as; another image, as a DICOM series, gets the first.
LABEL_SUFFIXES = (".nii.gz", ".nii", ".nrrd")


class MedMergeInferTask(BundleInferTask):
    """Label's task for bundles, for segmentation and classification, with weights that must fit.

    It differs from Label's own in that

    - the task is the one `metadata.json` names (`format` of the output), not a word in the folder's name;
    - `Spacingd` works on MONAI 1.6 (see `PathSafe`);
    - weights with missing or strange tensors are an error;
    - what training here wrote last (`model_label.pt`) is used unless `model_filename` names another;
    - a DICOM series, given as a folder, gets its label map as NIfTI;
    - a classification is answered with the probability of every class;
    - an image that cannot be read is a `DatasetError`, or another `MedMergeError` that names it.

    Args:
        path: the bundle's folder.
        conf: of the app.

    Raises:
        SettingError: `metadata.json` is absent or names another task.
    """

    def __init__(self, path: str, conf: Mapping[str, str]) -> None:
        self.metadata = read_metadata(Path(path))
        task = task_type(self.metadata, Path(path).name)
        super().__init__(
            path, dict(conf), type=task, post_filter=WRITERS, load_strict=True,
            add_post_restore=task == InferType.SEGMENTATION,
        )  # fmt: skip
        self._loaded: str | None = None

    @property
    def folder(self) -> Path:
        """Of the bundle."""
        return Path(self.bundle_path)

    def config(self) -> dict[str, Any]:
        """What a client can choose; the first is the default."""
        files = [file.name for file in weights_files(self.folder)]
        return {**super().config(), "model_filename": files}

    def __call__(self, request: dict[str, Any], callbacks: Any = None) -> Any:
        """Infer.

        Args:
            request: `image`, the path of a file or of a folder with a DICOM series; `model_filename` optionally.
            callbacks: of MONAI Label.

        Returns:
            The path of the label map, None for a classification, and the rest of the answer.

        Raises:
            MedMergeError: there are no such weights, or the image cannot be used.
        """
        offered = self.config()["model_filename"]
        wanted = request.get("model_filename", offered)
        chosen = wanted if isinstance(wanted, str) else next(iter(wanted), None)
        # With TorchScript alone there is nothing to choose.
        if chosen is not None and chosen not in offered:
            raise SettingError(f"one of {', '.join(offered)}", chosen, "model_filename")
        if chosen is not None:
            request = {**request, "model_filename": chosen}
        return super().__call__(request, callbacks)

    def pre_transforms(self, data: Any = None) -> list[Callable[..., Any]]:
        """The bundle's preprocessing, as MONAI Label can run it."""
        return [path_safe(transform) for transform in super().pre_transforms(data)]

    def run_pre_transforms(self, data: dict[str, Any], transforms: Sequence[Callable[..., Any]]) -> Any:
        """Preprocess; whatever a reader or a transform says of a bad image becomes one kind of error."""
        try:
            return super().run_pre_transforms(data, transforms)
        except (RuntimeError, ValueError, OSError) as error:
            raise _named(error, data.get("image_path")) from error

    def run_inferer(self, data: dict[str, Any], convert_to_batch: bool = True, device: str = "cuda") -> Any:
        """Infer; an image that the network does not take, such as a picture where it takes volumes, is told as such."""
        try:
            return super().run_inferer(data, convert_to_batch, device)
        except (RuntimeError, ValueError) as error:
            raise _named(error, data.get("image_path")) from error

    def run_post_transforms(self, data: dict[str, Any], transforms: Sequence[Callable[..., Any]]) -> Any:
        """Postprocess a label map; scores of classes go to the client as the network gives them."""
        return data if self.type == InferType.CLASSIFICATION else super().run_post_transforms(data, transforms)

    def writer(self, data: dict[str, Any], extension: str | None = None, dtype: Any = None) -> Any:
        """Write a label map, or name the classes."""
        if self.type == InferType.CLASSIFICATION:
            return None, {"prediction": self._prediction(data[self.output_label_key])}
        path = str(data.get("image_path", ""))
        if not data.get("result_extension") and not path.lower().endswith(LABEL_SUFFIXES):
            extension = extension or LABEL_SUFFIXES[0]
        return super().writer(data, extension, dtype)

    def _get_network(self, device: str, data: Any) -> Any:
        chosen = data.get("model_filename") if data else None
        # Label keeps one network per device and tells files apart by their time alone.
        if chosen != self._loaded:
            self.clear_cache()
            self._loaded = chosen
        try:
            return super()._get_network(device, data)
        except (RuntimeError, KeyError, EOFError, pickle.UnpicklingError) as error:
            reason = " ".join(str(error).split())[:500]
            raise UnsafeCheckpointError(
                "weights of this network", reason, f"{self.folder.name}/models/{chosen}"
            ) from error

    def _prediction(self, scores: torch.Tensor) -> list[dict[str, Any]]:
        names = class_names(self.metadata)
        shares = probabilities(scores).tolist()
        if len(names) != len(shares):
            where = f"{self.folder.name}/configs/metadata.json, channel_def"
            raise SettingError(f"a name for each of {len(shares)} classes", f"{len(names)}", where)
        return [{"idx": number, "label": names[number], "score": share} for number, share in enumerate(shares)]


def _named(error: Exception, path: Any) -> MedMergeError:
    """The error of ours that caused another, or one that names the image."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MedMergeError):
            return cause
        cause = cause.__cause__ or cause.__context__
    name = Path(path).name if isinstance(path, str) else "image"
    first_line = next(iter(str(error).splitlines()), "").replace(str(path), name)
    return DatasetError(
        "an image that the bundle's preprocessing can use", f"{type(error).__name__}: {first_line}", name
    )
