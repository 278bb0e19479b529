"""Train one source network: a small ResNet-18 that has learned natural images, chest X-rays or brain MRI.

    python examples/train_source.py --source chest_xray --data "$MEDMERGE_DATA" --output chest_xray.safetensors

The network of the best validation epoch is written as safetensors, with what made it as metadata, and a JSON file
beside it holds the same and the macro F1 of every epoch. The validation images are taken from the training split,
whole patients where the data names them; the test split is never used.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ignite.engine import Engine, Events
from ignite.metrics import Fbeta
from monai.data import CacheDataset, DataLoader
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import CheckpointSaver, LrScheduleHandler, ValidationHandler
from monai.networks.nets import ResNet
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    NormalizeIntensityd,
    RandAffined,
    RandFlipd,
    RandGaussianNoised,
    RandScaleIntensityd,
    RandShiftIntensityd,
    Resized,
)
from monai.utils import set_determinism
from PIL import Image
from safetensors.torch import save
from torch import Tensor, nn

from monai_medmerge.files import whole_file

IMAGE_SIZE = 64
BATCH_SIZE = 64
PEAK_LEARNING_RATE = 4e-3
VALIDATION_SHARE = 0.15


@dataclass(frozen=True)
class Images:
    """Labelled grey images of one training split.

    Args:
        images: uint8, (image, row, column).
        labels: int64, (image,).
        groups: (image,), equal for images of one patient.
        class_names: one name per label.
    """

    images: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    class_names: list[str]


def read_natural(path: Path) -> Images:
    """The training split of the CIFAR-10 subset, in grey (ITU-R 601 luma, as Pillow converts)."""
    with np.load(path, allow_pickle=False) as arrays:
        images = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in arrays["train_images"]])
        labels = arrays["train_labels"].ravel().astype(np.int64)
        return Images(images, labels, np.arange(len(labels)), arrays["class_names"].tolist())


def read_radiology(path: Path) -> Images:
    """The training split of a 64 px radiology archive; an archive without `group` counts every image as a patient."""
    with np.load(path, allow_pickle=False) as arrays:
        train = arrays["split"] == "train"
        groups = arrays["group"] if "group" in arrays else np.arange(len(train))
        return Images(arrays["images"][train], arrays["labels"][train], groups[train], arrays["class_names"].tolist())


@dataclass(frozen=True)
class Recipe:
    """Where a source's images come from and how they may vary.

    Args:
        file: archive below the data folder.
        read: reader of that archive.
        data: name of the data set, for the provenance.
        licence: licence of the images, as their origin states it.
        seed: default seed; every source starts from its own.
        degrees, zoom: half ranges of the random rotation and zoom.
        shift: half range of the random shift in pixels.
    """

    file: str
    read: Callable[[Path], Images]
    data: str
    licence: str
    seed: int
    degrees: float
    zoom: float
    shift: float


RECIPES = {
    "natural": Recipe(
        file="natural_32/cifar10_subset_32.npz",
        read=read_natural,
        data="CIFAR-10, subset of 6000 training images, grey",
        licence="none stated; research use",
        seed=1,
        degrees=0.0,
        zoom=0.0,
        shift=8.0,
    ),
    "chest_xray": Recipe(
        file="classification_64/kermany_chest_xray_64.npz",
        read=read_radiology,
        data="Kermany et al. chest X-ray (normal, bacterial, viral), 64 px, exact duplicates removed",
        licence="CC BY 4.0",
        seed=2,
        degrees=10.0,
        zoom=0.1,
        shift=4.0,
    ),
    "brain_mri": Recipe(
        file="classification_64/brain_tumor_mri_64.npz",
        read=read_radiology,
        data="Brain Tumor MRI Dataset (glioma, meningioma, no tumour, pituitary), 64 px, exact duplicates removed",
        licence="CC0 (as stated on its mirror)",
        seed=3,
        degrees=10.0,
        zoom=0.1,
        shift=4.0,
    ),
}


def build_network(num_classes: int) -> ResNet:
    """The ResNet-18 that all sources share: widths 16 to 128, one grey channel, 0.7 million parameters."""
    return ResNet(
        block="basic",
        layers=[2, 2, 2, 2],
        block_inplanes=[16, 32, 64, 128],
        spatial_dims=2,
        n_input_channels=1,
        conv1_t_size=7,
        conv1_t_stride=2,
        num_classes=num_classes,
    )


def split_by_group(images: Images, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation indices: about `share` of each class held out, no group on both sides.

    A group counts for the class most of its images carry.
    """
    groups, members = np.unique(images.groups, return_inverse=True)
    votes = np.zeros((len(groups), len(images.class_names)), dtype=np.int64)
    np.add.at(votes, (members, images.labels), 1)
    group_class = votes.argmax(axis=1)
    rng = np.random.default_rng(seed)
    held_out = np.zeros(len(groups), dtype=bool)
    for label in range(len(images.class_names)):
        candidates = rng.permutation(np.flatnonzero(group_class == label))
        held_out[candidates[: round(share * len(candidates))]] = True
    return np.flatnonzero(~held_out[members]), np.flatnonzero(held_out[members])


