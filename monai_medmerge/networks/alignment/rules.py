"""What each operation of torch does to channel labels.

A rule reads the labels of an operation's inputs, says which of them must move together or stay, and labels its
outputs. An operation without a rule pins its inputs, so that ignorance costs channels and never correctness.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from monai_medmerge.networks.alignment.calls import Call, operation_name
from monai_medmerge.networks.alignment.labels import FIXED, ChannelLabels, first_along, no_labels, reshape

# Why the input axis of a layer stays.
READS = "reads what stays"

Rule = Callable[[ChannelLabels, Call], None]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for operations of these names."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


@functools.cache
def find_rule(op: torch._ops.OpOverload) -> Rule:
    """The rule for an operation; one without any pins what it touches."""
    if operation_name(op) in RULES:
        return RULES[operation_name(op)]
    if torch.Tag.pointwise in op.tags:
        return pointwise
    returns = op._schema.returns
    if returns and all(r.alias_info is not None and not r.alias_info.is_write for r in returns):
        return rearrange
    return unknown


def unknown(labels: ChannelLabels, call: Call) -> None:
    """No rule: whatever enters stays."""
    for tensor in call.inputs:
        labels.pin(labels.of(tensor), f"enters {call.name}, which is not known to carry channels")
    for out in call.outputs:
        labels.attach(out, no_labels(out.ndim))


@rule("copy_", "_to_copy", "clone", "contiguous", "alias", "detach", "_prelu_kernel", "masked_fill", "dropout")
def pointwise(labels: ChannelLabels, call: Call) -> None:
    """Numbers at the same place move together, unless one is the same for all channels of the other.

    A fixed operand that is broadcast along the channels disturbs nothing; one that differs between them pins them.
    """
    for out in call.outputs:
        operands = [_aligned_operand(labels, tensor, out.ndim) for tensor in call.inputs]
        if all(x is operands[0] for x in operands[1:]) and operands:
            labels.attach(out, operands[0])
            continue
        varying = [axis for axis in range(out.ndim) if any(x.shape[axis] > 1 for x in operands)]
        chosen: Tensor | None = None
        for tensor, x in zip(call.inputs, operands, strict=True):
            # One number for all channels of the others leaves them free, if it does not move itself.
            if x.numel() == 1 and _same_along(labels, tensor, out.ndim, varying):
                if x.item() == FIXED:
                    continue
                if varying:
                    labels.pin(x, f"acts on other channels ({call.name})")
                    continue
            # Else a label that is spread over others joins them to a block.
            if chosen is not None:
                labels.link(chosen, x, f"is combined with what stays ({call.name})")
            if chosen is None or x.numel() < chosen.numel():
                chosen = x
        labels.attach(out, no_labels(out.ndim) if chosen is None else chosen)


def _aligned_operand(labels: ChannelLabels, tensor: Tensor, ndim: int) -> Tensor:
    """Labels with leading axes added."""
    x = labels.of(tensor)
    return x if x.ndim == ndim else x.reshape([1] * (ndim - x.ndim) + list(x.shape))


def _same_along(labels: ChannelLabels, tensor: Tensor, ndim: int, axes: list[int]) -> bool:
    """Whether an operand is one number repeated along some axes of a result."""
    same = [True] * (ndim - tensor.ndim) + labels.same_along(tensor)
    return all(same[axis] for axis in axes)


@rule("view", "_unsafe_view", "_reshape_alias", "reshape", "flatten", "squeeze", "unsqueeze")
def reshaped(labels: ChannelLabels, call: Call) -> None:
    """The same numbers in another shape."""
    source = call.inputs[0]
    if source.numel():
        labels.attach(call.out, reshape(labels.of(source), tuple(source.shape), tuple(call.out.shape)))


@rule("t", "transpose", "permute", "numpy_T")
def transposed(labels: ChannelLabels, call: Call) -> None:
    """Axes in another order; a weight matrix stays a weight matrix."""
    source, out = call.inputs[0], call.out
    swapped = out.shape == source.shape[::-1] and out.stride() == source.stride()[::-1]
    if not (swapped and labels.mark_transpose(out, source)):
        rearrange(labels, call)


@rule("index", "index_select", "gather", "flip", "roll", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle")
def rearrange(labels: ChannelLabels, call: Call) -> None:
    """Numbers are moved, repeated or dropped: the operation itself does the same to their labels."""
    source = call.inputs[0]
    arguments = {**call.bound, next(iter(call.bound)): labels.of(source).expand(source.shape)}
    moved = call.op(**arguments)
    for out, new in zip(call.outputs, tree_leaves(moved), strict=True):
        labels.attach(out, new)


@rule("repeat")
def repeated(labels: ChannelLabels, call: Call) -> None:
    """As any rearrangement; and what had length 1 is one slice repeated, the same for all channels along that axis."""
    rearrange(labels, call)
    source = call.inputs[0]
    missing = call.out.ndim - source.ndim
    call.out._channel_repeats = [True] * missing + labels.same_along(source)


@rule("constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d")
@rule("replication_pad2d", "replication_pad3d")
def padded(labels: ChannelLabels, call: Call) -> None:
    """Numbers are added around the last axes: the same for all channels, where channels lie along other axes."""
    source, pad = call.inputs[0], list(call.bound.values())[1]
    x = labels.of(source)
    grown = [axis for n, axis in enumerate(range(source.ndim - 1, -1, -1)) if any(pad[2 * n : 2 * n + 2])]
    if all(x.shape[axis] == 1 for axis in grown):
        labels.attach(call.out, x)
    elif call.name == "constant_pad_nd":
        # Padding in the channels' own axis: what is added has no label and cannot move.
        labels.attach(call.out, torch.constant_pad_nd(x.expand(source.shape), pad, FIXED))
    else:
        unknown(labels, call)


@rule("cat", "stack")
def joined(labels: ChannelLabels, call: Call) -> None:
    """Labels side by side, written out along no more axes than needed."""
    # Old-style empty tensors may be concatenated with anything.
    tensors = [tensor for tensor in call.inputs if tensor.numel()]
    dim = call.bound.get("dim", 0) % call.out.ndim
    parts = [labels.of(tensor) for tensor in tensors]
    if call.name == "cat":
        shape = [max(part.shape[axis] for part in parts) for axis in range(call.out.ndim)]
        lengths = [tensor.shape[dim] for tensor in tensors]
        parts = [part.expand(*shape[:dim], n, *shape[dim + 1 :]) for part, n in zip(parts, lengths, strict=True)]
        labels.attach(call.out, torch.cat(parts, dim))
    else:
        labels.attach(call.out, torch.stack(torch.broadcast_tensors(*parts), dim))


def _spatial(dims: int) -> Rule:
    def pooled(labels: ChannelLabels, call: Call) -> None:
        """Every channel by itself, over its last axes."""
        for out in call.outputs:
            labels.attach(out, _per_channel(labels, call.inputs[0], call.inputs[0].ndim - dims))

    return pooled


def _per_channel(labels: ChannelLabels, tensor: Tensor, leading: int) -> Tensor:
    """Labels with what follows the first axes joined: (leading axes..., 1, ...)."""
    x = labels.of(tensor)
    if any(n > 1 for n in x.shape[leading:]):
        flat = x.expand(*x.shape[:leading], *tensor.shape[leading:]).reshape(-1, tensor.shape[leading:].numel())
        labels.join(flat)
    return first_along(x, range(leading, x.ndim))


for _dims, _kinds in {
    1: "avg_pool1d max_pool1d adaptive_avg_pool1d upsample_nearest1d upsample_linear1d",
    2: "avg_pool2d max_pool2d_with_indices adaptive_max_pool2d _adaptive_avg_pool2d upsample_nearest2d "
    "upsample_bilinear2d upsample_bicubic2d _upsample_nearest_exact2d _upsample_bilinear2d_aa",
    3: "avg_pool3d max_pool3d_with_indices adaptive_max_pool3d _adaptive_avg_pool3d upsample_nearest3d "
    "upsample_trilinear3d _upsample_nearest_exact3d",
}.items():
    rule(*_kinds.split())(_spatial(_dims))


@rule("mean", "sum", "amax", "amin", "max", "min", "var", "std", "var_mean", "norm", "linalg_vector_norm", "logsumexp")
@rule("prod", "any", "all")
def reduced(labels: ChannelLabels, call: Call) -> None:
    """One number from many: the same whatever the order of channels, so that their set alone must stay."""
    source = call.inputs[0]
    if call.name in ("max", "min") and len(call.inputs) > 1:
        pointwise(labels, call)
        return
    dims = call.bound.get("dim")
    dims = range(source.ndim) if dims is None or dims == [] else [dims] if isinstance(dims, int) else dims
    axes = sorted(d % source.ndim for d in dims) if source.ndim else []
    x = _symmetric(labels, source, axes)
    keep = call.bound.get("keepdim", False)
    for out in call.outputs:
        labels.attach(out, x if keep else x.reshape([n for axis, n in enumerate(x.shape) if axis not in axes]))


def _symmetric(labels: ChannelLabels, tensor: Tensor, axes: list[int]) -> Tensor:
    """Labels after a function of `axes` that ignores order: these axes have length 1."""
    x = labels.of(tensor)
    inner = [axis for axis in axes if x.shape[axis] > 1]
    if not inner:
        return x
    outer = [axis for axis in range(x.ndim) if axis not in inner]
    rows = x.permute(*outer, *inner).reshape(-1, torch.Size(x.shape[axis] for axis in inner).numel())
    labels.touch_rows(rows)
    return no_labels(x.ndim)


@rule("_softmax", "_log_softmax", "_safe_softmax")
def softmax(labels: ChannelLabels, call: Call) -> None:
    """Normalised along one axis, in which order does not matter."""
    source = call.inputs[0]
    _symmetric(labels, source, [call.bound["dim"] % source.ndim])
    labels.attach(call.out, labels.of(source))


@rule("native_dropout", "bernoulli_", "bernoulli")
def random(labels: ChannelLabels, call: Call) -> None:
    """Random numbers have one distribution for all channels, so that only a draw can tell them apart."""
    for out in call.outputs:
        labels.attach(out, labels.of(call.inputs[0]))


@rule("empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like", "new_empty", "new_zeros")
@rule("new_ones", "new_full", "is_same_size", "_local_scalar_dense")
def unrelated(labels: ChannelLabels, call: Call) -> None:
    """The result does not depend on the input's numbers, or leaves the tensors (a Python number)."""
    if call.name == "_local_scalar_dense":
        labels.pin(labels.of(call.inputs[0]), "becomes a Python number")


