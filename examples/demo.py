"""Merge three pretrained networks for a new task, and set that beside what each of them reaches alone.

    python examples/demo.py --data phantom --output outputs/demo_phantom
    python examples/demo.py --data breastmnist --output outputs/demo_breastmnist

Every line of the table is one run of bundles/medmerge_classification/configs/merge.json: with one source and no
coefficients to learn it is a linear probe, then fine-tuning (LP-FT); with all sources and no coefficients, their
uniform average. All take the same number of steps. An interrupted demo resumes; a finished one starts anew.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
from pathlib import Path

from monai.bundle import ConfigWorkflow
from phantom_lesions import write_phantoms

from monai_medmerge import MedMergeError
from monai_medmerge.bundle import prepare_medmnist, write_json

BUNDLE = Path(__file__).parent.parent / "bundles" / "medmerge_classification"
SOURCES = ("natural", "chest_xray", "brain_mri")
LABELS = 120
EPOCHS = {"coefficient_epochs": 8, "finetune_epochs": 32}
ALL_FINETUNING = {"coefficient_epochs": 0, "finetune_epochs": sum(EPOCHS.values())}


def prepare(data: str, output: Path) -> Path:
    """The target's images as a dataset folder."""
    dataset = output / "dataset"
    if data != "phantom":
        return prepare_medmnist(data, dataset)
    return dataset if dataset.exists() else write_phantoms(dataset, training=LABELS, validation=60, test=300, seed=0)


def run(
    dataset: Path, output: Path, sources: tuple[str, ...], epochs: dict[str, int], **options: object
) -> dict[str, dict[str, float]]:
    """One run of merge.json; what its stages reached, with the seconds of each."""
    configs = BUNDLE / "configs"
    workflow = ConfigWorkflow(
        config_file=str(configs / "merge.json"),
        meta_file=str(configs / "metadata.json"),
        logging_file=str(configs / "logging.conf"),
        workflow_type="train",
        bundle_root=str(BUNDLE),
        dataset_dir=str(dataset),
        output_dir=str(output),
        source_files=[str(BUNDLE / "models" / f"{name}.safetensors") for name in sources],
        labels=LABELS,
        **epochs,
        **options,
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    stages: dict[str, dict[str, float]] = json.loads((output / "metrics.json").read_text())["stages"]
    seconds = json.loads((output / "timings.json").read_text())
    return {name: {**stage, "seconds": seconds[name]} for name, stage in stages.items()}


def compare(dataset: Path, output: Path) -> dict[str, dict[str, float]]:
    """The table: a name for each method to what it reached."""
    rows, rivals = {}, output / "rivals"
    quick = {"rank": "off", "write_report": False}
    for name in SOURCES:
        rows[f"LP-FT from {name}"] = run(dataset, rivals / name, (name,), ALL_FINETUNING, **quick)["fine_tuned"]
    # The hardest to beat: it is the best one on the very images of the comparison.
    best = max(SOURCES, key=lambda name: rows[f"LP-FT from {name}"]["macro_f1"])
    uniform = run(dataset, rivals / "uniform", SOURCES, ALL_FINETUNING, start="uniform", **quick)
    rows["uniform average, fine-tuned"] = uniform["fine_tuned"]
    merged = run(dataset, output, SOURCES, EPOCHS, reference=str(rivals / best / "model.pt"))
    rows["merged, not fine-tuned"] = merged["merged"]
    rows["merged, fine-tuned"] = merged["fine_tuned"]
    return rows


def table(rows: dict[str, dict[str, float]]) -> str:
    """The rows as text."""
    lines = [f"{'method':<30}{'macro F1':>9}  {'95 % interval':<16}{'seconds':>8}{'parameters trained':>20}"]
    for name, row in rows.items():
        low, high = row["interval"]
        interval = f"{low:.3f} to {high:.3f}"
        lines.append(
            f"{name:<30}{row['macro_f1']:>9.3f}  {interval:<16}{row['seconds']:>8.1f}{row['parameters_trained']:>20,}"
        )
    return "\n".join(lines)


def main() -> int:
    """Prepare, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=["phantom", "breastmnist"], default="phantom")
    parser.add_argument("--output", type=Path, default=Path("outputs/demo"))
    arguments = parser.parse_args()
    output: Path = arguments.output
    if (output / "comparison.json").exists():
        shutil.rmtree(output)
    try:
        dataset = prepare(arguments.data, output)
        rows = compare(dataset, output)
    except MedMergeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write_json(output / "comparison.json", rows)
    logging.shutdown()
    cases = next(iter(rows.values()))["cases"]
    print(f"\n{arguments.data}: {LABELS} labelled images, {cases} test images, one seed\n\n{table(rows)}\n")
    print("One seed and few cases: differences that are small beside the intervals mean nothing.\n")
    for name, what in [
        ("model.pt", "weights of the merged, fine-tuned network"),
        ("metrics.json", "what each stage reached, with the sources' hashes"),
        ("contributions.png", "each source's share per layer"),
        ("report.html", "ranking, shares, training, and the network beside the best LP-FT, held against limits"),
        ("events", "for tensorboard --logdir"),
    ]:
        print(f"{output / name}: {what}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
