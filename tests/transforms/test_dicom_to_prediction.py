"""The example, run as a user runs it, on a generated oblique series and a small bundle."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from monai.networks.nets import UNet
from PIL import Image
from transforms.dicom.test_segmentation import CODES
from transforms.phantoms import oblique, voxels, write_series
from transforms.reading import read

from monai_medmerge.transforms import read_seg

NETWORK = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3, "channels": [4, 8], "strides": [2]}


def write_bundle(folder):
    torch.manual_seed(0)
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    torch.save(UNet(**NETWORK).state_dict(), folder / "models/model.pt")
    load = {"_target_": "LoadImaged", "keys": "image", "reader": "monai_medmerge.transforms.DicomSeriesReader"}
    load["ensure_channel_first"] = True
    space = {"_target_": "Spacingd", "keys": "image", "pixdim": [1.2, 1.6, 2.5]}
    transforms = [load, space, {"_target_": "NormalizeIntensityd", "keys": "image"}]
    config = {
        "network_def": {"_target_": "UNet", **NETWORK},
        "preprocessing": {"_target_": "Compose", "transforms": transforms},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [16, 16, 16]},
    }
    (folder / "configs/inference.json").write_text(json.dumps(config))


def test_the_example_writes_a_seg_on_the_series_grid_and_a_figure(tmp_path):
    orientation, normal = oblique(15)
    write_series(tmp_path / "series", voxels((16, 32, 32)), orientation, np.multiply(normal, 2.5))
    write_bundle(tmp_path / "bundle")
    (tmp_path / "codes.json").write_text(json.dumps(CODES))
    script = Path(__file__).parents[2] / "examples/dicom_to_prediction.py"
    command = [sys.executable, script, tmp_path / "series", "--bundle", tmp_path / "bundle"]
    command += ["--codes", tmp_path / "codes.json", "--output", tmp_path / "out"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    _, meta = read(tmp_path / "series")
    labels = read_seg(tmp_path / "out/series_seg.dcm", meta["affine"], (32, 32, 16))
    assert set(np.unique(labels).tolist()) <= {0, 1, 2}
    assert labels.any()
    assert Image.open(tmp_path / "out/series_seg.png").size[0] > 100
