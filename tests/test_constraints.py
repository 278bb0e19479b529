"""The environments of the Makefile can be resolved: no package has two versions."""

import re
from pathlib import Path

CONSTRAINTS = Path(__file__).parents[1] / "constraints"


def pinned(path: Path) -> dict[str, str]:
    """Versions by package name, as PEP 503 normalises it."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", path.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name.lower()): version for name, version in found}


def test_no_package_is_pinned_in_two_files():
    common, label = pinned(CONSTRAINTS / "cpu.txt"), pinned(CONSTRAINTS / "label.txt")
    assert len(common) > 50
    assert len(label) > 20
    assert set(common) & set(label) == set()
