"""Bundles in folders of their own, run with and without the overlay."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bundle.overlay import unusual_bundles, zoo_bundles
from ignite.engine import Engine
from monai.bundle import ConfigParser
from monai.bundle import run as run_bundle
from torch import Tensor

from monai_medmerge.bundle.overlay.starting import OVERLAY_FILE

BUNDLES: dict[str, Callable[[Path], Path]] = {**zoo_bundles.BUNDLES, **unusual_bundles.BUNDLES}
RUN_IDS = {"classification": "training", "two_optimizers": "go"}
HANDLERS = {"classification": "handlers", "two_optimizers": "fit::engine::train_handlers"}
NETWORKS = {"deep_supervision": "network_def", "two_optimizers": "model"}
SAVED = {"classification": "results/checkpoint_final_iteration=*.pt"}


class Bundle:
    """A bundle in a folder of its own, with two sources, run in this process as `python -m monai.bundle run` would."""

    def __init__(self, folder: Path, name: str) -> None:
        self.root = BUNDLES[name](folder)
        self.name = name
        self.config = next((folder / "configs").glob("train.*"))
        config = ConfigParser.load_config_file(self.config)
        self.network_def = config.get("network_def") or config["model"]
        self.sources = [self.source(f"s{seed}.pt", seed) for seed in (1, 2)]

    def source(self, file: str, seed: int, **changes: Any) -> str:
        torch.manual_seed(seed)
        path = self.root / file
        torch.save(self.network(**changes).state_dict(), path)
        return str(path)

    def network(self, **changes: Any) -> torch.nn.Module:
        self.forget_scripts()
        network: torch.nn.Module = ConfigParser({"n": {**self.network_def, **changes}}).get_parsed_content("n")
        return network

    @staticmethod
    def forget_scripts() -> None:
        """Every bundle has its own `scripts`, and one process runs them all."""
        for module in [name for name in sys.modules if name.split(".")[0] == "scripts"]:
            del sys.modules[module]

    def run(self, *configs: Path, **overrides: Any) -> None:
        self.forget_scripts()
        files = [str(path) for path in (self.config, *configs)]
        run_bundle(RUN_IDS.get(self.name, "run"), config_file=files, **overrides)

    def merge(self, sources: Any, **overrides: Any) -> dict[str, Tensor]:
        """Run with the overlay; the weights at the end."""
        self.run(OVERLAY_FILE, sources=sources, **overrides)
        return load(self.root / "medmerge" / "model.pt")

    def finetune(self, start: str | Path) -> dict[str, Tensor]:
        """The user's own way without any overlay: a CheckpointLoader among the handlers; the weights at the end."""
        network = NETWORKS.get(self.name, "network")
        loader = {"_target_": "CheckpointLoader", "load_path": str(start), "load_dict": {"model": f"@{network}"}}
        saving = f"$torch.save(@{network}.state_dict(), '{self.root}/own.pt')"
        handlers = HANDLERS.get(self.name, "train::handlers")
        extra = {f"+{handlers}": [loader], f"+{RUN_IDS.get(self.name, 'run')}": [saving]}
        path = self.root / "loader.json"
        path.write_text(json.dumps(extra))
        self.run(path)
        return load(self.root / "own.pt")

    def files(self) -> dict[str, bytes]:
        """What is the user's: configs, data, scripts and a model that is there."""
        folders = [self.root / name for name in ("configs", "data", "scripts", "models")]
        return {str(p): p.read_bytes() for f in folders for p in f.rglob("*") if p.is_file() and p.suffix != ".pyc"}


def load(path: str | Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(path, weights_only=True)
    return state


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def check_inference_loads(root: Path, checkpoint: Path) -> None:
    """The bundle's own inference configuration loads a checkpoint, strictly."""
    parser = ConfigParser()
    parser.read_config(next((root / "configs").glob("inference.*")))
    parser["checkpoint"] = str(checkpoint)
    loader = parser.get_parsed_content("checkpointloader")
    assert loader.strict
    loader(Engine(lambda *_: None))
    expected = load(checkpoint)
    expected = expected.get("model", expected)  # type: ignore[assignment]
    assert same(dict(parser.get_parsed_content("network").state_dict()), expected)


def overriding(folder: Path, **content: Any) -> Path:
    path = folder / "changes.json"
    path.write_text(json.dumps(content))
    return path
