"""Sources as a command line or a configuration names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from monai_medmerge.errors import SettingError
from monai_medmerge.sources.checkpoint import Source, plain_name

Paths = str | Path | Sequence[str | Path] | Mapping[str, str | Path]


def load_sources(paths: Paths) -> list[Source]:
    """Read several sources, each with a name of its own.

    Args:
        paths: files or bundle folders; names are those of the files, with as much of their folders as tells them
            apart, or the keys of a mapping.

    Raises:
        SettingError: there is none.
        UnsafeCheckpointError: one cannot be read.

    Example:
        >>> import tempfile, torch
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("chest", "brain"):
        ...     (folder / name).mkdir()
        ...     torch.save({"weight": torch.ones(1)}, folder / name / "model.pt")
        >>> [source.name for source in load_sources([folder / "chest/model.pt", folder / "brain/model.pt"])]
        ['chest/model', 'brain/model']
    """
    if isinstance(paths, Mapping):
        named = {str(name): Path(path) for name, path in paths.items()}
    else:
        listed = [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
        named = dict(zip(_names(listed), listed, strict=True))
    if not named:
        raise SettingError("one or more sources: files or bundle folders", "none", "sources")
    return [Source.from_file(path, name) for name, path in named.items()]


def _names(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of paths, without suffixes, that differ; numbered where one file is given twice."""
    parts = [(*path.absolute().parent.parts, path.name if path.is_dir() else plain_name(path)) for path in paths]
    for length in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{plain_name(path)} {number}" for number, path in enumerate(paths, start=1)]
