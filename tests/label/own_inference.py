"""What a bundle answers without MONAI Label: the oracle of the tests."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
from monai.bundle import ConfigParser


def label_map(bundle: Path, image: Path, output: Path, weights: str = "model.pt") -> tuple[np.ndarray, np.ndarray]:
    """Run `inference.json` as `python -m monai.bundle run` does.

    Args:
        bundle: its folder.
        image: a file, or a folder with a DICOM series.
        output: folder for the file it writes.
        weights: file in `models/`.

    Returns:
        Labels and affine.
    """
    parser = ConfigParser()
    parser.read_config(bundle / "configs" / "inference.json")
    parser["bundle_root"], parser["image"], parser["output_dir"] = str(bundle), str(image), str(output)
    parser["checkpoint::load_path"] = str(bundle / "models" / weights)
    parser.get_parsed_content("run")
    written = nibabel.load(next(output.glob("*.nii.gz")))
    return np.asarray(written.dataobj), written.affine


def read(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Labels and affine of the compressed NIfTI file that a server sent."""
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(content))
    return np.asarray(image.dataobj), image.affine