@rule("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")
def batch_norm(labels: ChannelLabels, call: Call) -> None:
    """Batch- and InstanceNorm (torch computes it as batch-norm of one image): every channel with its own numbers."""
    source, *vectors = call.inputs
    channels = _channels(labels, source, axis=1)
    for vector in vectors:
        labels.follow(vector, channels)
    labels.attach(call.outputs[0], _as_before(labels, source, channels))


@rule("native_group_norm")
def group_norm(labels: ChannelLabels, call: Call) -> None:
    """Channels that are normalised together stay together: whole groups move. One group lets every channel move."""
    source, *vectors = call.inputs
    channels, groups = _channels(labels, source, axis=1), call.bound["group"]
    if groups > 1:
        labels.join(channels.reshape(groups, -1))
    for vector in vectors:
        labels.follow(vector, channels)
    labels.attach(call.outputs[0], _as_before(labels, source, channels))


@rule("native_layer_norm")
def layer_norm(labels: ChannelLabels, call: Call) -> None:
    """The order of what is normalised does not matter, if scale and shift move along."""
    source, *vectors = call.inputs
    axes = len(call.bound["normalized_shape"])
    _symmetric(labels, source, list(range(source.ndim - axes, source.ndim)))
    for vector in vectors:
        labels.link(labels.of(source), labels.of(vector))
    labels.attach(call.outputs[0], labels.of(source))


