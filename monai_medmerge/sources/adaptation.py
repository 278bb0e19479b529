"""Fit a source to a network of other input channels, dimensions or precision: when asked, and told in the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from monai_medmerge.sources.checkpoint.source import Source
from monai_medmerge.sources.names.identity import state_of
from monai_medmerge.sources.names.resolving import resolve
from monai_medmerge.sources.positions import resized


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
      all channels then makes the same activations. Groups are treated one by one.
    - 2-D to 3-D: the kernel repeated along the new first axis and divided by as many of its numbers as meet in one
      output ("inflation", arXiv:1705.07750), so that a volume that is constant along it makes the same activations.
      In a convolution all along the axis meet, in a transposed one those that lie a stride apart.
    - Position embeddings and tables of relative positions for other image or window sizes: interpolated.
    - A layer that has no bias in the source: zeros. A norm before a cross-attention that the network does not have: as
      new, as it is not used.
    - float16 and bfloat16 to the network's precision.

    What has no sound way stays as it is, and `match` says so.

    Args:
        network: to be merged into.
        source: stays untouched.

    Returns:
        A new source; ``provenance["adaptations"]`` has a sentence for everything that was done, which `match` shows.

    Raises:
        SettingError: a layer of the network is lazy and has no shape yet.

    Example:
        >>> rgb = Source.from_network(nn.Conv2d(3, 4, 3), "rgb")
        >>> grey = adapt(nn.Conv2d(1, 4, 3), rgb)
        >>> grey.provenance["adaptations"]
        ['weight: 3 input channels to 1, summed']
        >>> torch.equal(grey.tensors["weight"], rgb.tensors["weight"].sum(1, keepdim=True))
        True
    """
    source = resolve(network, source)
    tensors, notes = adapted_tensors(network, source.tensors)
    adaptations = [*source.provenance.get("adaptations", ()), *notes]
    return Source(source.name, tensors, {**source.provenance, **({"adaptations": adaptations} if adaptations else {})})


def adapted_tensors(network: nn.Module, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors in the network's shapes and precision, and what was done; also of tensors that have only shapes.

    Args:
        network: to be merged into.
        tensors: by the network's names; on `meta`, what comes is on `meta` too.
    """
    wanted = state_of(network)
    modules = dict(network.named_modules(remove_duplicate=False))
    convolutions = {
        f"{name}.weight" if name else "weight": module
        for name, module in modules.items()
        if isinstance(module, _ConvNd)
    }
    image_channels = _image_channels(convolutions, tensors, wanted)
    found, notes = {}, []
    for name, tensor in tensors.items():
        if name in wanted and tensor.shape != wanted[name].shape:
            if name in convolutions:
                weight = _Weight(name, tuple(wanted[name].shape), convolutions[name])
                tensor, inflated = _inflate(weight, tensor)
                tensor, changed = _channels(weight, tensor, image_channels)
                notes += [note for note in (inflated, changed) if note]
            else:
                tensor, note = resized(modules, name, tensor, tuple(wanted[name].shape))
                notes += [note] if note else []
        if name in wanted and tensor.is_floating_point() and tensor.dtype != wanted[name].dtype:
            notes.append(f"{name}: {_name(tensor)} to {_name(wanted[name])}")
            tensor = tensor.to(wanted[name].dtype)
        found[name] = tensor
    added, told = _without_effect(modules, wanted, found)
    return {**found, **added}, notes + told


def _without_effect(
    modules: Mapping[str, nn.Module], wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """What the network has and the source computes without: biases of zero, and norms that are not used."""
    found, notes = {}, []
    like = next(iter(tensors.values())).device if tensors else None
    for name, tensor in wanted.items():
        parent, _, attribute = name.rpartition(".")
        if name in tensors or not tensor.is_floating_point():
            continue
        weight = f"{parent}.weight" if parent else "weight"
        layer = modules.get(parent)
        if attribute == "bias" and weight in tensors and isinstance(layer, _ConvNd | nn.Linear):
            found[name] = torch.zeros_like(tensor, device=like, requires_grad=False)
            notes.append(f"{name}: none in the source, zeros")
        above, _, norm = parent.rpartition(".")
        unused = norm == "norm_cross_attn" and not any(key.startswith(f"{above}.cross_attn.") for key in wanted)
        if unused and above and any(key.startswith(f"{above}.") for key in tensors):
            make = torch.ones_like if attribute == "weight" else torch.zeros_like
            found[name] = make(tensor, device=like, requires_grad=False)
            notes.append(f"{name}: not used by the network, as new")
    return found, notes


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
    convolutions: Mapping[str, _ConvNd], tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> tuple[int, int] | None:
    """Channels of the image that the source and the network take: those of the first convolution."""
    first = next((name for name in convolutions if name in tensors), None)
    if first is None or isinstance(convolutions[first], _ConvTransposeNd) or tensors[first].ndim < 2:
        return None
    return tensors[first].shape[1], wanted[first].shape[1]


def _channels(weight: _Weight, tensor: Tensor, image_channels: tuple[int, int] | None) -> tuple[Tensor, str]:
    axis = 0 if weight.transposed else 1
    if tensor.ndim != len(weight.wanted) or any(
        a != b for i, (a, b) in enumerate(zip(tensor.shape, weight.wanted, strict=True)) if i != axis
    ):
        return tensor, ""
    found, wanted = tensor.shape[axis], weight.wanted[axis]
    if found == wanted or (found, wanted) != image_channels or (weight.transposed and weight.layer.groups > 1):
        return tensor, ""
    if found > wanted:
        falling = [list(range(channel, found, wanted)) for channel in range(wanted)]
        summed = torch.stack([tensor.index_select(axis, _index(tensor, among)).sum(axis) for among in falling], axis)
        return summed, f"{weight.name}: {found} input channels to {wanted}, summed"
    copies = [len(range(channel, wanted, found)) for channel in range(found)]
    repeated = torch.stack([tensor.select(axis, j % found) / copies[j % found] for j in range(wanted)], axis)
    divided = " or ".join(map(str, sorted(set(copies), reverse=True)))
    return repeated, f"{weight.name}: {found} input channels to {wanted}, repeated and divided by {divided}"


def _index(tensor: Tensor, places: list[int]) -> Tensor:
    return torch.tensor(places, device=tensor.device)


def _name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
