"""What a stage is: a name, what it depends on, and what it does in a folder of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_medmerge.errors import MedMergeError


class StoppedError(MedMergeError):
    """A stage came out such that no later one may run: a gate that is not passed, exports that differ.

    Args:
        status: the process is to end with.
        expected: as of `MedMergeError`.
        found: likewise.
        where: the stage.
    """

    def __init__(self, status: int, expected: str, found: str, where: str) -> None:
        super().__init__(expected, found, where)
        self.status = status

    def __reduce__(self) -> Any:
        return type(self), (self.status, self.expected, self.found, self.where)


@dataclass(frozen=True)
class Job:
    """What is asked for.

    Args:
        bundle: folder of the bundle whose configurations are run.
        dataset: folder with a `dataset.json`.
        sources: checkpoints, by name or not; none for the bundle's own.
        output: folder of the stages.
        in_use: weights of the network in use, to hold the new one against; None without one.
        settings: of `merge.json`, plain values.
    """

    bundle: Path
    dataset: Path
    sources: Mapping[str, str] | list[str]
    output: Path
    in_use: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


Results = Mapping[str, Mapping[str, Any]]
"""What earlier stages found, by name."""


@dataclass(frozen=True)
class Stage:
    """A stage.

    Args:
        name: of its folder, after its number.
        inputs: from the job and earlier results to hashes or values, by name: where one changes, it is done anew.
        run: does it in a folder that may hold what an interrupted run left; returns what it found, as JSON.
    """

    name: str
    inputs: Callable[[Job, Results], Mapping[str, Any]]
    run: Callable[[Job, Results, Path], Mapping[str, Any]]
