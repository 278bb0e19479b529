"""The stages: check, merge, gate, export, parity."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_medmerge.bundle.export.choosing import Stated, choose
from monai_medmerge.bundle.export.texts import BundleCard
from monai_medmerge.bundle.export.writing import export_bundle
from monai_medmerge.bundle.running import run_config
from monai_medmerge.data.datasets import DATALIST, read_datalist
from monai_medmerge.errors import DatasetError, MedMergeError, SettingError
from monai_medmerge.files import below, file_sha256, owned
from monai_medmerge.pipeline.parity import first_difference
from monai_medmerge.pipeline.stage import Job, Results, Stage
from monai_medmerge.sources import Source, load_sources

SECTIONS = ("training", "validation", "test")
WORDS = {0: "passed", 1: "failed", 3: "undecided"}
TOLERANCE = 1e-4


def _data(job: Job) -> dict[str, str]:
    """Hashes of all files that the dataset names, as one."""
    content = read_datalist(job.dataset / DATALIST)
    named = [
        entry[key]
        for section in (*SECTIONS, "unlabelled")
        for entry in content.get(section, [])
        if isinstance(entry, dict)
        for key in ("image", "label")
        if isinstance(entry.get(key), str)
    ]
    found = []
    for name in named:
        path = below(job.dataset, name, DATALIST)
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        if not all(file.is_file() for file in files):
            raise DatasetError("every image that it names", "one that is absent", DATALIST)
        found += [file_sha256(file) for file in files]
    return {"dataset": file_sha256(job.dataset / DATALIST), "images": _of_texts(found)}


def _of_texts(texts: list[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def _configs(job: Job) -> dict[str, str]:
    files = sorted((job.bundle / "configs").glob("*"))
    return {"bundle": _of_texts([file.name + file_sha256(file) for file in files if file.is_file()])}


def _sources(job: Job) -> list[Source]:
    return load_sources(dict(job.sources) if isinstance(job.sources, Mapping) else job.sources) if job.sources else []


def check_inputs(job: Job, results: Results) -> Mapping[str, Any]:
    """All that the user gives."""
    sources = {source.name: source.sha256 for source in _sources(job)}
    in_use = file_sha256(job.in_use) if job.in_use else None
    return {**_data(job), **_configs(job), "sources": sources, "in_use": in_use}


def check(job: Job, results: Results, folder: Path) -> Mapping[str, Any]:
    """Refuse before anything long: parts that are absent, files that are in two parts, sources that are alike."""
    content = read_datalist(job.dataset / DATALIST)
    for section in SECTIONS:
        if not content.get(section):
            raise DatasetError(f"a section {section!r} with an image", "none", DATALIST)
    digests: dict[str, str] = {}
    for section in SECTIONS:
        for entry in content[section]:
            path = below(job.dataset, str(entry["image"]), DATALIST)
            digest = file_sha256(path) if path.is_file() else str(path)
            if digests.setdefault(digest, section) != section:
                found = f"the same in {digests[digest]} and {section}"
                raise DatasetError("an image in one section only", found, DATALIST)
    sources = _sources(job)
    if len({source.sha256 for source in sources}) < len(sources):
        raise SettingError("sources that differ", "two with the same weights", "--source")
    return {**check_inputs(job, results), "counts": {section: len(content[section]) for section in SECTIONS}}


def merge_inputs(job: Job, results: Results) -> Mapping[str, Any]:
    """What the check saw, and the settings."""
    seen = results["check"]
    return {name: seen[name] for name in ("dataset", "images", "bundle", "sources")} | {"settings": dict(job.settings)}


def merge(job: Job, results: Results, folder: Path) -> Mapping[str, Any]:
    """Run `merge.json`, which goes on from its own checkpoints."""
    sources = {"source_files": job.sources} if job.sources else {}
    places = {"dataset_dir": str(job.dataset), "output_dir": str(folder)}
    status = run_config(job.bundle, "merge", {**job.settings, **sources, **places})
    if status:
        raise SettingError("merging to end with 0", str(status), "merge")
    stages = json.loads((folder / "metrics.json").read_text())["stages"]
    reached = {
        name: {key: stage.get(key) for key in ("macro_f1", "dice", "interval")} for name, stage in stages.items()
    }
    return {"weights": _weights(folder), "definition": file_sha256(folder / "model.json"), "reached": reached}


def _weights(folder: Path) -> str:
    return Source.from_file(folder / "model.pt").sha256


def gate_inputs(job: Job, results: Results) -> Mapping[str, Any]:
    """The candidate, the network in use, the limits and the cases."""
    seen = {name: results["check"][name] for name in ("dataset", "images", "bundle", "in_use")}
    return {**seen, "weights": results["merge"]["weights"]}


def gate(job: Job, results: Results, folder: Path) -> Mapping[str, Any]:
    """Hold the candidate against the network in use; only `passed` lets it go on."""
    if job.in_use is None:
        return {"outcome": "no network in use, so none to compare with"}
    settings = {
        "site_data": str(job.dataset), "reference": str(job.in_use), "candidate": str(_merged(job)),
        "output_dir": str(folder), "report_dir": str(folder),
    }  # fmt: skip
    status = run_config(job.bundle, "verify", settings)
    outcome = WORDS.get(status, f"status {status}")
    if status == 0:
        return {"outcome": outcome}
    stop = {"status": status, "expected": "a gate that is passed", "found": f"{outcome}, see the report"}
    return {"outcome": outcome, "stop": stop}


def _merged(job: Job) -> Path:
    return job.output / "2_merge" / "model.pt"


def export_inputs(job: Job, results: Results) -> Mapping[str, Any]:
    """The network, its definition, and that the gate let it go on."""
    return {**results["merge"], "gate": results["gate"]["outcome"]}


def export(job: Job, results: Results, folder: Path) -> Mapping[str, Any]:
    """Write the bundle that is deployed."""
    chosen = choose(_merged(job), Stated(None, None, None, None, None, None))
    target = folder / "bundle"
    if target.exists():
        shutil.rmtree(target)
    export_bundle(
        target, chosen.network, _merged(job), BundleCard(**chosen.card), chosen.preprocessing,
        scripts=chosen.scripts, definition=chosen.definition,
    )  # fmt: skip
    return {"bundle": "4_export/bundle", "weights": Source.from_file(target / "models" / "model.pt").sha256}


def parity_inputs(job: Job, results: Results) -> Mapping[str, Any]:
    """The exported bundle, file by file, and the images."""
    bundle = job.output / str(results["export"]["bundle"])
    files = [path for path in sorted(bundle.rglob("*")) if path.is_file() and "__pycache__" not in path.parts]
    exported = _of_texts([str(path.relative_to(bundle)) + file_sha256(path) for path in files])
    return {"exported": exported, **{name: results["check"][name] for name in ("dataset", "images")}}


def parity(job: Job, results: Results, folder: Path) -> Mapping[str, Any]:
    """The test images through the merged network and through the exported bundle, in a process of its own."""
    images = folder / "images"
    images.mkdir(exist_ok=True)
    for number, entry in enumerate(read_datalist(job.dataset / DATALIST)["test"]):
        source = below(job.dataset, entry["image"], DATALIST)
        suffix = ".nii.gz" if source.name.endswith(".nii.gz") else source.suffix
        if source.is_dir():
            shutil.copytree(source, images / f"{number:05d}", dirs_exist_ok=True)
        else:
            shutil.copyfile(source, images / f"{number:05d}{suffix}")
    places = {"dataset_dir": str(images), "output_dir": str(folder / "before")}
    run_config(job.bundle, "inference", {**places, "ckpt": str(_merged(job))})
    bundle = job.output / str(results["export"]["bundle"])
    command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run"]
    command += ["--config_file", str(bundle / "configs" / "inference.json"), "--bundle_root", str(bundle)]
    command += ["--dataset_dir", str(images), "--output_dir", str(folder / "after")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=dict(os.environ))  # noqa: S603
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise MedMergeError("the exported bundle to run", said[:200], "parity")
    with owned(folder):
        found = first_difference(folder / "before", folder / "after", TOLERANCE)
    if found.where:
        stop = {"status": 1, "expected": f"answers equal to {TOLERANCE:g}", "found": found.where}
        return {"images": found.images, "largest": found.largest, "stop": stop}
    return {"images": found.images, "largest": found.largest}


STAGES = (
    Stage("check", check_inputs, check),
    Stage("merge", merge_inputs, merge),
    Stage("gate", gate_inputs, gate),
    Stage("export", export_inputs, export),
    Stage("parity", parity_inputs, parity),
)
"""From sources and images to a bundle that answers as the network does."""
