"""Merge two pretrained networks for a new segmentation task, and set that beside what each of them reaches alone.

    python examples/demo_segmentation.py --data phantom --output outputs/demo_segmentation
    python examples/demo_segmentation.py --data hippocampus --output outputs/demo_hippocampus

Every line of the table is one run of bundles/medmerge_segmentation/configs/merge.json with the same number of steps:
with one source and no coefficients to learn it is a linear probe, then fine-tuning (LP-FT); with both sources and no
coefficients, their uniform average; with the probe left out too, fine-tuning from a random start. Then inference.json
segments two DICOM series with the merged network. An interrupted demo resumes; a finished one starts anew.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
from pathlib import Path

import torch
from hippocampus import write_dataset
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.utils import set_determinism
from phantom_volumes import CLASS_NAMES, write_volumes

from monai_medmerge import MedMergeError, SettingError
from monai_medmerge.bundle import write_json

BUNDLE = Path(__file__).parent.parent / "bundles" / "medmerge_segmentation"
SOURCES = ("whole_hippocampus", "reconstruction")
VOLUMES = 8
EPOCHS = {"probe_epochs": 4, "coefficient_epochs": 8, "finetune_epochs": 18}
FINETUNED = {"probe_epochs": 4, "coefficient_epochs": 0, "finetune_epochs": 26}
SCRATCH = {"probe_epochs": 0, "coefficient_epochs": 0, "finetune_epochs": 30}


def prepare(data: str, dataset: Path) -> Path:
    """The target's volumes as a dataset folder."""
    if dataset.exists():
        return dataset
    if data == "phantom":
        return write_volumes(dataset, training=VOLUMES, validation=2, test=10, seed=0)
    if "MEDMERGE_DATA" not in os.environ:
        raise SettingError("the environment variable MEDMERGE_DATA, the folder above hippocampus", "none", data)
    return write_dataset(Path(os.environ["MEDMERGE_DATA"], "hippocampus"), dataset, training=VOLUMES)


def random_start(path: Path) -> Path:
    """The bundle's network before any training, as a source file."""
    parser = ConfigParser()
    parser.read_config(BUNDLE / "configs" / "merge.json")
    parser["num_classes"] = len(CLASS_NAMES)
    set_determinism(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(parser.get_parsed_content("network_def").state_dict(), path)
    return path


def workflow(config: str, **options: object) -> None:
    """One run of a configuration of the bundle."""
    configs = BUNDLE / "configs"
    run = ConfigWorkflow(
        config_file=str(configs / f"{config}.json"),
        meta_file=str(configs / "metadata.json"),
        logging_file=str(configs / "logging.conf"),
        workflow_type="infer" if config == "inference" else "train",
        bundle_root=str(BUNDLE),
        **options,
    )
    run.initialize()
    run.run()
    run.finalize()


def merge(
    dataset: Path, output: Path, sources: tuple[Path, ...], epochs: dict[str, int], **options: object
) -> dict[str, dict[str, float]]:
    """One run of merge.json; what its stages reached, with the seconds of each."""
    files = [str(path) for path in sources]
    workflow("merge", dataset_dir=str(dataset), output_dir=str(output), source_files=files, **epochs, **options)
    stages: dict[str, dict[str, float]] = json.loads((output / "metrics.json").read_text())["stages"]
    seconds = json.loads((output / "timings.json").read_text())
    return {name: {**stage, "seconds": seconds[name]} for name, stage in stages.items()}


def compare(dataset: Path, output: Path) -> dict[str, dict[str, float]]:
    """The table: a name for each method to what it reached."""
    rows, rivals = {}, output / "rivals"
    files = tuple(BUNDLE / "models" / f"{name}.safetensors" for name in SOURCES)
    scratch = random_start(rivals / "random.pt")
    rows["from scratch"] = merge(dataset, rivals / "scratch", (scratch,), SCRATCH)["fine_tuned"]
    for name, file in zip(SOURCES, files, strict=True):
        rows[f"LP-FT from {name}"] = merge(dataset, rivals / name, (file,), FINETUNED)["fine_tuned"]
    uniform = merge(dataset, rivals / "uniform", files, FINETUNED, start="uniform")
    rows["uniform average, fine-tuned"] = uniform["fine_tuned"]
    merged = merge(dataset, output, files, EPOCHS)
    rows["merged, not fine-tuned"] = merged["merged"]
    rows["merged, fine-tuned"] = merged["fine_tuned"]
    return rows


def table(rows: dict[str, dict[str, float]]) -> str:
    """The rows as text."""
    lines = [f"{'method':<30}{'Dice':>9}  {'95 % interval':<16}{'seconds':>8}{'parameters trained':>20}"]
    for name, row in rows.items():
        low, high = row["interval"]
        interval = f"{low:.3f} to {high:.3f}"
        lines.append(
            f"{name:<30}{row['dice']:>9.3f}  {interval:<16}{row['seconds']:>8.1f}{row['parameters_trained']:>20,}"
        )
    return "\n".join(lines)


def main() -> int:
    """Prepare, compare, segment, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=["phantom", "hippocampus"], default="phantom")
    parser.add_argument("--output", type=Path, default=Path("outputs/demo_segmentation"))
    arguments = parser.parse_args()
    output: Path = arguments.output
    if (output / "comparison.json").exists():
        shutil.rmtree(output)
    try:
        dataset = prepare(arguments.data, output / "dataset")
        rows = compare(dataset, output)
        series = dataset / "series"
        if series.exists():
            names = ["background", *CLASS_NAMES[1:]]
            workflow(
                "inference", dataset_dir=str(series), output_dir=str(output / "segmentations"),
                ckpt=str(output / "model.pt"), class_names=names,
            )  # fmt: skip
    except MedMergeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write_json(output / "comparison.json", rows)
    logging.shutdown()
    cases = next(iter(rows.values()))["cases"]
    print(f"\n{arguments.data}: {VOLUMES} labelled volumes, {cases} test volumes, one seed\n\n{table(rows)}\n")
    print("One seed and few volumes: differences that are small beside the intervals mean nothing.\n")
    found = [
        ("model.pt", "weights of the merged, fine-tuned network"),
        ("metrics.json", "what each stage reached, with the sources' hashes"),
        ("report.html", "all of it on one page: each label, the worst cases slice by slice, shares per layer"),
        ("contributions.png", "each source's share per layer"),
        ("segmentations", "two DICOM series segmented: NIfTI and DICOM SEG"),
        ("events", "for tensorboard --logdir"),
    ]
    for name, what in found:
        if (output / name).exists():
            print(f"{output / name}: {what}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
