"""From the headers of a series to the stacks that are read: one volume, one of several, or all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from monai_medmerge.errors import DicomSeriesError
from monai_medmerge.transforms.dicom.geometry.alike import (
    check_alike,
    check_origin,
    choose_stack,
    count_stacks,
    without_localizers,
)
from monai_medmerge.transforms.dicom.geometry.find import find_frames
from monai_medmerge.transforms.dicom.geometry.frames import Frame
from monai_medmerge.transforms.dicom.geometry.stacks import Stack, stack_frames, stack_pictures
from monai_medmerge.transforms.dicom.headers import Header
from monai_medmerge.transforms.dicom.volumes.split import Split, split_volumes
from monai_medmerge.transforms.foreign import guarded
from monai_medmerge.transforms.policies import settle


@dataclass(frozen=True)
class Arrangement:
    """What is read of a series.

    Args:
        stacks: one for each volume that is read, all of one geometry.
        volumes: what tells the volumes of the series apart, as JSON (see `Split.describe`).
        several: whether the volumes become a further axis.
        remarks: what the policies let pass.
    """

    stacks: tuple[Stack, ...]
    volumes: str = "{}"
    several: bool = False
    remarks: tuple[str, ...] = ()

    @property
    def frames(self) -> list[Frame]:
        """The frames of all volumes, one volume after the other."""
        return [frame for stack in self.stacks for frame in stack.frames]


@dataclass(frozen=True, slots=True)
class Choice:
    """What of a series is meant, as the arguments of `DicomSeriesReader` say it."""

    volume: int | str | None = None
    stack: int | None = None
    pictures: bool = False


def arrange(headers: Sequence[Header], policies: Mapping[str, str], choice: Choice) -> Arrangement:
    """Return the stacks to read.

    Args:
        headers: of one series.
        policies: one for each of `POLICIES`.
        choice: which volume and which stack.

    Raises:
        DicomSeriesError: the frames do not make the volumes that were chosen, or leave a choice open.
    """
    frames = [frame for header in headers for frame in find_frames(header)]
    remarks: list[str] = []
    if choice.pictures:
        check_origin(frames, ("StudyInstanceUID", "Modality"))
        return Arrangement((stack_pictures(frames),))
    kept = without_localizers(frames, policies["localizer"], remarks)
    if choice.stack is not None:
        kept = choose_stack(kept, choice.stack)
    check_alike(kept)
    split = split_volumes(kept)
    where = kept[0].header.where
    if split.alternates and choice.volume is None:
        found = f"{_differing(split)} that alternate, as with interleaved acquisitions: {_offer(split)}"
        settle(DicomSeriesError("slices of one acquisition", found, where), policies["acquisition"], remarks)
        split = Split((tuple(kept),))
    chosen = _choose(split, choice.volume, where)
    stacks = [stack_frames(split.volumes[i], policies) for i in chosen]
    for stack in stacks[1:]:
        if len(stack.frames) != len(stacks[0].frames) or not np.allclose(stack.affine, stacks[0].affine, atol=1e-2):
            found = "others in some: choose one by its number"
            raise DicomSeriesError("volumes of the same slices", found, where)
    remarks += dict.fromkeys(remark for stack in stacks for remark in stack.remarks)
    several = choice.volume == "all" and len(split.volumes) > 1
    return Arrangement(tuple(stacks), split.describe(chosen), several, tuple(remarks))


def _choose(split: Split, volume: int | str | None, where: str) -> list[int]:
    count = len(split.volumes)
    if count == 1 and volume in (None, 0, "all"):
        return [0]
    if volume is None:
        raise DicomSeriesError("one volume", f"{split}: {_offer(split)}", where)
    if volume == "all":
        return list(range(count))
    if int(volume) >= count:
        raise DicomSeriesError(f"a volume below {count}", str(volume), where)
    return [int(volume)]


def _differing(split: Split) -> str:
    """Say how many values there are of the first attribute that differs."""
    return f"{len({key[0] for key in split.values})} values of {split.names[0]}"


def _offer(split: Split) -> str:
    return f"choose with volume=0 to {len(split.volumes) - 1}, or 'all'"


def count_volumes(headers: Sequence[Header]) -> str:
    """Say how many volumes or stacks a series has and what tells them apart, "" for one, or for no series of slices."""

    def count() -> str:
        frames = [frame for header in headers for frame in find_frames(header)]
        if (stacks := count_stacks(frames)) > 1:
            return f"{stacks} stacks"
        split = split_volumes(frames)
        return str(split) if split.names else ""

    try:
        return guarded(DicomSeriesError, "a readable series", headers[0].where, count)
    except DicomSeriesError:
        return ""
