"""Sources as a command line or a configuration names them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from monai_medmerge.errors import SettingError
from monai_medmerge.sources.checkpoint.places import plain_name, split_part
from monai_medmerge.sources.checkpoint.source import Source
from monai_medmerge.sources.names.keymaps import KeyMap

Paths = str | Path | Sequence[str | Path] | Mapping[str, str | Path]


def load_sources(paths: Paths, key_map: KeyMap | None = None) -> list[Source]:
    """Read several sources, each with a name of its own.

    Args:
        paths: files or bundle folders, or `FILE::PART` for one of several networks in a file; names are those of the
            files, with as much of their folders as tells them apart, or the keys of a mapping.
        key_map: as of `Source.from_file`, for all of them.

    Raises:
        SettingError: there is none, or one is no path.
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
        listed = _checked(list(paths.values()))
        names = [str(name) for name in paths]
    else:
        listed = _checked([paths] if isinstance(paths, str | Path) else paths)
        names = _names(listed)
    parts = [split_part(path) for path in listed]
    return [Source.from_file(path, name, key_map, part) for (path, part), name in zip(parts, names, strict=True)]


def _checked(paths: object) -> list[Path]:
    """What a command line or a configuration hands over may be of any type."""
    expected = "one or more sources, files or bundle folders: \"['a.pt','b.safetensors']\""
    if not isinstance(paths, Sequence) or not paths:
        raise SettingError(expected, f"a {type(paths).__name__}" if paths else "none", "sources")
    for number, path in enumerate(paths):
        if not isinstance(path, str | Path) or not str(path):
            raise SettingError(expected, f"a {type(path).__name__}" if path else repr(path), f"sources[{number}]")
    # A folder may be given as `.`, which has no name; a link keeps the name that it has.
    return [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100


def _names(paths: Sequence[Path]) -> list[str]:
    """Without suffixes; a part follows its file."""
    found = []
    for path in paths:
        file, part = split_part(path)
        plain = file if file.is_dir() else file.with_name(plain_name(file))
        found.append(plain / part.replace("/", ".") if part else plain)
    return distinct_ends(found)


def distinct_ends(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of paths that differ; numbered where one path is given twice.

    Args:
        paths: absolute ones.

    Example:
        >>> distinct_ends([Path("/chest/model"), Path("/brain/model")])
        ['chest/model', 'brain/model']
    """
    parts = [path.parts[1:] for path in paths]
    for length in range(1, max(map(len, parts), default=0) + 1):
        ends = ["/".join(part[-length:]) for part in parts]
        if len(set(ends)) == len(ends):
            return ends
    return [f"{path.name} {number}" for number, path in enumerate(paths, start=1)]