def preprocessing() -> list[Callable]:
    """What the bundle does to an image once it is read."""
    return [
        EnsureChannelFirstd(keys="image", channel_dim="no_channel"),
        Resized(keys="image", spatial_size=(IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", anti_aliasing=True),
        NormalizeIntensityd(keys="image"),
    ]


def augmentation(recipe: Recipe) -> list[Callable]:
    """Light variations; the first spatial axis runs from left to right, as MONAI reads image files."""
    return [
        RandFlipd(keys="image", prob=0.5, spatial_axis=0),
        RandAffined(
            keys="image",
            prob=0.8,
            rotate_range=np.deg2rad(recipe.degrees),
            scale_range=(recipe.zoom, recipe.zoom),
            translate_range=recipe.shift,
            padding_mode="border",
        ),
        RandScaleIntensityd(keys="image", factors=0.2, prob=0.5),
        RandShiftIntensityd(keys="image", offsets=0.2, prob=0.5),
        RandGaussianNoised(keys="image", std=0.1, prob=0.25),
    ]


def build_loader(images: Images, indices: np.ndarray, transforms: list[Callable], train: bool) -> DataLoader:
    """Batches of the chosen images; what is not random is computed once and cached."""
    # MONAI's image readers return (column, row); arrays are turned the same way, so that kernels learned here meet
    # images the way the bundle will show them.
    records = [{"image": images.images[i].T.astype(np.float32), "label": int(images.labels[i])} for i in indices]
    dataset = CacheDataset(records, transform=Compose(transforms), num_workers=1, progress=False)
    return DataLoader(dataset, batch_size=BATCH_SIZE, shuffle=train, drop_last=train, num_workers=0)


def predictions(output: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """What ignite's metrics want of an engine's output."""
    return output["pred"], output["label"]


def fit(network: nn.Module, training: DataLoader, validation: DataLoader, epochs: int) -> list[float]:
    """Train with AdamW under a one-cycle schedule and leave the network at its best validation epoch.

    Returns:
        macro F1 on the validation images after every epoch.
    """
    scores: list[float] = []
    optimizer = torch.optim.AdamW(network.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=PEAK_LEARNING_RATE, total_steps=epochs * len(training) + 1
    )

    with tempfile.TemporaryDirectory() as folder:
        evaluator = SupervisedEvaluator(
            device=torch.device("cpu"),
            val_data_loader=validation,
            network=network,
            key_val_metric={"macro_f1": Fbeta(beta=1.0, output_transform=predictions)},
            val_handlers=[
                CheckpointSaver(folder, {"network": network}, save_key_metric=True, key_metric_filename="best.pt")
            ],
            decollate=False,
        )
        trainer = SupervisedTrainer(
            device=torch.device("cpu"),
            max_epochs=epochs,
            train_data_loader=training,
            network=network,
            optimizer=optimizer,
            loss_function=nn.CrossEntropyLoss(label_smoothing=0.05),
            train_handlers=[
                LrScheduleHandler(schedule, print_lr=False, epoch_level=False),
                ValidationHandler(interval=1, validator=evaluator),
            ],
            decollate=False,
        )

        @trainer.on(Events.EPOCH_COMPLETED)
        def report(engine: Engine) -> None:
            scores.append(float(evaluator.state.metrics["macro_f1"]))
            print(f"epoch {engine.state.epoch}/{epochs}: validation macro F1 {scores[-1]:.3f}", flush=True)

        trainer.run()
        best = torch.load(Path(folder, "best.pt"), weights_only=True)
    network.load_state_dict(best)
    return scores


def serialise(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file whose bytes follow from its content alone.

    The safetensors library writes metadata in a new random order every time, so the header is written again, sorted.
    """
    raw = save(dict(tensors), dict(metadata))
    end = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors that follow stay aligned
    return len(text).to_bytes(8, "little") + text + raw[end:]


def write_whole(path: Path, content: bytes) -> None:
    """A file of that name is always a whole one."""
    with whole_file(path) as part:
        part.write_bytes(content)


def train_source(source: str, data: Path, output: Path, epochs: int, seed: int) -> float:
    """Train one source and write it; returns the validation macro F1 of the network written."""
    torch.set_num_threads(1)  # sums over more threads add up in another order
    recipe = RECIPES[source]
    set_determinism(seed, use_deterministic_algorithms=True)
    images = recipe.read(data / recipe.file)
    training, validation = split_by_group(images, VALIDATION_SHARE, seed)
    network = build_network(len(images.class_names))
    scores = fit(
        network,
        build_loader(images, training, preprocessing() + augmentation(recipe), train=True),
        build_loader(images, validation, preprocessing(), train=False),
        epochs,
    )
    provenance = {
        "source": source,
        "data": recipe.data,
        "licence": recipe.licence,
        "seed": str(seed),
        "epochs": str(epochs),
        "validation_macro_f1": f"{max(scores):.4f}",
        "num_classes": str(len(images.class_names)),
        "class_names": json.dumps(images.class_names),
    }
    write_whole(output, serialise(network.state_dict(), provenance))
    history = {"images": {"training": len(training), "validation": len(validation)}, "macro_f1_per_epoch": scores}
    write_whole(output.with_suffix(".json"), (json.dumps(provenance | history, indent=2) + "\n").encode())
    return max(scores)


def command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train one source network of the classification bundle.")
    parser.add_argument("--source", choices=sorted(RECIPES), required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the archives of RECIPES")
    parser.add_argument("--output", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, help="default: the source's own")
    return parser


if __name__ == "__main__":
    arguments = command_line().parse_args()
    logging.getLogger("ignite").setLevel(logging.WARNING)
    best_f1 = train_source(
        arguments.source,
        arguments.data,
        arguments.output,
        arguments.epochs,
        RECIPES[arguments.source].seed if arguments.seed is None else arguments.seed,
    )
    print(f"{arguments.output}: validation macro F1 {best_f1:.3f}")
