"""Scores against the same measured by hand, and what is labelled next."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser
from safetensors.torch import load_file

from monai_medmerge import DatasetError, SettingError
from monai_medmerge.label.uncertainty import disagreement, entropy

pytest.importorskip("monailabel", reason="MONAI Label has an environment of its own: make test-label")
from monailabel.datastore.local import LocalDatastore

from monai_medmerge.label.infer import MedMergeInferTask
from monai_medmerge.label.scoring import MostUncertain, UncertaintyScoring, check_members

Files = tuple[dict[str, Path], dict[str, Path]]


@pytest.fixture
def bundle(bundles: dict[str, Path], tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(bundles["blocks"], tmp_path / "bundle"))
    torch.save(load_file(folder / "models" / "first.safetensors"), folder / "models" / "other.pt")
    return folder


@pytest.fixture
def studies(volumes: Files, tmp_path: Path) -> LocalDatastore:
    (tmp_path / "studies").mkdir()
    for file in list(volumes[0].values())[:3]:
        shutil.copy(file, tmp_path / "studies")
    return LocalDatastore(str(tmp_path / "studies"))


def by_hand(bundle: Path, image: Path, weights: str) -> torch.Tensor:
    parser = ConfigParser()
    parser.read_config(bundle / "configs" / "inference.json")
    network = parser.get_parsed_content("network").eval()
    network.load_state_dict(torch.load(bundle / "models" / weights))
    prepared = parser.get_parsed_content("preprocessing")({"image": str(image)})["image"]
    with torch.no_grad():
        return parser.get_parsed_content("inferer")(prepared[None], network)[0].as_tensor().softmax(0)


def test_entropy_chooses_the_image_where_it_is_greatest(bundle: Path, studies: LocalDatastore, volumes: Files) -> None:
    scoring = UncertaintyScoring(MedMergeInferTask(str(bundle), {}), "entropy")
    assert scoring({}, studies) == {"executed": 3, "skipped": 0, "failed": 0}
    expected = {name: entropy(by_hand(bundle, volumes[0][name], "model.pt")) for name in studies.list_images()}
    for name, value in expected.items():
        assert scoring.score(studies, name) == pytest.approx(value, rel=1e-5)
    best = max(expected, key=expected.__getitem__)
    assert MostUncertain(scoring)({}, studies) == {"id": best, "weight": scoring.score(studies, best)}
    studies.save_label(best, str(volumes[1][best]), "final", {})
    chosen = MostUncertain(scoring)({}, studies)
    assert chosen is not None
    assert chosen["id"] != best


def test_disagreement_is_that_of_the_named_weights(bundle: Path, studies: LocalDatastore, volumes: Files) -> None:
    members = ["model.pt", "other.pt"]
    scoring = UncertaintyScoring(MedMergeInferTask(str(bundle), {}), "disagreement", members)
    scoring({"max_samples": 1}, studies)
    name = next(name for name in studies.list_images() if scoring.score(studies, name) is not None)
    expected = disagreement([by_hand(bundle, volumes[0][name], weights) for weights in members])
    assert scoring.score(studies, name) == pytest.approx(expected, rel=1e-4)


def test_scores_end_with_the_weights_that_gave_them(bundle: Path, studies: LocalDatastore) -> None:
    scoring = UncertaintyScoring(MedMergeInferTask(str(bundle), {}), "entropy")
    scoring({}, studies)
    shutil.copy(bundle / "models" / "other.pt", bundle / "models" / "model_label.pt")
    with pytest.raises(SettingError, match="POST /scoring/entropy"):
        MostUncertain(scoring)({}, studies)
    assert scoring({}, studies)["executed"] == 3


def test_disagreement_needs_two_weights_that_are_there(bundle: Path) -> None:
    task = MedMergeInferTask(str(bundle), {})
    with pytest.raises(SettingError, match="two or more"):
        check_members(task, ["model.pt", "model.pt"])
    with pytest.raises(DatasetError, match="nonesuch"):
        check_members(task, ["model.pt", "nonesuch.pt"])


def test_answers_that_are_not_finite_are_no_scores(bundle: Path, studies: LocalDatastore) -> None:
    weights = torch.load(bundle / "models" / "model.pt")
    name = next(name for name in weights if weights[name].is_floating_point())
    torch.save({**weights, name: weights[name] * float("nan")}, bundle / "models" / "model.pt")
    scoring = UncertaintyScoring(MedMergeInferTask(str(bundle), {}), "entropy")
    assert scoring({}, studies) == {"executed": 0, "skipped": 0, "failed": 3}


def test_classes_without_a_name_each_are_refused(bundles: dict[str, Path]) -> None:
    task = MedMergeInferTask(str(bundles["kinds"]), {})
    with pytest.raises(SettingError, match="a name for each of 3 classes"):
        task.writer({task.output_label_key: torch.zeros(3)})
