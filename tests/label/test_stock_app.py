"""MONAI Label's own monaibundle app, unchanged, with a bundle that resamples through `PathSafe`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from label.own_inference import label_map, read
from label_client import LabelClient

pytest.importorskip("monailabel", reason="MONAI Label has an environment of its own: make test-label")

Files = tuple[dict[str, Path], dict[str, Path]]
MODEL = "blocks_segmentation"


def test_label_map_is_the_bundles_own(
    stock: LabelClient, bundles: dict[str, Path], volumes: Files, tmp_path: Path
) -> None:
    name, file = next(iter(volumes[0].items()))
    assert stock.info()["models"][MODEL]["labels"] == {"anterior": 1, "posterior": 2}
    labels, _ = read(stock.infer(MODEL, name))
    own, _ = label_map(bundles["blocks_segmentation"], file, tmp_path)
    assert len(np.unique(own)) > 1
    np.testing.assert_array_equal(labels, own)


def test_label_map_of_a_dicom_series_is_the_bundles_own(
    stock: LabelClient, bundles: dict[str, Path], series: Path, tmp_path: Path
) -> None:
    labels, _ = read(stock.infer(MODEL, str(series), result_extension=".nii.gz"))
    own, _ = label_map(bundles["blocks_segmentation"], series, tmp_path)
    np.testing.assert_array_equal(labels, own)


def test_training_ends_with_weights_to_infer_with(stock: LabelClient, volumes: Files) -> None:
    images, labels = volumes
    for labelled in list(images)[1:]:
        stock.put_label(labelled, labels[labelled])
    stock.train(MODEL, max_epochs=4, multi_gpu=False)
    ended = stock.wait(poll=0.2)
    assert ended["status"] == "DONE", "\n".join(ended["details"])
    name = next(iter(images))
    after, _ = read(stock.infer(MODEL, name, model_filename="model_finetuned.pt"))
    before, _ = read(stock.infer(MODEL, name, model_filename="model.pt"))
    assert (after != before).any()
