"""`doctor`: what of the package works here: versions, extras, device, codecs."""

from __future__ import annotations

import argparse
import platform
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING

import torch

from monai_medmerge import __version__

if TYPE_CHECKING:
    from argparse import _SubParsersAction

PACKAGE = "monai_medmerge"
USED = ("torch", "monai", "pytorch-ignite", "numpy", "nibabel", "pydicom", "itk", "scikit-image")
EXTRAS = {
    "dicom": "compressed DICOM, DICOM SEG and reports",
    "web": "series over DICOMweb",
    "report": "ranking, comparison, pictures, the report",
    "tensorboard": "curves in TensorBoard",
    "bundle": "checks of a bundle's metadata",
    "export": "ONNX",
    "completion": "completion of the shell",
}


def add(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to a parser's commands."""
    command = commands.add_parser("doctor", help="versions, extras, device and codecs of this installation")
    command.set_defaults(run=run)


def found_version(name: str) -> str | None:
    """The version of an installed package; None if it is absent."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def missing(extra: str) -> list[str] | None:
    """The packages of an extra that are absent; None where the installation does not say what belongs to it."""
    try:
        asked = requires(PACKAGE) or []
    except PackageNotFoundError:
        return None
    marker = f'extra == "{extra}"'
    names = [line.split(";")[0].split(">")[0].strip() for line in asked if marker in line.replace("'", '"')]
    return [name for name in names if found_version(name) is None]


def codecs() -> dict[str, bool]:
    """Whether pydicom can decode the compressed transfer syntaxes that archives hold."""
    from pydicom.pixels import get_decoder
    from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLosslessSV1, JPEGLSLossless, RLELossless

    syntaxes = (JPEGBaseline8Bit, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, RLELossless)
    return {syntax.name.split(" (")[0].split(",")[0]: get_decoder(syntax).is_available for syntax in syntaxes}


def run(arguments: argparse.Namespace) -> int:
    """Print it all: 0 if what every way needs is there, 1 if not."""
    print(f"medmerge {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    absent = [name for name in USED if found_version(name) is None]
    print("packages: " + ", ".join(f"{name} {found_version(name) or 'ABSENT'}" for name in USED))
    for extra, purpose in EXTRAS.items():
        without = missing(extra)
        if without is None:
            print(f"extra {extra} ({purpose}): not known, as the package is not installed")
        elif without:
            print(f"extra {extra} ({purpose}): {', '.join(without)} absent; pip install 'monai_medmerge[{extra}]'")
        else:
            print(f"extra {extra} ({purpose}): there")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none, so the processor is used"
    print(f"accelerator: {device}; threads: {torch.get_num_threads()}")
    print("codecs: " + ", ".join(f"{name} {'there' if there else 'ABSENT'}" for name, there in codecs().items()))
    print(f"next: {'pip install ' + ' '.join(absent) if absent else 'medmerge bundles'}")
    return 1 if absent else 0
