"""A look at a torch archive before torch maps it."""

from __future__ import annotations

import zipfile
from pathlib import Path, PurePosixPath

from monai_medmerge.errors import UnsafeCheckpointError


def check_archive(path: Path) -> None:
    """Refuse a zip whose members lead outside, or whose bytes differ from their checksums (torch does not look).

    Args:
        path: of a zip file.

    Raises:
        UnsafeCheckpointError: the archive is damaged, compressed or leads outside.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                parts = PurePosixPath(member.filename.replace("\\", "/")).parts
                if ".." in parts or not parts or parts[0] == "/":
                    raise UnsafeCheckpointError("members inside the archive", "a path that leads outside", path.name)
                # torch stores members uncompressed; anything else could be a bomb.
                if member.compress_type != zipfile.ZIP_STORED:
                    raise UnsafeCheckpointError(
                        "uncompressed members, as torch writes them", "compressed ones", path.name
                    )
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        if isinstance(error, UnsafeCheckpointError):
            raise
        raise UnsafeCheckpointError("a whole torch archive", reason(error), path.name) from error
    if damaged is not None:
        raise UnsafeCheckpointError("bytes that agree with their checksum", f"damage in {damaged!r}", path.name)


def reason(error: BaseException) -> str:
    """An error's kind and its first line; torch's advice to pass weights_only=False must not reach a user from here.

    Args:
        error: as a library raised it.

    Example:
        >>> reason(ValueError("first" + chr(10) + "second"))
        'ValueError (first)'
    """
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}" + (f" ({text[0][:160]})" if text else "")
