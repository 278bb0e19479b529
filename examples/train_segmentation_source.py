"""Train a source network of bundles/medmerge_segmentation on hippocampus volumes that no target uses.

    python examples/train_segmentation_source.py --source whole_hippocampus \
        --data "$MEDMERGE_DATA/hippocampus" --output whole_hippocampus.safetensors

`whole_hippocampus` tells the hippocampus from the background; `reconstruction` restores volumes in which boxes were
blanked and noise was added, and sees no label at all.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from hippocampus import split
from monai.bundle import ConfigParser
from monai.data import CacheDataset, DataLoader
from monai.losses import DiceCELoss
from monai.networks.nets import SegResNet
from monai.transforms import Compose, CopyItemsd, DeleteItemsd, Lambdad, RandCoarseDropoutd, RandGaussianNoised
from monai.utils import set_determinism
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from monai_medmerge.bundle import volume_dice
from monai_medmerge.files import whole_file, write_json

CONFIG = Path(__file__).parent.parent / "bundles" / "medmerge_segmentation" / "configs" / "merge.json"
SEEDS = {"whole_hippocampus": 1, "reconstruction": 2}
FACTS = {
    "data": "Medical Segmentation Decathlon, Task04 Hippocampus (MR crops, 1 mm)",
    "licence": "CC BY-SA 4.0",
}
RATE = 2e-3


def build_network(channels: int) -> SegResNet:
    """The network that all sources share."""
    return SegResNet(3, init_filters=8, in_channels=1, out_channels=channels, blocks_down=(1, 2, 2), blocks_up=(1, 1))


def loaders(source: str, folder: Path) -> tuple[DataLoader, DataLoader]:
    """Training patches, and whole validation volumes, prepared as the bundle prepares them."""
    parser = ConfigParser()
    parser.read_config(CONFIG)
    preprocessing = parser.get_parsed_content("preprocessing")
    augmentation = parser.get_parsed_content("augmentation")
    target: list[Any] = [Lambdad("label", lambda label: (label > 0).to(label.dtype))]
    damage: list[Any] = []
    if source == "reconstruction":
        target = []
        damage = [
            DeleteItemsd("label"),
            CopyItemsd("image", names="label"),
            RandCoarseDropoutd("image", 6, spatial_size=5, fill_value=0, max_holes=12, max_spatial_size=12, prob=1.0),
            RandGaussianNoised("image", std=0.3, prob=1.0),
        ]
    found = split(folder)

    def items(names: list[str]) -> list[dict[str, str]]:
        return [{"image": str(folder / "imagesTr" / n), "label": str(folder / "labelsTr" / n)} for n in names]

    training = CacheDataset(
        items(found.source), Compose([*preprocessing, *target, *augmentation, *damage]), num_workers=1, progress=False
    )
    validation = CacheDataset(
        items(found.validation), Compose([*preprocessing, *target, *damage]), num_workers=1, progress=False
    )
    return DataLoader(training, batch_size=4, shuffle=True), DataLoader(validation, batch_size=1)


def train(source: str, folder: Path, epochs: int) -> tuple[nn.Module, float]:
    """The trained network and its validation score: Dice, or the share of the variance that is restored."""
    set_determinism(SEEDS[source])
    reconstructs = source == "reconstruction"
    network = build_network(1 if reconstructs else 2)
    training, validation = loaders(source, folder)
    loss = nn.MSELoss() if reconstructs else DiceCELoss(to_onehot_y=True, softmax=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=epochs * len(training))
    for _ in tqdm(range(epochs), desc=source, disable=None):
        for batch in training:
            optimizer.zero_grad()
            loss(network(batch["image"]), batch["label"]).backward()
            optimizer.step()
            schedule.step()
    network.eval()
    if not reconstructs:
        return network, float(volume_dice(network, validation, padded, 2).mean())
    with torch.no_grad():
        errors = [nn.functional.mse_loss(padded(b["image"], network), b["label"]) for b in validation]
    return network, 1 - float(torch.stack(errors).mean())


def padded(image: Tensor, network: nn.Module) -> Tensor:
    """Scores of a volume whose sides need not be multiples of four."""
    pad = [side for size in reversed(image.shape[2:]) for side in (0, -size % 4)]
    found: Tensor = network(nn.functional.pad(image, pad))
    return found[:, :, : image.shape[2], : image.shape[3], : image.shape[4]]


def main() -> None:
    """Train and write one source."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", choices=SEEDS, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=20)
    arguments = parser.parse_args()
    network, score = train(arguments.source, arguments.data, arguments.epochs)
    facts = {**FACTS, "task": arguments.source, "seed": str(SEEDS[arguments.source]), "epochs": str(arguments.epochs)}
    facts["validation"] = f"{score:.3f}"
    with whole_file(arguments.output) as part:
        save_file(network.state_dict(), part, metadata=facts)
    write_json(arguments.output.with_suffix(".json"), facts)
    print(f"{arguments.output.name}: validation {score:.3f}")


if __name__ == "__main__":
    main()
