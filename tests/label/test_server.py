"""Our app on a real server: inference, labels, training and what goes wrong."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from label.own_inference import label_map, read
from label_client import LabelClient
from monai.bundle import ConfigParser
from safetensors.torch import load_file

pytest.importorskip("monailabel", reason="MONAI Label has an environment of its own: make test-label")

Files = tuple[dict[str, Path], dict[str, Path]]


def weights(file: Path) -> dict[str, torch.Tensor]:
    return load_file(file) if file.suffix == ".safetensors" else torch.load(file)


def train(client: LabelClient, model: str, **options: Any) -> dict[str, Any]:
    client.train(model, **options)
    ended = client.wait(poll=0.2)
    assert ended["status"] == "DONE", "\n".join(ended["details"])
    return client.info()["train_stats"][model]


def test_info_names_our_models(served: LabelClient) -> None:
    info = served.info()
    kinds = {name: (model["type"], model["labels"]) for name, model in info["models"].items()}
    assert kinds["blocks"] == ("segmentation", {"anterior": 1, "posterior": 2})
    assert kinds["kinds"] == ("classification", {"dark": 0, "bright": 1})
    assert set(info["trainers"]) == {"blocks", "kinds", "medmerge_segmentation", "medmerge_classification"}
    assert kinds["medmerge_segmentation"][0] == "segmentation"
    assert kinds["medmerge_classification"][0] == "classification"
    assert info["trainers"]["blocks"]["config"]["sources"] == "first.safetensors,second.safetensors"
    assert {"blocks_entropy", "kinds_entropy", "random", "first"} < set(info["strategies"])


def test_label_map_of_a_nifti_file_is_the_bundles_own(
    served: LabelClient, bundles: dict[str, Path], volumes: Files, tmp_path: Path
) -> None:
    name, file = next(iter(volumes[0].items()))
    labels, affine = read(served.infer("blocks", name, model_filename="model.pt"))
    own, own_affine = label_map(bundles["blocks"], file, tmp_path)
    assert len(np.unique(own)) > 1
    np.testing.assert_array_equal(labels, own)
    np.testing.assert_allclose(affine, own_affine, atol=1e-4)


@pytest.mark.parametrize("asked", ["by name", "by path"])
def test_label_map_of_a_dicom_series_is_the_bundles_own(
    served: LabelClient, bundles: dict[str, Path], series: Path, studies: Path, tmp_path: Path, asked: str
) -> None:
    image = "mr" if asked == "by name" else str(studies / "mr.series")
    labels, affine = read(served.infer("blocks", image, model_filename="model.pt"))
    own, own_affine = label_map(bundles["blocks"], series, tmp_path)
    assert len(np.unique(own)) > 1
    np.testing.assert_array_equal(labels, own)
    np.testing.assert_allclose(affine, own_affine, atol=1e-4)


def test_classes_are_the_networks_own(served: LabelClient, bundles: dict[str, Path], pictures: Files) -> None:
    file = next(iter(pictures[0].values()))
    parser = ConfigParser()
    parser.read_config(bundles["kinds"] / "configs" / "inference.json")
    network = parser.get_parsed_content("network").eval()
    network.load_state_dict(weights(bundles["kinds"] / "models" / "model.pt"))
    image = parser.get_parsed_content("preprocessing")({"image": str(file)})["image"]
    with torch.no_grad():
        own = network(image[None]).softmax(1)[0].tolist()
    answer = served.classify("kinds", served.put_image(file), model_filename="model.pt")
    assert list(answer) == ["dark", "bright"]
    np.testing.assert_allclose(list(answer.values()), own, rtol=1e-5)


def test_submitted_label_maps_train_the_next_answer(
    served: LabelClient, app_folder: Path, volumes: Files, tmp_path: Path
) -> None:
    images, labels = volumes
    name = next(iter(images))
    for labelled in list(images)[1:]:
        served.put_label(labelled, labels[labelled])
    before = (app_folder / "blocks" / "models" / "model.pt").read_bytes()
    stats = train(served, "blocks", max_epochs=6)
    assert stats["start"] == "model.pt"
    assert len(stats["loss"]) == stats["epoch"] == 6
    assert stats["loss"][-1] < 0.9 * stats["loss"][0]
    assert (app_folder / "blocks" / "models" / "model.pt").read_bytes() == before
    assert served.info()["models"]["blocks"]["config"]["model_filename"][0] == "model_label.pt"
    after, _ = read(served.infer("blocks", name))
    own, _ = label_map(app_folder / "blocks", images[name], tmp_path, "model_label.pt")
    np.testing.assert_array_equal(after, own)
    untrained, _ = read(served.infer("blocks", name, model_filename="model.pt"))
    assert (after != untrained).any()


def test_merge_is_where_training_starts(served: LabelClient, app_folder: Path, volumes: Files) -> None:
    images, labels = volumes
    for labelled in list(images)[1:]:
        served.put_label(labelled, labels[labelled])
    stats = train(served, "blocks", merge=True, coefficient_epochs=0, max_epochs=1)
    assert stats["start"] == "merge of first.safetensors, second.safetensors"
    folder = app_folder / "blocks"
    first, second = (weights(folder / "models" / f"{name}.safetensors") for name in ("first", "second"))
    start = weights(folder / "medmerge" / "initialization.pt")
    trained = weights(folder / "models" / "model_label.pt")
    other = weights(folder / "models" / "model.pt")
    for name, tensor in start.items():
        torch.testing.assert_close(tensor, (first[name] + second[name]) / 2)
    # Two steps of Adam with a rate of 0.01 go no further than this; other weights are further off.
    assert max((trained[name] - start[name]).abs().max().item() for name in start) < 0.03
    assert max((trained[name] - other[name]).abs().max().item() for name in start) > 0.1


def test_submitted_classes_train(served: LabelClient, pictures: Files) -> None:
    images, labels = pictures
    for name, file in images.items():
        served.put_image(file, name)
        served.put_label(name, labels[name])
    stats = train(served, "kinds", max_epochs=8, pretrained=False)
    assert stats["start"] == "as train.json has it"
    assert stats["loss"][-1] < 0.9 * stats["loss"][0]
    answers = {name: served.classify("kinds", name) for name in images}
    right = [
        max(answer, key=answer.__getitem__) == json.loads(labels[name].read_text())["label"]
        for name, answer in answers.items()
    ]
    assert sum(right) >= 10


def test_next_image_comes_by_score(served: LabelClient) -> None:
    done = served.score("blocks_entropy")
    assert done["executed"] > 0
    assert served.score("blocks_entropy")["executed"] == 0
    chosen = served.next_image("blocks_entropy")
    assert 0 < chosen["weight"] <= 1
    assert chosen["blocks_entropy"]["score"] == chosen["weight"]


def test_wrong_requests_are_answered_with_the_reason(
    served: LabelClient, app_folder: Path, tmp_path: Path, volumes: Files
) -> None:
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"this is no image")
    with pytest.raises(RuntimeError, match=r"422 .*image: expected"):
        served.put_image(broken)
    cut = tmp_path / "cut.nii.gz"
    cut.write_bytes(next(iter(volumes[0].values())).read_bytes()[:2000])
    served.put_image(cut)
    torch.save({"strange": torch.zeros(1)}, app_folder / "blocks" / "models" / "strange.pt")
    name = next(iter(volumes[0]))
    with pytest.raises(RuntimeError, match=r"422 .*cut\.nii\.gz"):
        served.infer("blocks", "cut")
    with pytest.raises(RuntimeError, match=r"404 .*no model 'nonesuch'"):
        served.infer("nonesuch", name)
    with pytest.raises(RuntimeError, match=r"404 .*no image 'nonesuch'"):
        served.infer("blocks", "nonesuch")
    with pytest.raises(RuntimeError, match=r"404 .*nonesuch.* but of blocks, kinds, "):
        served.train("nonesuch")
    with pytest.raises(RuntimeError, match=r"422 .*model_filename: expected one of .*model\.pt.*, found '?\.\./x\.pt"):
        served.infer("blocks", name, model_filename="../x.pt")
    with pytest.raises(RuntimeError, match=r"422 .*weights of this network"):
        served.infer("blocks", name, model_filename="strange.pt")
    assert read(served.infer("blocks", name))[0].any()


def test_training_that_cannot_run_says_why(served: LabelClient, pictures: Files, tmp_path: Path) -> None:
    name = next(iter(pictures[0]))
    served.put_image(pictures[0][name], name)
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"label": "purple"}')
    served.put_label(name, wrong)
    served.train("kinds", max_epochs=1)
    ended = served.wait(poll=0.2)
    assert ended["status"] == "ERROR"
    assert f"{name}.json: expected" in ended["details"][-1]
    assert "dark, bright" in ended["details"][-1]
    assert "purple" in ended["details"][-1]
    served.put_label(name, pictures[1][name])


def test_cancelled_training_leaves_server_and_weights(served: LabelClient, app_folder: Path, volumes: Files) -> None:
    images, labels = volumes
    for labelled in list(images)[1:]:
        served.put_label(labelled, labels[labelled])
    file = app_folder / "blocks" / "models" / "model_label.pt"
    before = file.read_bytes() if file.is_file() else None
    served.train("blocks", max_epochs=1000)
    end = time.monotonic() + 300
    while time.monotonic() < end and not any("mean loss" in line for line in served.status().get("details", [])):
        time.sleep(0.2)
    assert served.status()["status"] == "RUNNING"
    with pytest.raises(RuntimeError, match=r"429 .*Already Running"):
        served.train("blocks", max_epochs=1)
    served.cancel()
    assert served.wait(poll=0.2)["status"] == "STOPPED"
    assert (file.read_bytes() if file.is_file() else None) == before
    assert read(served.infer("blocks", next(iter(images))))[0].any()
    assert len(train(served, "blocks", max_epochs=1)["loss"]) == 1
