"""Start a bundle's own training from merged sources, without a change to the bundle, and export what comes of it.

`python -m monai.bundle init_bundle` makes the folder, as a team would have made it; a train.json of its own kind
follows, on generated images. Two networks trained elsewhere are the sources. Then the three commands that matter:

    python -m monai_medmerge overlay --to BUNDLE
    python -m monai.bundle run --config_file "['configs/train.json','medmerge.json']" --sources "['a.pt','b.pt']"
    python -m monai_medmerge export --network BUNDLE/configs/train.json --weights BUNDLE/medmerge/model.pt ...
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import torch
from monai.bundle import init_bundle
from monai.networks.nets import DenseNet

from monai_medmerge.__main__ import main as monai_medmerge

NETWORK = {
    "_target_": "monai.networks.nets.DenseNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 2,
    "init_features": 16, "growth_rate": 8, "block_config": [2, 2],
}  # fmt: skip
TRAIN = {
    "imports": ["$import glob"],
    "files": "$sorted(glob.glob(@bundle_root + '/data/*.pt'))",
    "bundle_root": ".",
    "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
    "network_def": NETWORK,
    "network": "$@network_def.to(@device)",
    "optimizer": {"_target_": "torch.optim.Adam", "params": "$@network.parameters()", "lr": 0.001},
    "train": {
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': file, 'label': int('bright' in file)} for file in @files]",
            "transform": {
                "_target_": "Compose",
                "transforms": [
                    {"_target_": "Lambdad", "keys": "image", "func": "$lambda f: torch.load(f, weights_only=True)"},
                    {"_target_": "RandFlipd", "keys": "image", "prob": 0.5},
                ],
            },
        },
        "dataloader": {"_target_": "DataLoader", "dataset": "@train::dataset", "batch_size": 8, "shuffle": True},
        "handlers": [
            {"_target_": "CheckpointSaver", "save_dir": "$@bundle_root + '/models'",
             "save_dict": {"model": "@network"}, "save_final": True, "final_filename": "model.pt"},
        ],
        "trainer": {
            "_target_": "SupervisedTrainer", "max_epochs": 2, "device": "@device",
            "train_data_loader": "@train::dataloader", "network": "@network", "optimizer": "@optimizer",
            "loss_function": {"_target_": "torch.nn.CrossEntropyLoss"}, "train_handlers": "@train::handlers",
        },
    },
    "initialize": ["$monai.utils.set_determinism(seed=1)"],
    "run": ["$@train::trainer.run()"],
}  # fmt: skip


def squares(seed: int, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy images, the second half with a bright square, and their classes."""
    generator = torch.Generator().manual_seed(seed)
    images, labels = noise * torch.randn(32, 1, 32, 32, generator=generator), torch.arange(32) // 16
    images[16:, :, 8:20, 8:20] += 1
    return images, labels


def train_source(path: Path, seed: int, noise: float) -> None:
    """A network as another team would have trained it."""
    torch.manual_seed(seed)
    network = DenseNet(**{key: value for key, value in NETWORK.items() if key != "_target_"})
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    images, labels = squares(seed, noise)
    for _ in range(10):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    torch.save(network.state_dict(), path)


def run_overlay(bundle: Path, sources: list[Path]) -> None:
    """What a team types in its bundle's folder."""
    files, listed = "['configs/train.json','medmerge.json']", str([str(path) for path in sources])
    command = ["-m", "monai.bundle", "run", "--config_file", files, "--sources", listed, "--coefficient_epochs", "2"]
    print("$ python", *command, flush=True)
    subprocess.run([sys.executable, *command], cwd=bundle, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, default=Path("outputs/overlay"), help="to be made")
    work = parser.parse_args().folder.absolute()
    work.mkdir(parents=True)
    bundle = work / "bundle"
    init_bundle(bundle)
    (bundle / "configs" / "train.json").write_text(json.dumps(TRAIN, indent=4))
    (bundle / "data").mkdir()
    for number, (image, label) in enumerate(zip(*squares(seed=9, noise=0.5), strict=True)):
        torch.save(image, bundle / "data" / f"{'bright' if label else 'plain'}_{number}.pt")
    for seed, name in enumerate(("a", "b")):
        train_source(work / f"{name}.pt", seed, noise=0.3 + 0.4 * seed)

    monai_medmerge(["overlay", "--to", str(bundle)])
    run_overlay(bundle, [work / "a.pt", work / "b.pt"])
    monai_medmerge([
        "export", "--network", str(bundle / "configs" / "train.json"), "--task", "classification",
        "--weights", str(bundle / "medmerge" / "model.pt"), "--output", str(work / "exported"),
        "--spatial-shape", "32", "32", "--classes", "plain", "bright",
    ])  # fmt: skip
    print((bundle / "medmerge" / "merge.json").read_text())


if __name__ == "__main__":
    main()