@rule("convolution", "_convolution")
def convolution(labels: ChannelLabels, call: Call) -> None:
    """Input channels move with the kernel's input axis, output channels with its output axis, groups as blocks."""
    source, weight, bias = call.bound["input"], call.bound["weight"], call.bound.get("bias")
    groups, transposed_conv = call.bound["groups"], call.bound["transposed"]
    found = labels.weight(weight)
    if found is None or found[1]:
        unknown(labels, call)
        return
    name, channel_axis = found[0], source.ndim - weight.ndim + 1
    inputs = _channels(labels, source, channel_axis)
    if groups == 1:
        labels.tie(name, 0 if transposed_conv else 1, inputs, READS, reads=True)
        outputs = labels.at(name, 1 if transposed_conv else 0)
    elif transposed_conv:
        rows = labels.at(name, 0)
        labels.link(rows, inputs, READS)
        block = labels.join(rows.reshape(groups, -1))
        outputs = block[:, None].expand(-1, weight.shape[1]).reshape(-1)
    else:
        outputs = labels.at(name, 0)
        labels.link(labels.join(outputs.reshape(groups, -1)), labels.join(inputs.reshape(groups, -1)), READS)
    if bias is not None:
        labels.follow(bias, outputs)
    labels.attach(call.out, labels.along(outputs, channel_axis, source.ndim))


