"""Fit a source to a network of other input channels, dimensions or precision: when asked, and told in the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from monai_medmerge.sources.checkpoint import Source
from monai_medmerge.sources.matching import resolve


@dataclass(frozen=True)
class _Weight:
    """A weight of the network that a source has in another shape: (kernel, input, *space) unless transposed."""

    name: str
    wanted: tuple[int, ...]
    layer: _ConvNd

    @property
    def transposed(self) -> bool:
        return isinstance(self.layer, _ConvTransposeNd)


def adapt(network: nn.Module, source: Source) -> Source:
    """A source whose tensors have the network's shapes and precision, where there is a sound way.

    - Another number of image channels, in every convolution that reads the image: to fewer, the sum over the channels
      that fall together; to more, each channel repeated and divided by the number of its copies. A grey image given in
      all channels then makes the same activations.
    - 2-D to 3-D: the kernel repeated along the new first axis and divided by as many of its numbers as meet in one
      output ("inflation", arXiv:1705.07750), so that a volume that is constant along it makes the same activations.
      In a convolution all along the axis meet, in a transposed one those that lie a stride apart.
    - float16 and bfloat16 to the network's precision.

    What has no sound way stays as it is, and `match` says so.

    Args:
        network: to be merged into.
        source: stays untouched.

    Returns:
        A new source; ``provenance["adaptations"]`` has a sentence for everything that was done, which `match` shows.

    Example:
        >>> rgb = Source.from_network(nn.Conv2d(3, 4, 3), "rgb")
        >>> grey = adapt(nn.Conv2d(1, 4, 3), rgb)
        >>> grey.provenance["adaptations"]
        ['weight: 3 input channels to 1, summed']
        >>> torch.equal(grey.tensors["weight"], rgb.tensors["weight"].sum(1, keepdim=True))
        True
    """
    source = resolve(network, source)
    wanted = network.state_dict()
    convolutions = {
        f"{name}.weight" if name else "weight": module
        for name, module in network.named_modules(remove_duplicate=False)
        if isinstance(module, _ConvNd)
    }
    image_channels = _image_channels(convolutions, source, wanted)
    tensors, notes = {}, []
    for name, tensor in source.tensors.items():
        if name in wanted and name in convolutions and tensor.shape != wanted[name].shape:
            weight = _Weight(name, tuple(wanted[name].shape), convolutions[name])
            tensor, note = _inflate(weight, tensor)
            notes += [note] if note else []
            tensor, note = _channels(weight, tensor, image_channels)
            notes += [note] if note else []
        if name in wanted and tensor.is_floating_point() and tensor.dtype != wanted[name].dtype:
            notes.append(f"{name}: {_name(tensor)} to {_name(wanted[name])}")
            tensor = tensor.to(wanted[name].dtype)
        tensors[name] = tensor
    adaptations = [*source.provenance.get("adaptations", ()), *notes]
    return Source(source.name, tensors, {**source.provenance, **({"adaptations": adaptations} if adaptations else {})})


def _inflate(weight: _Weight, tensor: Tensor) -> tuple[Tensor, str]:
    if not tensor.ndim == len(weight.wanted) - 1 == 4 or tuple(tensor.shape[2:]) != weight.wanted[3:]:
        return tensor, ""
    met = _numbers_met(weight.layer, weight.wanted[2])
    if not met:
        return tensor, ""
    inflated = torch.stack([tensor / count for count in met], dim=2)
    divided = " or ".join(map(str, sorted(set(met), reverse=True)))
    return inflated, f"{weight.name}: 2-D to 3-D, repeated over a depth of {len(met)} and divided by {divided}"


def _numbers_met(layer: _ConvNd, depth: int) -> list[int]:
    """For each place along a kernel's depth, how many places meet in one output; empty if some outputs get none."""
    if not isinstance(layer, _ConvTransposeNd):
        return [depth] * depth
    stride, dilation = layer.stride[0], layer.dilation[0]
    phases = [place * dilation % stride for place in range(depth)]
    return [phases.count(phase) for phase in phases] if len(set(phases)) == stride else []


def _image_channels(
    convolutions: Mapping[str, _ConvNd], source: Source, wanted: Mapping[str, Tensor]
) -> tuple[int, int] | None:
    """Channels of the image that the source and the network take: those of the first convolution."""
    first = next((name for name in convolutions if name in source.tensors), None)
    if first is None or isinstance(convolutions[first], _ConvTransposeNd):
        return None
    return source.tensors[first].shape[1], wanted[first].shape[1]


def _channels(weight: _Weight, tensor: Tensor, image_channels: tuple[int, int] | None) -> tuple[Tensor, str]:
    axis = 0 if weight.transposed else 1
    if tensor.ndim != len(weight.wanted) or any(
        a != b for i, (a, b) in enumerate(zip(tensor.shape, weight.wanted, strict=True)) if i != axis
    ):
        return tensor, ""
    found, wanted = tensor.shape[axis], weight.wanted[axis]
    if found == wanted or (found, wanted) != image_channels:
        return tensor, ""
    if found > wanted and found % wanted == 0:
        summed = tensor.unflatten(axis, (found // wanted, wanted)).sum(axis)
        return summed, f"{weight.name}: {found} input channels to {wanted}, summed"
    if wanted > found and wanted % found == 0:
        copies = wanted // found
        repeated = torch.cat([tensor] * copies, dim=axis) / copies
        return repeated, f"{weight.name}: {found} input channels to {wanted}, repeated and divided by {copies}"
    return tensor, ""


def _name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
