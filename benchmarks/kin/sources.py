"""Make the networks of the family and say what they know: macro F1 on validation images of their own task.

    python -m benchmarks.kin.sources --output benchmarks/results/kin

The same from the same seed; about two minutes each on one core. Weights are kept under `outputs/`, 14 MB each, and are
not part of the repository.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

import torch

from benchmarks.kin.data import KIN, TARGETS, kin
from benchmarks.transfer.batches import plain
from monai_medmerge.bundle import write_json
from monai_medmerge.evaluation import macro_f1, predict
from monai_medmerge.files import weights_sha256
from monai_medmerge.sources.filling import load_into


def figures(name: str) -> dict[str, str | int | float]:
    """What a source was trained on, and what it knows of it."""
    source, target = kin(name), TARGETS[KIN[name]]
    network = load_into(target.network(), source)
    validation = target.part("validation")
    said, _ = predict(network, plain(*validation, 250))
    return {
        "source": name,
        "images": target.name,
        "training_images": len(target.part("training").labels),
        "classes": target.classes,
        "validation_images": len(validation.labels),
        "f1": round(macro_f1(said.argmax(1).numpy(), validation.labels.numpy(), target.classes), 4),
        "accuracy": round(float((said.argmax(1) == validation.labels).float().mean()), 4),
        "weights_sha256": weights_sha256(network),
    }


def main() -> None:
    """Train what is not there yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/kin"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger().setLevel(logging.WARNING)
    rows = []
    for name in KIN:
        rows.append(figures(name))
        print(json.dumps(rows[-1]), flush=True)
    arguments.output.mkdir(parents=True, exist_ok=True)
    write_json(arguments.output / "sources.json", {"sources": rows})


if __name__ == "__main__":
    main()
