"""The method `auto`: what it leaves, a kill and a resume, no labels, no unlabelled images, and what it refuses."""

from __future__ import annotations

import json
import logging
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from monai_medmerge import DatasetError, SettingError, Source
from monai_medmerge.bundle import AutoMerge, unlabelled_images, write_json
from monai_medmerge.engines import FineTuner
from monai_medmerge.evaluation import macro_f1
from monai_medmerge.files import weights_sha256
from monai_medmerge.methods.ensemble import Ensemble

pytestmark = pytest.mark.usefixtures("determinism")
SHORT = {"probe_steps": 24, "tune_steps": 48, "student_steps": 72}


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layers = [nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(32, 3))


def images(count: int, seed: int, noise: float = 0.6) -> tuple[Tensor, Tensor]:
    """A bright quarter says which class it is; the scanner's noise differs from site to site."""
    drawn = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    found = noise * torch.randn(count, 1, 8, 8, generator=drawn)
    for n, label in enumerate(labels.tolist()):
        found[n, 0, 4 * (label // 2) : 4 * (label // 2) + 4, 4 * (label % 2) : 4 * (label % 2) + 4] += 1
    return found, labels


def cases(count: int, seed: int, labelled: bool = True) -> list[dict[str, object]]:
    found, labels = images(count, seed)
    label_of = labels.tolist()
    return [{"image": image, **({"label": label_of[n]} if labelled else {})} for n, image in enumerate(found)]


@pytest.fixture(scope="module")
def sources() -> list[Source]:
    """Sites that know the classes, grown from one network."""
    found = []
    for site in range(3):
        grown = network()
        seen = [{"image": image, "label": label} for image, label in [images(96, 50 + site, 0.3 + 0.3 * site)]]
        FineTuner(grown, seen, 60, nn.CrossEntropyLoss(), 3e-2, device="cpu").run()
        found.append(Source.from_network(grown, f"site {site}"))
    return found


def score(found: nn.Module) -> float:
    seen, labels = images(300, 9)
    with torch.no_grad():
        return macro_f1(found.eval()(seen).argmax(1).numpy(), labels.numpy(), 3)


def test_it_says_why_and_leaves_one_plain_network(
    sources: list[Source], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = network()
    before = weights_sha256(plain)
    auto = AutoMerge(plain, sources, cases(18, 1), cases(90, 2, False), tmp_path, "5.*", recipe=SHORT)
    with caplog.at_level(logging.INFO):
        found = auto.run()
    assert weights_sha256(plain) == before
    assert type(found) is type(plain)
    assert auto.decision.way == "teach"
    assert score(found) > 0.9
    for reason in auto.decision.reasons:
        assert f"auto: {reason}" in caplog.text
    # Of every source one fine-tuning, and the student; no head had to be fitted.
    assert [type(phase).__name__ for phase in auto.phases] == ["FineTuner"] * 3 + ["TeachTrainer"]


def test_without_labels_the_average_is_taught_by_the_mean_of_sources(sources: list[Source], tmp_path: Path) -> None:
    unlabelled = cases(90, 2, False)
    auto = AutoMerge(network(), sources, [], unlabelled, tmp_path, "5.*", recipe=SHORT)
    before = auto.average.state_dict()
    said = Ensemble([copied.eval() for copied in auto.networks])(torch.stack([c["image"] for c in unlabelled]))  # type: ignore[misc]
    into = network(1)
    found = auto.run(into)
    assert found is into
    assert [type(phase).__name__ for phase in auto.phases] == ["TeachTrainer"]
    with torch.no_grad():
        told = found.eval()(torch.stack([c["image"] for c in unlabelled]))  # type: ignore[misc]
    assert (told.argmax(1) == said.argmax(1)).float().mean() > 0.9
    assert any(not torch.equal(value, before[name]) for name, value in found.state_dict().items())


def test_without_unlabelled_images_the_start_is_fine_tuned(sources: list[Source], tmp_path: Path) -> None:
    auto = AutoMerge(network(), sources, cases(18, 1), [], tmp_path, "5.*", recipe=SHORT)
    auto.run()
    assert auto.decision.way == "fine-tune"
    assert [type(phase).__name__ for phase in auto.phases] == ["FineTuner"]


def test_sources_without_the_head_are_given_one_and_none_is_believed_as_it_is(
    sources: list[Source], tmp_path: Path
) -> None:
    bodies = [Source(s.name, {k: v for k, v in s.tensors.items() if not k.startswith("5.")}) for s in sources]
    auto = AutoMerge(network(), bodies, cases(18, 1), cases(90, 2, False), tmp_path, "5.*", recipe=SHORT)
    found = auto.run()
    assert auto.decision.weights == (0.0, 0.0, 0.0)
    assert sum(type(phase).__name__ == "LinearProbeTrainer" for phase in auto.phases) >= 3
    assert score(found) > 0.5
    with pytest.raises(SettingError, match="a head for these classes"):
        AutoMerge(network(), bodies, [], cases(9, 2, False), tmp_path / "none", "5.*").run()


@pytest.mark.parametrize("killed", ["tune_2", "teach"])
def test_a_killed_run_goes_on_and_ends_with_the_same_bits(
    sources: list[Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: str
) -> None:
    def run(folder: Path) -> str:
        auto = AutoMerge(network(), sources, cases(18, 1), cases(90, 2, False), folder, "5.*", recipe=SHORT)
        return weights_sha256(auto.run())

    expected = run(tmp_path / "whole")
    # Killed while the second epoch of a phase is saved: the file of the first is there, the other is not.
    from monai_medmerge.handlers import ResumeHandler

    whole = ResumeHandler.save

    def save(handler: ResumeHandler, engine: object) -> None:
        if handler.name == killed and engine.state.epoch == 2:  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        whole(handler, engine)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(ResumeHandler, "save", save)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "killed")
    assert (tmp_path / "killed" / "checkpoints" / f"{killed}_checkpoint_epoch=1.pt").exists()
    assert run(tmp_path / "killed") == expected


def test_what_cannot_be_done_is_one_clear_line(sources: list[Source], tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"one of probe_steps.*found speed"):
        AutoMerge(network(), sources, cases(9, 1), [], tmp_path, recipe={"speed": 3})
    with pytest.raises(SettingError, match="a multiple of 24 steps, found 50"):
        AutoMerge(network(), sources, cases(18, 1), [], tmp_path, "5.*", recipe={"tune_steps": 50}).run()
    maps = [{"image": torch.zeros(1, 8, 8), "label": torch.zeros(1, 8, 8)}]
    with pytest.raises(SettingError, match="one class number for each image"):
        AutoMerge(network(), sources, maps, [], tmp_path, "5.*").run()


def test_unlabelled_images_come_from_the_list_and_from_a_folder(tmp_path: Path) -> None:
    for name in ("a.png", "more/b.png", "t.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    content = {"class_names": ["x", "y"], "unlabelled": [{"image": "a.png"}], "test": [{"image": "t.png", "label": 0}]}
    write_json(tmp_path / "dataset.json", content)
    assert [Path(i["image"]).name for i in unlabelled_images(tmp_path, tmp_path / "more")] == ["a.png", "b.png"]
    assert len(unlabelled_images(tmp_path)) == 1
    for wrong, expected in (
        ([{"image": "t.png"}], "not in the section test"),
        ([{"image": "no.png"}], "an image that exists"),
        (["a.png"], 'an object with "image"'),
        ({}, "a list of images"),
    ):
        write_json(tmp_path / "dataset.json", {**content, "unlabelled": wrong})
        with pytest.raises(DatasetError, match=expected):
            unlabelled_images(tmp_path)


@pytest.mark.slow
def test_the_bundle_runs_it_with_and_without_labels(
    bundle_command: Callable[..., list[str]], phantoms: Path, tmp_path: Path
) -> None:
    def run(name: str, **options: object) -> dict[str, object]:
        command = bundle_command(
            "merge", dataset_dir=phantoms, output_dir=tmp_path / name, method="auto", method_options=SHORT, **options
        )
        done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
        assert "auto: " in done.stdout + done.stderr
        found: dict[str, object] = json.loads((tmp_path / name / "report.json").read_text())
        return found

    first = run("labelled", unlabelled_dir=phantoms / "validation", rank="off")
    settings = first["settings"]
    assert isinstance(settings, dict)
    assert settings["unlabelled"] == 12
    assert len(settings["decided"]) == 3
    assert "taught" in settings["decided"][2]
    # What came of it knows the classes, and serves as two sources of a site without labels.
    files = [str(tmp_path / "labelled" / "model.pt"), str(tmp_path / "copied" / "model.pt")]
    (tmp_path / "copied").mkdir()
    Path(files[1]).write_bytes(Path(files[0]).read_bytes())
    second = run("none", labels=0, unlabelled_dir=phantoms / "validation", source_files=files)
    assert isinstance(second["settings"], dict)
    assert "no label" in second["settings"]["decided"][0]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"exclude": ["0.*"]}, r"method auto: expected no exclude.*found 0\.\*"),
        ({"loss_function": nn.BCEWithLogitsLoss()}, "method auto: expected classes that exclude one another"),
    ],
)
def test_what_teaching_cannot_do_is_refused(setting: dict[str, Any], words: str, tmp_path: Path) -> None:
    sources = [Source.from_network(network(), "one")]
    with pytest.raises(SettingError, match=words):
        AutoMerge(network(), sources, cases(9, 1), [], tmp_path, "5.*", **setting)
