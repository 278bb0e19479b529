"""What a reader does about a violation that one of its checks finds: refuse, warn, or repair."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_medmerge.errors import MedMergeError, SettingError


def complete_policies(offered: Mapping[str, Sequence[str]], chosen: Mapping[str, str] | None) -> dict[str, str]:
    """Return a policy for each check, "error" for those not chosen.

    Args:
        offered: the policies that each check offers.
        chosen: some of them, by check.

    Raises:
        SettingError: an unknown check, or a policy that the check does not offer.

    Example:
        >>> complete_policies({"gap": ("error", "warn"), "tilt": ("error",)}, {"gap": "warn"})
        {'gap': 'warn', 'tilt': 'error'}
    """
    for name, policy in (chosen or {}).items():
        if name not in offered:
            raise SettingError(f"one of {', '.join(offered)}", repr(name), "policies")
        if policy not in offered[name]:
            raise SettingError(f"one of {', '.join(offered[name])}", repr(policy), f"policies[{name!r}]")
    return {name: (chosen or {}).get(name, "error") for name in offered}


def settle(violation: MedMergeError, policy: str, remarks: list[str]) -> None:
    """Raise the violation, or note it where the policy is to go on.

    Args:
        violation: what was found.
        policy: "error", or the policy under which to go on.
        remarks: takes the note; `give_remarks` says it once the reading is done.
    """
    if policy == "error":
        raise violation
    remarks.append(f"{violation} (policy: {policy})")


def check_finite(values: NDArray[Any], error: type[MedMergeError], where: str, policy: str, remarks: list[str]) -> None:
    """Raise or note that values are NaN or infinite, which a network would carry through all of its answer.

    Args:
        values: of any type; integers always pass.
        error: the class to raise.
        where: the file's base name.
        policy: as of `settle`.
        remarks: as of `settle`.

    Raises:
        MedMergeError: an `error`, where the policy is "error".
    """
    if values.dtype.kind == "f" and (count := values.size - int(np.count_nonzero(np.isfinite(values)))):
        settle(error("finite values", f"{count} of {values.size} NaN or infinite", where), policy, remarks)


def give_remarks(remarks: Sequence[str]) -> None:
    """Say as warnings what the policies let pass."""
    for remark in remarks:
        warnings.warn(remark, UserWarning, stacklevel=3)
