"""Write a safetensors file tensor by tensor, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from monai_medmerge.files import whole_file
from monai_medmerge.methods.applying.mapped import DTYPES
from monai_medmerge.methods.tensors import TensorHeader

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def write_safetensors(
    path: Path, headers: Mapping[str, TensorHeader], tensor: Callable[[str], Tensor], metadata: Mapping[str, str]
) -> None:
    """Write one tensor after the other; the file appears under its name when all of them are there.

    The format begins with a header of all kinds, shapes and offsets, which `headers` suffice for, so that one tensor
    at a time has to be in memory.

    Args:
        path: what the file becomes; one that exists is replaced.
        headers: names to kinds and shapes.
        tensor: from a name to its values, asked once for each, in the file's order.
        metadata: goes into the header.

    Raises:
        OutputError: the file cannot be written. Nothing is left behind then, or whatever else is raised.
    """
    # The format wants no gaps; the widest numbers first keeps each tensor aligned to its own.
    order = sorted(headers, key=lambda name: -headers[name].dtype.itemsize)
    with whole_file(path) as part, part.open("wb") as file:
        file.write(_header(order, headers, metadata))
        for name in order:
            value, wanted = tensor(name), headers[name]
            if (value.dtype, tuple(value.shape)) != (wanted.dtype, wanted.shape):
                raise ValueError(f"{name}: {value.dtype} {tuple(value.shape)} announced as {wanted}")
            file.write(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)


def _header(order: list[str], headers: Mapping[str, TensorHeader], metadata: Mapping[str, str]) -> bytes:
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name in order:
        start, end = end, end + headers[name].bytes
        kind, shape = _NAMES[headers[name].dtype], list(headers[name].shape)
        entries[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    # Padded with spaces, as the format allows, so that the data begins at a multiple of eight.
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
