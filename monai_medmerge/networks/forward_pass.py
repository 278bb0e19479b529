"""Blend all tensors of a merged network at once, when its forward pass begins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from monai_medmerge.networks.blend import KernelBlend, weighted_sums


class BlendAtOnce:
    """Hooks of a merged network: before its forward pass all tensors are blended, after it they are dropped.

    Outside of the network's own forward pass (a part called by itself, a weight that is looked at) each tensor is
    blended when it is asked for; this spares time and changes no result.

    Args:
        blends: of all tensors of the network.
    """

    def __init__(self, blends: Sequence[KernelBlend]) -> None:
        self.tables: dict[int, list[KernelBlend]] = {}
        for blend in blends:
            self.tables.setdefault(id(blend.coefficients), []).append(blend)

    def begin(self, *_: Any) -> None:
        """Blend everything; takes whatever a forward pre-hook is given."""
        for blends in self.tables.values():
            for blend, blended in zip(blends, weighted_sums(blends), strict=True):
                blend.blended = blended

    def end(self, *_: Any) -> None:
        """Drop everything, as what is learned next changes it; takes whatever a forward hook is given."""
        for blends in self.tables.values():
            for blend in blends:
                blend.blended = None


def blend_at_once(merged: nn.Module, blends: Sequence[KernelBlend]) -> None:
    """Register the hooks on a merged network."""
    hooks = BlendAtOnce(blends)
    merged.register_forward_pre_hook(hooks.begin)
    merged.register_forward_hook(hooks.end, always_call=True)


@contextmanager
def blended_at_once(blends: Sequence[KernelBlend]) -> Iterator[None]:
    """As in a forward pass: every tensor is blended once, at the beginning."""
    hooks = BlendAtOnce(blends)
    hooks.begin()
    try:
        yield
    finally:
        hooks.end()


def remove_hooks(network: nn.Module) -> None:
    """Take the hooks away again, wherever in a network they are."""
    for module in network.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key in [k for k, hook in hooks.items() if isinstance(getattr(hook, "__self__", None), BlendAtOnce)]:
                del hooks[key]
                module._forward_hooks_always_called.pop(key, None)
