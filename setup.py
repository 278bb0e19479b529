"""What setup.cfg cannot say: bundles in the wheel, and links of README that work from a package's page."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
PROJECT_URL = "https://github.com/monai-medmerge/monai_medmerge"
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)]+)\)")


class BuildWithBundles(build_py):
    """Take each of `bundles/` along as `monai_medmerge/zoo/NAME`; an editable install finds them where they are."""

    def run(self) -> None:
        """Build the package, then lay the bundles beside it."""
        super().run()
        if self.editable_mode:
            return
        zoo = Path(self.build_lib, "monai_medmerge", "zoo")
        shutil.rmtree(zoo, ignore_errors=True)
        for metadata in sorted(ROOT.glob("bundles/*/configs/metadata.json")):
            bundle = metadata.parent.parent
            # Only what a bundle is made of: a run may have left its output beside.
            for part in ("configs", "docs", "models"):
                shutil.copytree(bundle / part, zoo / bundle.name / part)
            shutil.copyfile(bundle / "LICENSE", zoo / bundle.name / "LICENSE")


def _described() -> str:
    """README with links that lead to the project's pages: a package's page has no files beside it."""

    def absolute(link: re.Match[str]) -> str:
        image, text, target = link.groups()
        return f"{image}[{text}]({PROJECT_URL}/{'raw' if image else 'blob'}/main/{target})"

    return LINK.sub(absolute, (ROOT / "README.md").read_text(encoding="utf-8"))


setup(
    url=PROJECT_URL,
    project_urls={
        "Documentation": f"{PROJECT_URL}/tree/main/docs",
        "Changelog": f"{PROJECT_URL}/blob/main/CHANGELOG.md",
        "Paper": "https://arxiv.org/abs/2403.11646",
    },
    long_description=_described(),
    long_description_content_type="text/markdown",
    cmdclass={"build_py": BuildWithBundles},
)
