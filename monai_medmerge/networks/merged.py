"""What a merged network says of itself: its blended tensors, its coefficients, what it was made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.utils import parametrize

from monai_medmerge.errors import SettingError
from monai_medmerge.networks.blend import Coefficients, KernelBlend, MergeRecord


class Blended(NamedTuple):
    """A blended tensor of a merged network.

    Args:
        name: in the state dict of the plain network.
        module: that owns it.
        attribute: what it is called there.
        blend: its parametrisation.
    """

    name: str
    module: nn.Module
    attribute: str
    blend: KernelBlend


def blends(merged: nn.Module) -> Iterator[Blended]:
    """Every blended tensor of a merged network, under each of its names.

    Args:
        merged: from `merge`.

    Raises:
        SettingError: the network has no blended tensor.

    Example:
        >>> from monai_medmerge import Source, merge
        >>> merged = merge(nn.Linear(2, 2), [Source.from_network(nn.Linear(2, 2), "a")])
        >>> [found.name for found in blends(merged)]
        ['weight', 'bias']
    """
    nothing = True
    for prefix, module in merged.named_modules():
        if not parametrize.is_parametrized(module):
            continue
        for attribute, parametrizations in module.parametrizations.items():
            blend = parametrizations[0]
            if isinstance(blend, KernelBlend):
                nothing = False
                yield Blended(f"{prefix}.{attribute}" if prefix else attribute, module, attribute, blend)
    if nothing:
        raise SettingError("a network made by merge", f"a {type(merged).__name__} with nothing merged", "network")


def is_merged(network: nn.Module) -> bool:
    """Whether a network comes from `merge` and has not been folded.

    Args:
        network: any.

    Example:
        >>> from monai_medmerge import Source, merge
        >>> network = nn.Linear(2, 2)
        >>> is_merged(network), is_merged(merge(network, [Source.from_network(network, "a")]))
        (False, True)
    """
    try:
        next(blends(network))
    except SettingError:
        return False
    return True


def merge_record(merged: nn.Module) -> MergeRecord:
    """What a merged network was made of.

    Args:
        merged: from `merge`.

    Raises:
        SettingError: the network has no blended tensor.
    """
    return next(blends(merged)).blend.record


def coefficients(merged: nn.Module) -> dict[str, Tensor]:
    """The coefficients of a merged network, after their constraint.

    Args:
        merged: from `merge`.

    Returns:
        Name of every blended tensor to (source, kernel), or (source, kernel, input) at granularity `slice`; a source
        that lacks the tensor has zeros. Detached, and sharing no memory with the network.

    Raises:
        SettingError: the network has no blended tensor.

    Example:
        >>> from monai_medmerge import Source, merge
        >>> sources = [Source.from_network(nn.Linear(4, 2, bias=False), name) for name in ("a", "b")]
        >>> coefficients(merge(nn.Linear(4, 2, bias=False), sources, granularity="layer"))
        {'weight': tensor([[0.5000, 0.5000], [0.5000, 0.5000]])}
    """
    found: dict[str, Tensor] = {}
    values_of: dict[Coefficients, Tensor] = {}
    for blend in (found.blend for found in blends(merged)):
        if blend.coefficients not in values_of:
            values_of[blend.coefficients] = blend.coefficients().detach()
        values = blend.lay_out(values_of[blend.coefficients])
        table = values.new_zeros(len(blend.record.sources), *values.shape[1:])
        table[list(blend.present)] = values
        found[blend.name] = table
    return found
