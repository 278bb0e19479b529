"""Sources as a configuration's settings have them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from monai_medmerge.errors import SettingError
from monai_medmerge.sources import Source, adapt, load_sources
from monai_medmerge.sources.loading import Paths


def read_sources(
    network: nn.Module, paths: Paths, key_map: str | Mapping[str, str] | None = None, adapting: bool = False
) -> list[Source]:
    """Sources as they are merged: names mapped, and fitted to the network where that is wanted.

    Args:
        network: to be merged into.
        paths: as of `load_sources`.
        key_map: of `Source.from_file`, for every source; found from the names if None.
        adapting: fit other input channels, dimensions and precision, see `adapt`.

    Raises:
        SettingError: a setting is of another type.
        UnsafeCheckpointError: a source cannot be read.
    """
    if not isinstance(adapting, bool):
        raise SettingError("true or false", repr(adapting), "adapt")
    sources = load_sources(paths, checked_key_map(key_map))
    return [adapt(network, source) for source in sources] if adapting else sources


def checked_key_map(key_map: object) -> str | Mapping[str, str] | None:
    """A key map as a configuration or a command line hands it over.

    Args:
        key_map: of any type.

    Raises:
        SettingError: it is neither a name, nor a mapping of patterns, nor None.

    Example:
        >>> checked_key_map({"^stem": "conv1"})
        {'^stem': 'conv1'}
    """
    if key_map is not None and not isinstance(key_map, str | Mapping):
        raise SettingError("the name of a key map, or patterns with replacements", repr(key_map), "key_map")
    return key_map
