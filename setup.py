"""What setup.cfg cannot say: links of README that work from a package's page, which has no files beside it."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import setup

PROJECT_URL = "https://github.com/monai-medmerge/monai_medmerge"
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)]+)\)")


def _absolute(link: re.Match[str]) -> str:
    image, text, target = link.groups()
    return f"{image}[{text}]({PROJECT_URL}/{'raw' if image else 'blob'}/main/{target})"


setup(
    url=PROJECT_URL,
    project_urls={
        "Documentation": f"{PROJECT_URL}/tree/main/docs",
        "Changelog": f"{PROJECT_URL}/blob/main/CHANGELOG.md",
        "Paper": "https://arxiv.org/abs/2403.11646",
    },
    long_description=LINK.sub(_absolute, (Path(__file__).parent / "README.md").read_text(encoding="utf-8")),
    long_description_content_type="text/markdown",
)
