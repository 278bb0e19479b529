"""The overlay on bundles that know nothing of it: what they own stays, and their training is their own."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from bundle.overlay.overlay_runs import BUNDLES, SAVED, Bundle, check_inference_loads, load, overriding, same
from monai.bundle import ConfigParser
from monai.bundle import run as run_bundle

from monai_medmerge import SettingError
from monai_medmerge.__main__ import main
from monai_medmerge.bundle.overlay.starting import OVERLAY_FILE
from monai_medmerge.errors import MedMergeError
from monai_medmerge.sources import load_sources

WORKFLOW = "monai_medmerge.bundle.overlay.MergedWorkflow"
REPOSITORY = Path(__file__).parents[3]
every_bundle = pytest.mark.parametrize("bundle", list(BUNDLES), indirect=True)


@every_bundle
def test_each_bundle_trains_from_the_merge_as_it_would_from_any_checkpoint(bundle: Bundle) -> None:
    (bundle.root / "models").mkdir()
    bundle.source("models/model.pt", seed=3)
    before = bundle.files()
    final = bundle.merge(bundle.sources, coefficient_epochs=2)
    assert bundle.files() == before
    record = json.loads((bundle.root / "medmerge" / "merge.json").read_text())
    assert [source["name"] for source in record["sources"]] == ["s1", "s2"]
    assert len(record["coefficient_losses"]) == 2
    start = load(bundle.root / "medmerge" / "initialization.pt")
    assert not any(same(start, load(source)) for source in bundle.sources)
    # Nothing that the merge drew or counted is left: their own training from that start ends in the same bits.
    for own in (bundle.root / "models").iterdir():
        own.unlink()
    assert same(bundle.finetune(bundle.root / "medmerge" / "initialization.pt"), final)
    saved = "models/model.pt" if bundle.name != "classification" else SAVED[bundle.name]
    for checkpoint in (bundle.root / "medmerge" / "model.pt", next(bundle.root.glob(saved))):
        check_inference_loads(bundle.root, checkpoint)


@every_bundle
def test_one_source_is_their_own_fine_tuning_from_it(bundle: Bundle) -> None:
    expected = bundle.finetune(bundle.sources[0])
    assert same(bundle.merge(bundle.sources[0]), expected)
    assert same(bundle.merge(bundle.sources[:1], coefficient_epochs=0), expected)
    all_on_one = {"coefficient_epochs": 0, "medmerge::start": "anchor", "medmerge::anchor": 1}
    assert same(bundle.merge(bundle.sources[::-1], **all_on_one), expected)


@every_bundle
def test_the_workflow_of_monais_own_kind_ends_in_the_same_bits(bundle: Bundle) -> None:
    expected = bundle.merge(bundle.sources, coefficient_epochs=1)
    for written in ("models", "results", "medmerge"):
        shutil.rmtree(bundle.root / written, ignore_errors=True)
    bundle.run(workflow_name=WORKFLOW, sources=bundle.sources, coefficient_epochs=1)
    assert same(load(bundle.root / "medmerge" / "model.pt"), expected)


def test_the_workflow_refuses_in_one_line_what_the_overlay_refuses(bundle: Bundle) -> None:
    with pytest.raises(SettingError, match="sources: expected one or more sources"):
        bundle.run(workflow_name=WORKFLOW)
    with pytest.raises(SettingError, match=r"medmerge: expected settings among .* found flavour"):
        bundle.run(workflow_name=WORKFLOW, sources=bundle.sources, **{"medmerge::flavour": "sweet"})


@pytest.mark.parametrize("order", ["first", "between", "folder", "own ids"])
def test_wherever_the_overlay_stands_it_merges(bundle: Bundle, order: str) -> None:
    """Another file may replace `initialize`, `run` and `finalize`, in whole; the overlay hangs on none of them."""
    shutil.copy(OVERLAY_FILE, bundle.root)
    overlay = bundle.root / "medmerge.json"
    later = overriding(
        bundle.root, initialize=["$monai.utils.set_determinism(seed=4)"], finalize="$print('end')",
        run=["$import sys", "a note", "$@train#trainer.run()", "$print('after')"],
    )  # fmt: skip
    orders = {
        "first": [overlay, bundle.config],
        "between": [bundle.config, overlay, later],
        "folder": [OVERLAY_FILE, bundle.config],
        "own ids": [bundle.config, overlay],
    }
    options: dict[str, Any] = {"sources": bundle.sources, "coefficient_epochs": 0}
    files = [str(path) for path in orders[order]]
    if order == "folder":
        # The first file's folder counts as the bundle's, and ours is no place for results.
        with pytest.raises(SettingError, match="your bundle first"):
            run_bundle(config_file=files, **options)
        return
    if order == "own ids":
        own = overriding(bundle.root, begin="$print('begin')", go="$@train#trainer.run()")
        run_bundle("go", init_id="begin", config_file=[*files, str(own)], **options)
    else:
        run_bundle(config_file=files, **options)
    start = load(bundle.root / "medmerge" / "initialization.pt")
    sources = [load(source) for source in bundle.sources]
    for name, _ in bundle.network().named_parameters():
        torch.testing.assert_close(start[name], (sources[0][name] + sources[1][name]) / 2)
    assert (bundle.root / "medmerge" / "model.pt").exists()


def test_a_configuration_that_is_not_run_as_a_workflow_is_warned_of(
    bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    """As by a workflow class of a bundle's own, which reads the files with a parser."""
    parser = ConfigParser()
    parser.read_config([str(bundle.config), str(OVERLAY_FILE)])
    assert parser.get_parsed_content("network_def") is not None
    assert "nothing is merged" in caplog.text


