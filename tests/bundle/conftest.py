"""Fixtures of the tests that run bundles in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import monai
import pytest
from bundle.overlay.overlay_runs import Bundle


@pytest.fixture
def determinism() -> Iterator[None]:
    """Bundles fix seeds for their process; this one goes on to other tests."""
    yield
    monai.utils.set_determinism(None)


@pytest.fixture
def bundle(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, determinism: None
) -> Bundle:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return Bundle(tmp_path, getattr(request, "param", "segmentation"))
