"""`merge` and `verify`: with a bundle, from file to file, and every misuse in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from monai_medmerge import Source
from monai_medmerge.__main__ import main
from monai_medmerge.files import file_sha256, read_json

BRIEF = ["probe_epochs=1", "coefficient_epochs=1", "finetune_epochs=1", "rank=off", "write_report=false"]


def medmerge(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-m", "monai_medmerge", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("sources")
    paths = [folder / f"{name}.safetensors" for name in ("chest", "brain")]
    for seed, path in enumerate(paths):
        torch.manual_seed(seed)
        save_file({"weight": torch.rand(3, 2), "bias": torch.rand(3)}, path)
    return paths


def test_a_bundle_is_merged_and_verified(bundle_root: Path, phantoms: Path, tmp_path: Path) -> None:
    models = bundle_root / "models"
    settings = [part for text in BRIEF for part in ("--set", text)]
    sources = [
        "--source",
        f"chest={models / 'chest_xray.safetensors'}",
        "--source",
        f"b={models / 'natural.safetensors'}",
    ]
    done = medmerge(
        tmp_path, "merge", "--bundle", "medmerge_classification", "--dataset", phantoms, *sources, *settings,
        "--output", "OUT",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "%|" not in done.stderr
    metrics = read_json(tmp_path / "OUT/metrics.json")
    assert list(metrics["sources"]) == ["chest", "b"]
    last = done.stdout.splitlines()[-4:]
    assert last[0] == "written: OUT"
    assert last[1].startswith(f"found: fine tuned: macro f1 {metrics['stages']['fine_tuned']['macro_f1']:.3f}, 95 %")
    # One hash for one network, wherever it is told.
    assert Source.from_file(tmp_path / "OUT/model.pt").sha256 == metrics["weights_sha256"]
    assert last[2] == f"found: weights {metrics['weights_sha256'][:16]}, merged from chest, b"
    assert last[3] == "next: medmerge export --weights OUT/model.pt --output BUNDLE"
    model = tmp_path / "OUT/model.pt"
    verified = medmerge(
        tmp_path, "verify", "--bundle", bundle_root, "--dataset", phantoms, "--reference", model, "--candidate", model,
        "--output", "CHECKED",
    )  # fmt: skip
    gate = read_json(tmp_path / "CHECKED/report.json")["gate"]
    assert verified.returncode == gate["exit_status"], verified.stderr[-2000:]
    assert "written: CHECKED/report.html" in verified.stdout
    assert f"found: {gate['outcome']}; limits: " in verified.stdout


def test_files_become_a_file(files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "merged.safetensors"
    given = [part for path in files for part in ("--source", str(path))]
    fits = ["--network", "torch.nn.Linear(in_features=2, out_features=3)"]
    assert main(["merge", *given, "--method", "mean", "--output", str(output), *fits]) == 0
    expected = (load_file(files[0])["weight"] + load_file(files[1])["weight"]) / 2
    torch.testing.assert_close(load_file(output)["weight"], expected)
    printed = capsys.readouterr().out
    assert f"weights {Source.from_file(output).sha256[:16]}" in printed
    assert f"--source {output}" in printed.splitlines()[-1]
    fits = ["--network", "torch.nn.Linear(in_features=5, out_features=3)"]
    assert main(["merge", *given, "--method", "mean", "--output", str(tmp_path / "no.safetensors"), *fits]) == 1
    assert not (tmp_path / "no.safetensors").exists()
    options = ["--method", "slerp", "--set", "t=0"]
    assert main(["merge", *given, *options, "--output", str(output)]) == 0
    torch.testing.assert_close(load_file(output)["weight"], load_file(files[0])["weight"])


def test_every_misuse_is_one_line(files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, digest = ["--source", str(files[0])], file_sha256(files[0])
    out = ["--output", str(tmp_path / "out")]
    bundle = ["--bundle", "medmerge_classification", "--dataset", str(tmp_path)]
    verify = ["verify", *bundle, "--reference", str(files[0]), "--candidate", str(files[1]), *out]
    wrong = {
        "--output": ["merge", *source, "--method", "mean"],
        "--source and --method, or": ["merge", *out],
        "--bundle with --dataset": ["merge", "--dataset", str(tmp_path), *source, "--method", "mean", *out],
        "--dataset with --bundle": ["merge", "--bundle", "medmerge_classification", *out],
        "the nearest is medmerge_classification": ["merge", "--bundle", "medmerge_clasification", *out, *bundle[2:]],
        "configs/merge.json": ["merge", "--bundle", str(tmp_path), *out, *bundle[2:]],
        "uniform_average": ["merge", *source, "--method", "median", *out],
        "a .safetensors file to write": ["merge", *source, "--method", "mean", *out],
        "name of its own": ["merge", *bundle, "--source", "a=x.pt", "--source", "y.pt", *out],
        "NAME=PATH or PATH": ["merge", *bundle, "--source", "=x.pt", *out],
        "--dataset for this": ["merge", *bundle, *out, "--set", "dataset_dir=x"],
        "would be evaluated": ["merge", *bundle, *out, "--set", "seed=$__import__('os').getpid()"],
        "found one that begins with @": ["merge", *bundle, *out, "--set", 'source_map={"a": ["@seed"]}'],
        "key=value": ["merge", *bundle, *out, "--set", "seed"],
        "the name of a setting": ["merge", *bundle, *out, "--set", "config_file=x.json"],
        "it twice": ["merge", *bundle, *out, "--set", "seed=1", "--set", "seed=2"],
        "no --network with --bundle": ["merge", *bundle, *out, "--network", "UNet"],
        "--candidate": verify[:7],
        "--gate for this": [*verify, "--set", "gate_file=x"],
    }
    for expected, arguments in wrong.items():
        try:
            status: object = main(arguments)
        except SystemExit as exited:
            status = exited.code
        printed = capsys.readouterr()
        assert (status, printed.out, printed.err.count("\n")) == (2, "", 1), (expected, printed)
        assert expected in printed.err
    assert list(tmp_path.iterdir()) == []
    assert file_sha256(files[0]) == digest


def test_what_a_run_refuses_is_one_line(phantoms: Path, tmp_path: Path) -> None:
    where = ["--bundle", "medmerge_classification", "--dataset", phantoms, "--output", tmp_path / "OUT"]
    done = medmerge(tmp_path, "merge", *where, "--set", "finetune_epoch=1")
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "the nearest is finetune_epochs" in line
    assert "Traceback" not in done.stderr
