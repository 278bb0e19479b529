"""Which layer took how much from which source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from monai.utils import optional_import
from torch import Tensor

if TYPE_CHECKING:
    import pandas as pd

pandas, _ = optional_import("pandas", descriptor="pip install 'monai_medmerge[report]': {}")


def contributions(coefficients: Mapping[str, Tensor], sources: Sequence[str]) -> pd.DataFrame:
    """Each source's share of every tensor.

    The share of source n in kernel k is ``|c[n, k]| / sum over m of |c[m, k]|``, and in a tensor the mean over its
    kernels: negative coefficients, which `affine` and `free` allow, take part by their size.

    Args:
        coefficients: tensor name to (source, kernel) or (source, kernel, input), as `coefficients` returns it.
        sources: their names, in that order.

    Returns:
        One row per tensor, in the network's order: `tensor`, `layer` (the tensor's module), `kernels`, one column of
        shares per source, `entropy` (nats, mean over kernels) and `whole` (share of kernels of which one source has
        more than 99 %).

    Example:
        >>> import torch
        >>> frame = contributions({"conv.weight": torch.tensor([[1.0, 0.5], [0.0, 0.5]])}, ["a", "b"])
        >>> frame[["a", "b", "whole"]].iloc[0].tolist()
        [0.75, 0.25, 0.5]
    """
    rows = []
    for name, table in coefficients.items():
        sizes = table.detach().cpu().double().flatten(1).abs().numpy()
        shares = sizes / np.maximum(sizes.sum(0), 1e-12)
        entropy = -(shares * np.log(np.maximum(shares, 1e-12))).sum(0)
        rows.append(
            {
                "tensor": name,
                "layer": name.rpartition(".")[0],
                "kernels": table.shape[1],
                **dict(zip(sources, shares.mean(1).tolist(), strict=True)),
                "entropy": float(entropy.mean()),
                "whole": float((shares.max(0) > 0.99).mean()),
            }
        )
    return pandas.DataFrame(rows)
