"""Which layer took how much from which source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from monai.utils import optional_import
from torch import Tensor

from monai_medmerge.errors import SettingError

if TYPE_CHECKING:
    import pandas as pd

pandas, _ = optional_import("pandas", descriptor="pip install 'monai_medmerge[report]': {}")

# Everything in a table of contributions that is no source.
NAMES = ("tensor", "layer", "stage")
FACTS = ("kernels", "numbers", "entropy", "whole", "movement")
# A kernel of which one source has more than this is taken over whole.
WHOLE = 0.99
# A level of the module tree says nothing of depth if one of its children holds more than this share of the tensors.
_CONTAINER = 0.8


def contributions(
    coefficients: Mapping[str, Tensor],
    sources: Sequence[str],
    sizes: Mapping[str, int] | None = None,
    start: Mapping[str, Tensor] | None = None,
) -> pd.DataFrame:
    """Each source's share of every tensor.

    The share of source n in kernel k is ``|c[n, k]| / sum over m of |c[m, k]|``, and in a tensor the mean over its
    kernels: negative coefficients, which `affine` and `free` allow, take part by their size. A kernel that takes
    nothing from anybody has shares of 0.

    Args:
        coefficients: tensor name to (source, kernel) or (source, kernel, input), as `coefficients` returns it.
        sources: their names, in that order.
        sizes: numbers of each tensor, by which `summarise` weighs them; their kernels if not given.
        start: the coefficients before they were learned; without them, `movement` is that from equal ones.

    Returns:
        One row per tensor, in the network's order: `tensor`, `layer` (the tensor's module), `stage` (the part of the
        network that it is in), `kernels`, `numbers`, one column of shares per source, `entropy` (of the shares, in
        nats, mean over kernels), `whole` (part of the kernels of which one source has more than 99 %) and `movement`
        (mean absolute difference of the coefficients from the start).

    Raises:
        SettingError: the names are not those of the coefficients' rows, or one is a column's.

    Example:
        >>> import torch
        >>> frame = contributions({"conv.weight": torch.tensor([[1.0, 0.5], [0.0, 0.5]])}, ["a", "b"])
        >>> frame[["a", "b", "whole", "movement"]].iloc[0].tolist()
        [0.75, 0.25, 0.5, 0.25]
    """
    if clash := {*NAMES, *FACTS}.intersection(sources):
        raise SettingError("source names that are no column of the table", ", ".join(sorted(clash)), "contributions")
    stages, rows = _stages(list(coefficients)), []
    for name, given in coefficients.items():
        if len(given) != len(sources):
            raise SettingError(f"{len(given)} source names", f"{len(sources)}", name)
        table = _flat(given)
        sizes_of_kernels = np.abs(table)
        shares = sizes_of_kernels / np.maximum(sizes_of_kernels.sum(0), 1e-12)
        before = np.full_like(table, 1 / len(table)) if start is None else _flat(start[name])
        rows.append(
            {
                "tensor": name,
                "layer": name.rpartition(".")[0],
                "stage": stages[name],
                "kernels": given.shape[1],
                "numbers": int(given.shape[1] if sizes is None else sizes[name]),
                **dict(zip(sources, shares.mean(1).tolist(), strict=True)),
                "entropy": float(-(shares * np.log(np.maximum(shares, 1e-12))).sum(0).mean()),
                "whole": float((shares.max(0) > WHOLE).mean()),
                "movement": float(np.abs(table - before).mean()),
            }
        )
    return pandas.DataFrame(rows)


def source_names(frame: pd.DataFrame) -> list[str]:
    """The sources that a table of contributions has columns for, in order."""
    return [column for column in frame.columns if column not in NAMES and column not in FACTS]


def summarise(frame: pd.DataFrame, by: str | None = "layer") -> pd.DataFrame:
    """Means over the tensors of each layer, of each stage, or of the whole network, weighted by their numbers.

    Args:
        frame: from `contributions`.
        by: `layer`, `stage`, or None for the network.

    Returns:
        One row per layer or stage, in the network's order, or one row; `kernels` and `numbers` are sums.

    Raises:
        SettingError: `by` is something else.

    Example:
        >>> import torch
        >>> tables = {"a.weight": torch.tensor([[1.0], [0.0]]), "a.bias": torch.tensor([[0.0], [1.0]])}
        >>> frame = contributions(tables, ["x", "y"], sizes={"a.weight": 9, "a.bias": 1})
        >>> summarise(frame)[["layer", "x", "y"]].values.tolist()
        [['a', 0.9, 0.1]]
    """
    if by not in ("layer", "stage", None):
        raise SettingError("layer, stage or None", repr(by), "by")
    means = [*source_names(frame), "entropy", "whole", "movement"]
    rows = []
    for name, group in frame.groupby(by, sort=False) if by else [("", frame)]:
        row: dict[str, Any] = {by: name} if by else {}
        row |= {"kernels": int(group["kernels"].sum()), "numbers": int(group["numbers"].sum())}
        row |= {column: float(np.average(group[column], weights=group["numbers"])) for column in means}
        rows.append(row)
    return pandas.DataFrame(rows)


def _flat(table: Tensor) -> np.ndarray:
    """(source, kernel) in double precision; slices of kernels count as kernels."""
    return np.asarray(table.detach().cpu().double().flatten(1).numpy())


def _stages(names: Sequence[str]) -> dict[str, str]:
    """The part of the network that each tensor is in: the highest level of the module tree that divides it well."""
    stages = {name: name.partition(".")[0] for name in names}
    while True:
        members: dict[str, list[str]] = {}
        for name, stage in stages.items():
            members.setdefault(stage, []).append(name)
        largest = max(members, key=lambda stage: len(members[stage]), default="")
        deeper = {n: ".".join(n.split(".")[: largest.count(".") + 2]) for n in members.get(largest, [])}
        # The last part of a name is the tensor's own, and no stage.
        if len(deeper) <= _CONTAINER * len(names) or any(stage == n for n, stage in deeper.items()):
            return stages
        stages |= deeper