def _channels(labels: ChannelLabels, tensor: Tensor, axis: int) -> Tensor:
    """One label per channel; labels that vary within a channel are joined."""
    x = labels.of(tensor)
    if x.numel() == x.shape[axis] == tensor.shape[axis]:
        return x.reshape(-1)
    x = x.expand(*x.shape[:axis], tensor.shape[axis], *x.shape[axis + 1 :])
    return labels.join(x.movedim(axis, 0).reshape(tensor.shape[axis], -1))


def _as_before(labels: ChannelLabels, source: Tensor, channels: Tensor) -> Tensor:
    """Labels after what leaves every channel in its place: the very same, if they only vary along the channels."""
    x = labels.of(source)
    return x if x.numel() == x.shape[1] else labels.along(channels, 1, source.ndim)


@rule("mm", "bmm", "addmm", "baddbmm", "linear", "matmul")
def product(labels: ChannelLabels, call: Call) -> None:
    """A linear layer, or a product of two activations as in attention."""
    added = call.bound["self"] if call.name in ("addmm", "baddbmm") else None
    left, right = [tensor for tensor in call.inputs if tensor is not added][:2]
    found = labels.weight(right)
    if right.ndim == 2 and found is not None:
        name, is_transposed = found
        inputs = _channels(labels, left, left.ndim - 1)
        labels.tie(name, 1 if is_transposed else 0, inputs, READS, reads=True)
        outputs = labels.at(name, 0 if is_transposed else 1)
        if added is not None:
            labels.follow(added, outputs)
        labels.attach(call.out, labels.along(outputs, call.out.ndim - 1, call.out.ndim))
    elif call.name in ("mm", "bmm"):
        _product_of_activations(labels, call, (left, right), rows=call.out.ndim - 2)
    else:
        unknown(labels, call)


@rule("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention")
@rule("_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention")
def attention(labels: ChannelLabels, call: Call) -> None:
    """Query, key and value of one head move as a whole."""
    mask = call.bound.get("attn_mask", call.bound.get("attn_bias"))
    if mask is not None and labels.of(mask).any():
        unknown(labels, call)
        return
    _product_of_activations(labels, call, tuple(call.bound[key] for key in ("query", "key", "value")), rows=2)


def _product_of_activations(labels: ChannelLabels, call: Call, tensors: tuple[Tensor, ...], rows: int) -> None:
    """Everything that is multiplied within one matrix of the batch (one head) moves together."""
    out = call.outputs[0]
    matrices = []
    for tensor in tensors:
        x = labels.of(tensor)
        if any(x.shape[axis] > 1 for axis in range(rows, x.ndim)):
            labels.join(x.reshape(x.shape[:rows].numel(), -1))
        matrices.append(first_along(x, range(rows, x.ndim)))
    for other in matrices[1:]:
        labels.link(matrices[0], other)
    labels.attach(out, matrices[0])
