"""A target as a configuration describes it: its network, and its images as that network takes them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.data import DataLoader, Dataset
from monai.transforms import Compose, EnsureChannelFirstd, EnsureTyped, LoadImaged, NormalizeIntensityd, Resized
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from monai_medmerge.bundle.configuration import SUFFIXES, explained, nameless_reason, read_configuration
from monai_medmerge.bundle.definition.networks import NETWORK_IDS, build_network
from monai_medmerge.data.budget import label_budget
from monai_medmerge.data.datasets import DATALIST, load_datalist
from monai_medmerge.errors import DatasetError, SettingError
from monai_medmerge.transforms import MedicalImageReader


def read_target(description: str, data: str | os.PathLike[str], size: Sequence[int] | None) -> tuple[nn.Module, Any]:
    """The network and the transform from a datalist's entry to what it takes.

    Args:
        description: of the network, as `build_network` takes it. A configuration also gives its `preprocessing`, and
            is told the folder as its `dataset_dir`, and its own bundle as its `bundle_root`.
        data: folder with a `dataset.json`.
        size: of images, where there is no `preprocessing`; they become that size, as many channels as the network
            takes, and zero mean and unit deviation.

    Raises:
        DatasetError: the folder has no `dataset.json`.
        SettingError: no network comes of it, or it has no `preprocessing` and no size was given.
    """
    if not Path(data, DATALIST).is_file():
        raise DatasetError(f"a file {DATALIST}", "none", Path(data).name)
    file = Path(description)
    if file.suffix.lower() not in SUFFIXES:
        network, steps = build_network(description), None
    else:
        network, steps = _from_configuration(file, Path(data))
    if steps is not None:
        return network, steps if callable(steps) else Compose(steps)
    if size is None:
        raise SettingError("--size, as there is no 'preprocessing' in a configuration", "none", file.name)
    first = next((module for module in network.modules() if isinstance(module, _ConvNd)), None)
    if min(size) < 1 or (first is not None and len(size) != len(first.kernel_size)):
        sizes = "positive sizes" if first is None else f"{len(first.kernel_size)} positive sizes"
        raise SettingError(f"{sizes} of an image", " ".join(map(str, size)), "--size")
    return network, _usual(size, 1 if first is None else first.in_channels)


def labelled_batches(
    data: str | os.PathLike[str], transform: Any, section: str, labels: int | None, seed: int, batch_size: int = 16
) -> list[dict[str, Tensor]]:
    """Labelled images in memory, classes in proportion.

    Args:
        data: folder with a `dataset.json`.
        transform: from `read_target`.
        section: of the `dataset.json`.
        labels: how many images; all if None.
        seed: of the draw.
        batch_size: images in a batch.

    Raises:
        DatasetError: as `load_datalist` and `label_budget`, or an image cannot be read; it is told by its number.
        SettingError: the transform makes images of several shapes, or none.
    """
    every = [{**item, "number": number} for number, item in enumerate(load_datalist(data, section))]
    items = label_budget(every, labels, seed)
    loader = DataLoader(Dataset(items, _Prepared(transform, section)), batch_size=batch_size, num_workers=0)
    with explained("a tensor `image` of one shape for all images", "preprocessing"):
        return [{"image": batch["image"], "label": batch["label"]} for batch in loader]


class _Prepared:
    """A transform whose errors tell the image by its number, as a file's name may be a patient's."""

    def __init__(self, transform: Any, section: str) -> None:
        self.transform = transform
        self.section = section

    def __call__(self, item: dict[str, Any]) -> dict[str, Tensor]:
        try:
            prepared = self.transform({"image": item["image"], "label": item["label"]})
        # Readers and a configuration's own transforms raise anything, and MONAI wraps it.
        except Exception as error:
            found, where = nameless_reason(error), f"{DATALIST}, {self.section}[{item['number']}]"
            raise DatasetError("an image that can be read and prepared", found, where) from error
        return {"image": prepared["image"], "label": item["label"]}


def _from_configuration(file: Path, data: Path) -> tuple[nn.Module, Any]:
    parser = read_configuration(file)
    with explained("a configuration whose network and preprocessing can be made", file.name):
        for key, value in (("dataset_dir", str(data)), ("bundle_root", str(file.absolute().parent.parent))):
            if key in parser:
                parser[key] = value
        name = next((key for key in NETWORK_IDS if key in parser), "")
        network = parser.get_parsed_content(name) if name else None
        network = build_network(network) if isinstance(network, str) else network
        steps = parser.get_parsed_content("preprocessing") if "preprocessing" in parser else None
    if not isinstance(network, nn.Module):
        found = f"a {type(network).__name__}" if name else "none"
        raise SettingError(f"a network under {' or '.join(NETWORK_IDS)}", found, file.name)
    return network, steps


def _usual(size: Sequence[int], channels: int) -> Compose:
    def fit(image: Tensor) -> Tensor:
        return image if len(image) == channels else image.mean(0, keepdim=True).expand(channels, *image.shape[1:])

    return Compose(
        [
            LoadImaged(keys="image", reader=MedicalImageReader),
            EnsureChannelFirstd(keys="image"),
            Resized(keys="image", spatial_size=tuple(size), anti_aliasing=True),
            NormalizeIntensityd(keys="image"),
            EnsureTyped(keys="image", track_meta=False),
            lambda item: {**item, "image": fit(item["image"])},
        ]
    )
