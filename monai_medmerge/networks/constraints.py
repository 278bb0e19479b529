"""What coefficients may be: the map from free numbers to coefficients, and back for a given start."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

# Note [Leaving a vertex]
# A softmax reaches "all of one source" only at infinity, where its gradient is zero: a start there would never learn,
# and a source's own output could not be reproduced exactly. So shares under SMALLEST_SHARE count as none and the rest
# is scaled up, while the gradient is that of the softmax beneath. A kernel whose other shares are under one per cent is
# taken over whole, bit for bit, and can still come back.
SMALLEST_SHARE = 0.01


class Constraint(NamedTuple):
    """A constraint on the coefficients of one kernel.

    Args:
        release: (coefficients, anchor) to the free numbers that give them.
        apply: (free numbers, anchor) to coefficients (source, ...).
    """

    release: Callable[[Tensor, int], Tensor]
    apply: Callable[[Tensor, int], Tensor]


def _softmax(free: Tensor, anchor: int) -> Tensor:
    shares = free.softmax(0)
    with torch.no_grad():
        kept = torch.threshold(shares, SMALLEST_SHARE, 0.0)
        change = kept / kept.sum(0) - shares
    # Exact where it must be: s - s is 0, and s + (1 - s) is 1 for a share above one half (Sterbenz).
    return shares + change


def _log_shares(coefficients: Tensor, anchor: int) -> Tensor:
    # Half the smallest share for those who have none: dropped by `_softmax`, and two steps away from counting.
    return coefficients.clamp(min=SMALLEST_SHARE / 2).log()


def _anchor_takes_the_rest(free: Tensor, anchor: int) -> Tensor:
    rest = 1 - free.sum(0, keepdim=True)
    return torch.cat([free[:anchor], rest, free[anchor:]])


def _without_anchor(coefficients: Tensor, anchor: int) -> Tensor:
    return torch.cat([coefficients[:anchor], coefficients[anchor + 1 :]])


def _as_is(values: Tensor, anchor: int) -> Tensor:
    return values


CONSTRAINTS: Mapping[str, Constraint] = {
    # Convex: between 0 and 1, summing to one.
    "softmax": Constraint(_log_shares, _softmax),
    # Summing to one, unbounded: the anchor takes what the others leave.
    "affine": Constraint(_without_anchor, _anchor_takes_the_rest),
    # Any numbers.
    "free": Constraint(_as_is, _as_is),
}
