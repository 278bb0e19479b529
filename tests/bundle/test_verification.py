"""verify.json as a site runs it: planted truths, subgroups, its exit status, and no patient's name anywhere."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest
import torch
from phantom_lesions import write_phantoms

from monai_medmerge.bundle import load_cases, read_gate
from monai_medmerge.errors import DatasetError, SettingError
from monai_medmerge.evaluation import DEFAULT_LIMITS

Command = Callable[..., list[str]]
# Long: three letters turn up by chance among the bytes of weights and pictures.
PATIENT = "MUSTERMANN^ERIKAMARIE"
CLASSES = ["cyst", "benign", "malignant"]


def rename(folder: Path) -> None:
    """Give every test image the planted name: in its file's name, its DICOM header and its entry; and a scanner."""
    content = json.loads((folder / "dataset.json").read_text())
    content["description"] = f"Study of {PATIENT}"
    rows = []
    for number, entry in enumerate(content["test"]):
        old, new = folder / entry["image"], folder / "test" / f"{PATIENT}_{number}.dcm"
        image = pydicom.dcmread(old)
        image.PatientName, image.PatientID, image.StudyDescription = PATIENT, PATIENT, f"for {PATIENT}"
        image.save_as(new)
        old.unlink()
        entry |= {"image": f"test/{new.name}", "patient": f"{PATIENT} {number // 2}", "note": PATIENT}
        rows.append({"image": entry["image"], "scanner": "AB"[number % 2], "name": PATIENT})
    (folder / "dataset.json").write_text(json.dumps(content))
    with (folder / "columns.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_phantoms(tmp_path_factory.mktemp("site") / "data", training=12, validation=3, test=120, seed=3)
    rename(folder)
    return folder


@pytest.fixture(scope="module")
def weights(bundle_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The bundle's network, its confidence set right; and the same with one class said too seldom."""
    folder = tmp_path_factory.mktemp("weights")
    state = torch.load(bundle_root / "models" / "model.pt", weights_only=True)
    state["fc.weight"], state["fc.bias"] = state["fc.weight"] / 2, state["fc.bias"] / 2
    torch.save(state, folder / "reference.pt")
    state["fc.bias"][CLASSES.index("malignant")] -= 1
    torch.save(state, folder / "damaged.pt")
    shutil.copy(bundle_root / "models" / "model.json", folder)
    return {path.stem: path for path in folder.glob("*.pt")}


def verify(command: list[str]) -> tuple[int, str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stdout + done.stderr


def report_of(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "verification" / "report.json").read_text())
    return found


def test_an_equal_candidate_passes_and_no_patient_is_named(
    bundle_command: Command, site: Path, weights: dict[str, Path], tmp_path: Path
) -> None:
    options = {
        "subgroups": "['scanner']",
        "patient": "patient",
        "columns_file": tmp_path / "columns.csv",
        "salt": "pepper",
    }
    # What a case is of may be in the CSV as well.
    rows = list(csv.DictReader((site / "columns.csv").open()))
    with (tmp_path / "columns.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, ["image", "scanner", "name", "patient"])
        writer.writeheader()
        writer.writerows({**row, "patient": f"{PATIENT} {n - n // 8}"} for n, row in enumerate(rows))
    reference = weights["reference"]
    files = {"reference": reference, "candidate": reference, "training_data": site}
    command = bundle_command("verify", site_data=site, output_dir=tmp_path / "out", **files, **options)
    status, log = verify(command)
    assert status == 0, log[-2000:]
    report = report_of(tmp_path / "out")
    assert report["gate"]["outcome"] == "passed"
    assert report["gate"]["origin"] == "default, not chosen by the site"
    assert {v["what"] for v in report["gate"]["verdicts"] if v["limit"] == "group_drop"} == {
        "drop in macro F1 where scanner is A",
        "drop in macro F1 where scanner is B",
    }
    assert report["comparison"]["distance"]["far"]["value"] is not None
    assert report["comparison"]["agreement"]["value"] == 1
    written = sorted((tmp_path / "out" / "verification").iterdir())
    assert [path.name for path in written] == ["MODEL_CARD.md", "report.html", "report.json"]
    for text in (log, *(path.read_text() for path in written)):
        assert "MUSTERMANN" not in text
        assert "ERIKAMARIE" not in text


def test_a_class_that_is_damaged_fails_and_no_other(
    bundle_command: Command, site: Path, weights: dict[str, Path], tmp_path: Path
) -> None:
    files = {"reference": weights["reference"], "candidate": weights["damaged"]}
    status, log = verify(bundle_command("verify", site_data=site, output_dir=tmp_path, show_file_names=True, **files))
    assert status == 1, log[-2000:]
    assert "FAILED (limits: default, not chosen by the site)" in log
    report = report_of(tmp_path)
    classes = {v["what"]: v["outcome"] for v in report["gate"]["verdicts"] if v["limit"] == "class_drop"}
    assert classes == {f"drop in recall of {name}": "failed" if name == "malignant" else "passed" for name in CLASSES}
    # Names of files are shown where they are asked for.
    flipped = report["comparison"]["flipped"]
    assert {case["label"] for case in flipped} == {"malignant"}
    assert all(PATIENT in case["name"] for case in flipped)


def test_ten_cases_are_undecided(bundle_command: Command, site: Path, weights: dict[str, Path], tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    content = json.loads((site / "dataset.json").read_text())
    content["test"] = content["test"][:10]
    (few / "dataset.json").write_text(json.dumps(content))
    (few / "test").symlink_to(site / "test")
    reference, options = weights["reference"], {"site_data": few, "output_dir": tmp_path}
    status, log = verify(bundle_command("verify", reference=reference, candidate=weights["damaged"], **options))
    assert status == 3, log[-2000:]
    verdicts = report_of(tmp_path)["gate"]["verdicts"]
    assert {v["outcome"] for v in verdicts} == {"undecided"}
    assert all("not enough" in v["reason"] for v in verdicts)
    # What is in use already may stay in use.
    status, log = verify(bundle_command("verify", reference=reference, candidate=reference, **options))
    assert status == 0, log[-2000:]
    assert report_of(tmp_path)["gate"]["equal"]


def test_the_network_in_use_must_be_named(
    bundle_command: Command, site: Path, weights: dict[str, Path], tmp_path: Path
) -> None:
    status, log = verify(bundle_command("verify", site_data=site, candidate=weights["reference"], output_dir=tmp_path))
    assert status != 0
    assert "reference: expected the weights of the network in use" in log


def test_a_run_that_ends_early_leaves_no_older_verdict_in_place(
    bundle_command: Command, site: Path, weights: dict[str, Path], tmp_path: Path
) -> None:
    old = tmp_path / "out" / "verification"
    old.mkdir(parents=True)
    for name in ("report.html", "report.json", "MODEL_CARD.md", "notes.txt"):
        (old / name).write_text("passed")
    (tmp_path / "broken.pt").write_bytes(weights["reference"].read_bytes()[:1000])
    files = {"reference": weights["reference"], "candidate": tmp_path / "broken.pt"}
    status, log = verify(bundle_command("verify", site_data=site, output_dir=tmp_path / "out", **files))
    assert status == 2
    assert "broken.pt: expected" in log
    assert "Moved an older verification to superseded: report.html, report.json, MODEL_CARD.md" in log
    assert sorted(path.name for path in old.iterdir()) == ["notes.txt", "superseded"]
    assert {path.read_text() for path in (old / "superseded").iterdir()} == {"passed"}


def test_the_shipped_limits_are_the_defaults(bundle_root: Path, tmp_path: Path) -> None:
    gate = read_gate(bundle_root / "configs" / "gate.json")
    assert gate == {"origin": "default", "evidence": "estimate", "limits": DEFAULT_LIMITS}
    wrong = [("a.json", "{", "JSON text"), ("b.json", "[]", "a JSON object"), ("c.json", None, "limits")]
    for name, text, word in wrong:
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(SettingError, match=word):
            read_gate(tmp_path / name)


def test_columns_are_read_from_either_file_or_refused(site: Path, tmp_path: Path) -> None:
    cases = load_cases(site, "test", 3, ["scanner"], site / "columns.csv")
    assert [case["scanner"] for case in cases[:3]] == ["A", "B", "A"]
    assert load_cases(site, "test", 3, ["patient", None])[2]["patient"] == f"{PATIENT} 1"
    lines = (site / "columns.csv").read_text().splitlines()
    wrong = {
        "absent.csv": (None, "a CSV file"),
        "short.csv": (lines[:5], "short.csv, image 4 of test: expected a value of column 'scanner'"),
        "other.csv": (["file,scanner", "a,A"], "a column 'image'"),
        "twice.csv": ([*lines, lines[1]], "one row for every image"),
    }
    for name, (content, words) in wrong.items():
        if content is not None:
            (tmp_path / name).write_text("\n".join(content))
        with pytest.raises(DatasetError, match=words) as caught:
            load_cases(site, "test", 3, ["scanner"], tmp_path / name)
        assert "MUSTERMANN" not in str(caught.value)
    with pytest.raises(DatasetError, match="'sex'"):
        load_cases(site, "test", 3, ["sex"])


def test_a_run_names_no_patient(bundle_command: Command, site: Path, weights: dict[str, Path], tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(site, data)
    epochs = {"probe_epochs": 1, "coefficient_epochs": 1, "finetune_epochs": 1}
    output = tmp_path / "out"
    command = bundle_command(
        "merge", dataset_dir=data, output_dir=output, reference=weights["reference"], rank="choose", **epochs
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads((output / "report.json").read_text())
    assert report["gate"]["outcome"] in ("failed", "undecided")
    # What the ranking proposes is what was merged, the best first.
    assert [source["name"] for source in report["sources"]] == report["ranking"]["proposed"]
    assert all(source["licence"] != "not stated" for source in report["sources"])
    texts = [done.stdout, done.stderr]
    texts += [path.read_bytes().decode("latin-1") for path in output.rglob("*") if path.is_file()]
    for text in texts:
        assert "MUSTERMANN" not in text
        assert "ERIKAMARIE" not in text