def test_a_head_that_no_source_has_is_the_networks_own(bundle: Bundle) -> None:
    other = bundle.source("other.pt", 4, out_channels=5)
    bundle.merge(other, coefficient_epochs=0)
    record = json.loads((bundle.root / "medmerge" / "merge.json").read_text())
    start, source = load(bundle.root / "medmerge" / "initialization.pt"), load(other)
    fitting = {name for name in start if start[name].shape == source[name].shape}
    parameters = {name for name, _ in bundle.network().named_parameters()}
    assert set(record["own_tensors"]) == parameters - fitting
    assert record["own_tensors"]
    assert all(torch.equal(start[name], source[name]) for name in fitting)


@pytest.mark.parametrize("bundle", ["classification"], indirect=True)
def test_a_loader_that_would_undo_the_merge_is_reported_and_set_aside(
    bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    (bundle.root / "models").mkdir()
    pretrained = bundle.source("models/model.pt", seed=3)
    with caplog.at_level(logging.WARNING):
        final = bundle.merge(bundle.sources[0])
    assert "CheckpointLoader handlers::0 (model.pt)" in caplog.text
    record = json.loads((bundle.root / "medmerge" / "merge.json").read_text())
    assert record["loaders_set_aside"] == ["handlers::0 (model.pt)"]
    kept = bundle.merge(bundle.sources[0], **{"medmerge::keep_loaders": True})
    assert not same(kept, final)
    assert same(kept, bundle.finetune(pretrained))


def test_savers_do_not_overwrite_unless_told(bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    (bundle.root / "models").mkdir()
    model = Path(bundle.source("models/model.pt", seed=3))
    before = model.read_bytes()
    with caplog.at_level(logging.WARNING):
        bundle.merge(bundle.sources, coefficient_epochs=1)
    assert model.read_bytes() == before
    assert "validate::handlers::1" in caplog.text
    assert (bundle.root / "medmerge" / "models" / "model.pt").exists()
    # As a command line hands them over.
    bundle.merge(bundle.sources, coefficient_epochs=1, **{"medmerge::overwrite": "false"})
    assert model.read_bytes() == before
    bundle.merge(bundle.sources, coefficient_epochs=1, **{"medmerge::overwrite": "true"})
    assert model.read_bytes() != before


def saver(folder: str, content: str, file: str) -> dict[str, Any]:
    return {
        "_target_": "CheckpointSaver", "save_dir": f"$@bundle_root + '/{folder}'", "save_final": True,
        "save_dict": {"model": content}, "final_filename": file,
    }  # fmt: skip


def test_savers_of_several_folders_stay_apart(bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    """Folders of one name, with files of one name; what each saver writes can be told by what it holds."""
    old = {}
    for folder in ("first/models", "second/models"):
        (bundle.root / folder).mkdir(parents=True)
        old[folder] = Path(bundle.source(f"{folder}/final.pt", seed=3)).read_bytes()
    savers = [saver("first/models", "@network", "final.pt"), saver("second/models", "@optimizer", "final.pt")]
    config = overriding(bundle.root, **{"+train#handlers": savers})
    with caplog.at_level(logging.INFO):
        bundle.run(config, OVERLAY_FILE, sources=bundle.sources[0])
    assert {folder: (bundle.root / folder / "final.pt").read_bytes() for folder in old} == old
    written = bundle.root / "medmerge"
    assert same(load(written / "first" / "models" / "final.pt"), load(written / "model.pt"))
    assert "param_groups" in load(written / "second" / "models" / "final.pt")
    record = json.loads((written / "merge.json").read_text())["savers_redirected"]
    assert sorted(record.values()) == ["medmerge/first/models", "medmerge/second/models"]
    assert "writes to medmerge/first/models" in caplog.text
    own = [record.getMessage() for record in caplog.records if record.name.startswith("monai_medmerge")]
    assert not any(str(bundle.root) in message for message in own)


@pytest.mark.parametrize("overwrite", [False, True])
def test_savers_that_write_where_the_overlay_does_stay_apart(bundle: Bundle, overwrite: bool) -> None:
    """The overlay's own `model.pt` is of the end, the user's may be the best one."""
    config = overriding(bundle.root, **{"+train#handlers": [saver("medmerge", "@optimizer", "model.pt")]})
    bundle.run(config, OVERLAY_FILE, sources=bundle.sources[0], **{"medmerge::overwrite": overwrite})
    assert "param_groups" in load(bundle.root / "medmerge" / "savers" / "model.pt")
    assert "param_groups" not in load(bundle.root / "medmerge" / "model.pt")


def test_weights_of_the_users_own_are_not_overwritten_by_the_overlays(bundle: Bundle) -> None:
    (bundle.root / "models").mkdir()
    model = Path(bundle.source("models/model.pt", seed=3))
    before = model.read_bytes()
    options = {"sources": bundle.sources[0], "medmerge::output_dir": str(bundle.root / "models")}
    with pytest.raises(SettingError, match=r"models: expected .*--medmerge::output_dir.*found model.pt"):
        bundle.run(OVERLAY_FILE, **options)
    assert [path.name for path in model.parent.iterdir()] == ["model.pt"]
    assert model.read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "overrides", "words"),
    [
        ({}, {"sources": []}, ["sources: expected one or more"]),
        ({}, {"sources": 3}, ["sources: expected one or more", "int"]),
        ({}, {"sources": ["absent.pt"]}, ["absent.pt"]),
        ({}, {"medmerge::trainer_id": "train::engine"}, ["medmerge::trainer_id", "train::engine", "train::trainer"]),
        ({}, {"coefficient_epochs": "two"}, ["coefficient_epochs", "'two'"]),
        (
            {"train#trainer#inferer": "$lambda inputs, network: network(inputs, inputs.mean())"},
            {"medmerge::alignment": "weights"},
            ["medmerge::alignment", "one tensor"],
        ),
        ({}, {"medmerge::head_learning_rate": 0}, ["head_learning_rate", "above 0"]),
        ({}, {"medmerge::overwrite": "no"}, ["overwrite", "true or false"]),
        ({}, {"medmerge::exclude": "head.*"}, ["exclude", "list"]),
        ({}, {"medmerge::key_map": 3}, ["key_map", "patterns"]),
        ({}, {"medmerge::key_map": "absent.json"}, ["absent.json"]),
        ({}, {"medmerge::granularity": "filter"}, ["granularity", "'filter'"]),
        ({}, {"medmerge::speed": 3}, ["speed", "coefficient_epochs", "trainer_id"]),
        ({"run": ["$print('nothing')"]}, {}, ["@train::trainer", "--medmerge::trainer_id"]),
        ({"train#dataloader": "$iter([1])"}, {}, ["data loader"]),
        (
            {"train#trainer#iteration_update": "$lambda engine, batch: {'loss': @network(batch['image']).mean()}"},
            {},
            ["iteration_update", "engine.network"],
        ),
        (
            {"undo": {"_target_": "UndoingHandler"}, "+train#handlers": ["$undoing.Undo(@network)"],
             "+imports": ["$import undoing"], "undo_": None},
            {},
            ["--medmerge::keep_loaders"],
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_named(
    bundle: Bundle, changes: dict[str, Any], overrides: dict[str, Any], words: list[str]
) -> None:
    (bundle.root / "undoing.py").write_text(UNDOING)
    config = overriding(bundle.root, **{key: value for key, value in changes.items() if not key.startswith("undo")})
    with pytest.raises(MedMergeError) as caught:
        bundle.run(config, OVERLAY_FILE, **{"sources": bundle.sources, "coefficient_epochs": 1, **overrides})
    assert all(word in str(caught.value) for word in words), str(caught.value)


UNDOING = """
import torch
from ignite.engine import Events


class Undo:
    def __init__(self, network):
        self.network = network

    def attach(self, engine):
        engine.add_event_handler(Events.STARTED, self)

    @torch.no_grad()
    def __call__(self, engine):
        for parameter in self.network.parameters():
            parameter.zero_()
"""


def test_sources_that_do_not_fit_end_in_the_match_table(bundle: Bundle) -> None:
    other = bundle.source("other.pt", 4, channels=[6, 8])
    with pytest.raises(MedMergeError) as caught:
        bundle.merge([bundle.sources[0], other])
    assert "source 'other'" in str(caught.value)
    assert "tensor" in str(caught.value)
    assert not (bundle.root / "medmerge").exists()


def test_alignment_and_adaptation_go_with_it(bundle: Bundle) -> None:
    colour = bundle.source("colour.pt", 4, in_channels=3)
    options = {"medmerge::adapt": True, "medmerge::alignment": "activations"}
    final = bundle.merge([bundle.sources[0], colour], coefficient_epochs=1, **options)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in final.values())
    anchor, other = json.loads((bundle.root / "medmerge" / "merge.json").read_text())["sources"]
    assert anchor["alignment"] is None
    assert not anchor["adaptations"]
    # The file that was read can be told by its digest, and what was done to it is beside it.
    assert other["sha256"] == load_sources(colour)[0].sha256
    assert other["adaptations"]
    record = other["alignment"]
    assert (record["by"], record["anchor"]) == ("activations", "s1")
    assert 0 < record["moved"] <= record["channels"]
    assert record["similarity_before"] <= record["similarity_after"] <= 1


def test_the_command_prints_and_copies_the_overlay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["overlay"]) == 0
    assert Path(capsys.readouterr().out.strip()).read_bytes() == OVERLAY_FILE.read_bytes()
    assert main(["overlay", "--to", str(tmp_path)]) == 0
    assert (tmp_path / "medmerge.json").read_bytes() == OVERLAY_FILE.read_bytes()
    assert (REPOSITORY / "bundles" / "overlay" / "medmerge.json").read_bytes() == OVERLAY_FILE.read_bytes()
    assert main(["overlay", "--to", str(tmp_path)]) == 0
    assert main(["overlay", "--to", str(tmp_path / "absent")]) == 2
    assert main(["overlay", "--to", str(tmp_path / "medmerge.json")]) == 2
    assert "found a file" in capsys.readouterr().err
    # Settings may be written into the copy.
    (tmp_path / "medmerge.json").write_text('{"sources": ["a.pt"]}')
    assert main(["overlay", "--to", str(tmp_path)]) == 2
    assert "found another medmerge.json" in capsys.readouterr().err
    assert (tmp_path / "medmerge.json").read_text() == '{"sources": ["a.pt"]}'


@pytest.mark.slow
def test_two_processes_under_torchrun(tmp_path: Path) -> None:
    bundle = Bundle(tmp_path, "segmentation")
    (tmp_path / "models").mkdir()
    bundle.source("models/model.pt", seed=3)
    shutil.copy(OVERLAY_FILE, tmp_path)
    before = bundle.files()
    files = "['configs/train.json','configs/multi_gpu_train.json','medmerge.json']"
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += ["-m", "monai.bundle", "run", "--config_file", files, "--sources", "['s1.pt','s2.pt']"]
    done = subprocess.run(
        [*command, "--coefficient_epochs", "1"], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert bundle.files() == before
    check_inference_loads(tmp_path, tmp_path / "medmerge" / "model.pt")
    check_inference_loads(tmp_path, tmp_path / "medmerge" / "models" / "model.pt")
