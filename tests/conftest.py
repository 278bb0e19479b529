"""Shared fixtures: small dataset folders, and the way tests start the bundle as a user would."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# Shapes and dtypes of the annotations are checked in tests alone; in production they cost nothing.
install_import_hook(["monai_medmerge.networks", "monai_medmerge.evaluation.bootstrap"], "beartype.beartype")

# Workers of pytest-xdist share the cores; threads that spin for each other would make every small step a thousand
# times slower. Subprocesses inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
REPOSITORY = Path(__file__).parent.parent
sys.path.insert(0, str(REPOSITORY / "examples"))


@pytest.fixture(scope="session")
def bundle_root() -> Path:
    """The classification bundle."""
    return REPOSITORY / "bundles" / "medmerge_classification"


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small dataset folder of DICOM phantoms: 24 for training, 12 for validation, 15 for tests."""
    from phantom_lesions import write_phantoms

    return write_phantoms(tmp_path_factory.mktemp("data") / "phantoms", training=24, validation=12, test=15, seed=7)


@pytest.fixture(scope="session")
def bundle_command(bundle_root: Path) -> Callable[..., list[str]]:
    """`python -m monai.bundle run` of one configuration, as a list for subprocess."""

    def command(config: str, **overrides: object) -> list[str]:
        configs = bundle_root / "configs"
        files = ["--config_file", str(configs / f"{config}.json"), "--meta_file", str(configs / "metadata.json")]
        files += ["--logging_file", str(configs / "logging.conf"), "--bundle_root", str(bundle_root)]
        options = [part for key, value in overrides.items() for part in (f"--{key}", str(value))]
        return [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", *files, *options]

    return command
