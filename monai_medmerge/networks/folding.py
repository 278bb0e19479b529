"""Fold a merged network into a plain one again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from monai_medmerge.inspection import copy_network
from monai_medmerge.networks.forward_pass import blended_at_once, remove_hooks
from monai_medmerge.networks.merged import blends


def fold(merged: nn.Module) -> nn.Module:
    """A new plain network with the weights that the merged one computes: same class, same keys, all trainable.

    Args:
        merged: from `merge`. Stays untouched and can go on learning.

    Raises:
        SettingError: the network has no blended tensor.

    Example:
        >>> from monai_medmerge import Source, merge
        >>> source = Source.from_network(nn.Linear(4, 3), "a")
        >>> list(fold(merge(nn.Linear(4, 3), [source])).state_dict())
        ['weight', 'bias']
    """
    # Note [Folding a copy]
    # Copies of a parametrised module share its injected class, and remove_parametrizations would take the property
    # from that class, and so from the network that was copied. The copy gets its original class back by hand.
    weights: dict[nn.Module, dict[str, nn.Parameter]] = {}
    folded_once: dict[str, nn.Parameter] = {}
    order: dict[nn.Module, tuple[str, ...]] = {}
    with torch.no_grad(), blended_at_once([found.blend for found in blends(merged)]):
        for _, module, attribute, blend in blends(merged):
            if blend.name not in folded_once:
                folded_once[blend.name] = nn.Parameter(getattr(module, attribute).clone())
            weights.setdefault(module, {})[attribute] = folded_once[blend.name]
            order[module] = blend.siblings
    memo: dict[int, Any] = {}
    folded = copy_network(merged, memo)
    for module, blended in weights.items():
        _restore(memo[id(module)], module, blended, order[module])
    remove_hooks(folded)
    thaw(folded)
    return folded


def thaw(network: nn.Module) -> None:
    """Let every parameter that can learn learn.

    Args:
        network: changed in place.
    """
    for parameter in network.parameters():
        # Integers, which some networks keep as parameters, take no gradient.
        parameter.requires_grad_(parameter.is_floating_point())


def _restore(copied: object, merged: nn.Module, blended: Mapping[str, nn.Parameter], order: Sequence[str]) -> None:
    """Give a copied, parametrised module its class and its parameters back."""
    if not isinstance(copied, nn.Module):
        raise TypeError(f"expected a module, found {type(copied).__name__}")
    del copied._modules["parametrizations"]
    copied.__class__ = type(merged).__bases__[0]
    plain = dict(copied._parameters)
    copied._parameters.clear()
    for name in order:
        copied._parameters[name] = blended[name] if name in blended else plain[name]
