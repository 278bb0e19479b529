"""Which source each layer of a merged network behaves like, on the target's images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from monai.utils import optional_import
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from monai_medmerge.errors import DatasetError
from monai_medmerge.inspection import device_of, evaluating, image_of
from monai_medmerge.ranking.transferability import cka
from monai_medmerge.sources.checkpoint.source import Source
from monai_medmerge.sources.filling import load_into

if TYPE_CHECKING:
    import pandas as pd

pandas, _ = optional_import("pandas", descriptor="pip install 'monai_medmerge[report]': {}")


def layer_similarity(
    merged: nn.Module, network: nn.Module, sources: Sequence[Source], batches: Iterable[Any]
) -> pd.DataFrame:
    """Linear CKA of what each layer of a merged network puts out with what it puts out in each source.

    Outputs of convolutions and linear layers are averaged over space, so this compares which channels answer to which
    images. A layer may take its weights from one source and still behave like another, since its inputs changed too.

    Args:
        merged: from `merge` or `fold`; its mode is put back.
        network: what the sources are loaded into: the plain network that was merged into.
        sources: what was merged.
        batches: target images, 4 or more, in any form of `image_of`; gone through once. Labels are not looked at.

    Returns:
        One row per layer, in the order in which they are called: `layer`, and the CKA for each source's name.

    Raises:
        DatasetError: there are no images.

    Example:
        >>> from monai_medmerge.networks import merge
        >>> _ = torch.manual_seed(0)
        >>> network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> source = Source.from_network(network, "a")
        >>> batches = [(torch.randn(20, 6), torch.zeros(20))]
        >>> layer_similarity(merge(network, [source]), network, [source], batches).round(3).values.tolist()
        [['0', 1.0], ['2', 1.0]]
    """
    watched = [merged, *(load_into(network, source).to(device_of(merged)) for source in sources)]
    seen: list[dict[str, list[Tensor]]] = [{} for _ in watched]
    for batch in batches:
        images = image_of(batch)
        for module, outputs in zip(watched, seen, strict=True):
            _record(module, images, outputs)
    if not seen[0]:
        raise DatasetError("at least one batch", "none", "batches")
    values = [{layer: torch.cat(parts).double().numpy() for layer, parts in outputs.items()} for outputs in seen]
    rows = [
        {"layer": layer, **{s.name: cka(own, v[layer]) for s, v in zip(sources, values[1:], strict=True)}}
        for layer, own in values[0].items()
        if all(layer in v for v in values) and np.ptp(own, axis=0).any()
    ]
    return pandas.DataFrame(rows)


def _record(network: nn.Module, images: Tensor, outputs: dict[str, list[Tensor]]) -> None:
    """Run a network and keep every layer's output, averaged over space."""

    def keep(name: str, module: nn.Module, output: Tensor) -> None:
        found = output.detach().cpu().as_subclass(Tensor).float()
        found = found.movedim(-1, 1) if isinstance(module, nn.Linear) else found
        outputs.setdefault(name, []).append(found.flatten(2).mean(2) if found.ndim > 2 else found)

    with ExitStack() as hooks, evaluating(network):
        for name, module in network.named_modules():
            if isinstance(module, nn.Linear | _ConvNd):
                hook = module.register_forward_hook(lambda m, _, output, name=name: keep(name, m, output))
                hooks.callback(hook.remove)
        network(images.to(device_of(network)))
