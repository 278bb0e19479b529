"""Modules that MONAI Label 0.8.5 imports but serving does not need, and that cannot be had beside this package.

- `pydicom_seg`: not maintained, fails on pydicom 3. Without it Label neither reads nor writes DICOM SEG.
- `torchvision`: its builds need the PyTorch of the same build. Of its `utils`, Label imports two functions that draw.

``python -m monai_medmerge.label.stand_ins`` writes them into its own environment, where the real ones are absent.
"""

from __future__ import annotations

import sysconfig
from importlib.util import find_spec
from pathlib import Path

from monai_medmerge.files import write_text

MARK = '"""A stand-in, written by monai_medmerge.label.stand_ins; the real module is not installed."""\n'
DRAWING = """
def make_grid(*arguments, **keywords):
    raise NotImplementedError("torchvision is not installed: a stand-in was asked to draw")


save_image = make_grid
"""
FILES = {
    "pydicom_seg": {"pydicom_seg/__init__.py": MARK},
    "torchvision": {"torchvision/__init__.py": MARK, "torchvision/utils.py": MARK + DRAWING},
}


def install(folder: Path | None = None) -> list[str]:
    """Write a stand-in for each module that is absent.

    Args:
        folder: of the installed packages; this environment's if None.

    Returns:
        The names of the modules that were written.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     written = install(Path(folder))
        ...     Path(folder, "pydicom_seg", "__init__.py").exists() == ("pydicom_seg" in written)
        True
    """
    root = Path(sysconfig.get_path("purelib")) if folder is None else folder
    absent = [name for name in FILES if find_spec(name) is None]
    for name in absent:
        for file, text in FILES[name].items():
            write_text(root / file, text)
    return absent


if __name__ == "__main__":
    install()
