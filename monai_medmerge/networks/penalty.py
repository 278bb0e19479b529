"""A loss term on coefficients, for users to weigh."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from monai_medmerge.networks.blend import Coefficients


def coefficient_penalty(merged: nn.Module, entropy: float = 0.0, pull: float = 0.0) -> Tensor:
    """``entropy * mean H(c) + pull * mean |c - start|^2`` over all learned coefficients.

    H is the entropy, in nats, of the sources' shares of a kernel, ``|c| / sum |c|``.

    Args:
        merged: from `merge`.
        entropy: weight of the entropy; positive makes a kernel choose one source, negative makes it mix.
        pull: weight of the squared distance from the coefficients' start.

    Returns:
        A scalar with a gradient.

    Example:
        >>> from monai_medmerge import Source, merge
        >>> sources = [Source.from_network(nn.Linear(2, 2), name) for name in ("a", "b")]
        >>> merged = merge(nn.Linear(2, 2), sources)
        >>> f"{coefficient_penalty(merged, entropy=1.0).item():.4f}"  # ln 2
        '0.6931'
        >>> coefficient_penalty(merged, pull=1.0).item()
        0.0
    """
    learned = [module for module in merged.modules() if isinstance(module, Coefficients)]
    terms, count = [], 0
    for module in learned:
        values = module()
        term = values.new_zeros(())
        if entropy:
            shares = values.abs() / values.abs().sum(0).clamp(min=1e-12)
            term = term - entropy * torch.special.xlogy(shares, shares.clamp(min=1e-12)).sum()
        if pull:
            term = term + pull * (values - module.start).square().sum()
        terms.append(term)
        count += values[0].numel()
    return torch.stack(terms).sum() / max(count, 1)
