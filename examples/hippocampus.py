"""The hippocampus volumes of the Medical Segmentation Decathlon (Task04), split once for all uses.

    python examples/hippocampus.py --data "$MEDMERGE_DATA/hippocampus" --output hippocampus --training 16

writes a dataset folder for bundles/medmerge_segmentation with target volumes only: none that a source was trained on.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from monai_medmerge import DatasetError
from monai_medmerge.files import whole_folder

CLASS_NAMES = ("background", "anterior", "posterior")
SOURCE, VALIDATION, TEST = 60, 20, 40
"""Volumes that sources learn from, that choices are made on, and that are only tested on; the rest is for training."""


@dataclass(frozen=True)
class Split:
    """Names of volumes."""

    source: list[str]
    validation: list[str]
    test: list[str]
    training: list[str]


def split(folder: Path) -> Split:
    """Divide the volumes of a folder with `imagesTr` and `labelsTr`; the same for the same names."""
    names = sorted(path.name for path in (folder / "imagesTr").glob("*.nii.gz") if not path.name.startswith("."))
    if len(names) < SOURCE + VALIDATION + TEST + 16:
        raise DatasetError("the volumes of Task04, imagesTr/*.nii.gz", f"{len(names)} files", folder.name)
    order = [names[n] for n in np.random.default_rng(4).permutation(len(names))]
    a, b, c = SOURCE, SOURCE + VALIDATION, SOURCE + VALIDATION + TEST
    return Split(order[:a], order[a:b], order[b:c], order[c:])


def write_dataset(folder: Path, output: Path, training: int, test: int = TEST) -> Path:
    """Copy target volumes into a dataset folder."""
    found = split(folder)
    sections = {"training": found.training[:training], "validation": found.validation, "test": found.test[:test]}
    with whole_folder(output) as part:
        for section, names in sections.items():
            for kind in ("imagesTr", "labelsTr"):
                (part / section / kind).mkdir(parents=True)
                for name in names:
                    shutil.copyfile(folder / kind / name, part / section / kind / name)
        entries = {
            section: [{"image": f"{section}/imagesTr/{n}", "label": f"{section}/labelsTr/{n}"} for n in names]
            for section, names in sections.items()
        }
        (part / "dataset.json").write_text(json.dumps({"class_names": CLASS_NAMES, **entries}, indent=1))
    return output


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--training", type=int, default=16)
    arguments = parser.parse_args()
    print(write_dataset(arguments.data, arguments.output, arguments.training))
