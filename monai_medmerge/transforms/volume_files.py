"""What readers of one file with one volume share: MONAI's interface, the choice of a volume, policies and a bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from monai.config import PathLike
from monai.data import ImageReader
from monai.utils import ensure_tuple

from monai_medmerge.errors import SettingError
from monai_medmerge.transforms.policies import complete_policies
from monai_medmerge.transforms.spatial import check_volume_choice

# What each check can do about a violation. "sform" and "qform" choose between the two; "repair" converts to mm.
VOLUME_POLICIES: Mapping[str, tuple[str, ...]] = {
    "forms": ("error", "sform", "qform"),
    "no_form": ("error", "warn"),
    "spacing": ("error", "warn"),
    "units": ("error", "repair"),
    "nonfinite": ("error", "warn"),
}


@dataclass(frozen=True)
class VolumeRequest:
    """What `read` returns: the path to read, nothing yet read (see `DicomRequest`)."""

    path: Path


class VolumeFileReader(ImageReader):
    """Takes one file; `get_data` is a subclass's own.

    Args:
        volume: which volume of several to read, from zero; "all" keeps them as channels; None refuses such files.
        policies: for each check of `VOLUME_POLICIES` what a violation leads to, "error" unless given.
        max_bytes: refuse images that would take more memory.

    Raises:
        SettingError: an argument is not one of those that are understood.
    """

    suffixes: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        volume: int | str | None = None,
        policies: Mapping[str, str] | None = None,
        max_bytes: int = 2**32,
    ) -> None:
        super().__init__()
        check_volume_choice(volume)
        self.volume = volume
        self.policies = complete_policies(VOLUME_POLICIES, policies)
        self.max_bytes = max_bytes

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Return whether it is a single file with a suffix of the formats."""
        names = [str(name).lower() for name in ensure_tuple(filename)]
        return len(names) == 1 and names[0].endswith(self.suffixes)

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> VolumeRequest:
        """Note what to read; `get_data` reads it, so that `LoadImage` cannot fall back to another reader."""
        paths = [Path(name) for name in ensure_tuple(data)]
        if kwargs or len(paths) != 1:
            raise SettingError(
                "one file and no keyword arguments", f"{len(paths)} files", f"{type(self).__name__}.read"
            )
        return VolumeRequest(paths[0])
