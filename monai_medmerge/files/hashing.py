"""One hash for one file, and one for one network, wherever it is."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, read piece by piece.

    Args:
        path: the file.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     _ = Path(folder, "empty").write_bytes(b"")
        ...     file_sha256(Path(folder, "empty"))[:8]
        'e3b0c442'
    """
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        for piece in iter(lambda: file.read(2**20), b""):
            digest.update(piece)
    return digest.hexdigest()


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes, whatever order, device or file the tensors come in.

    Args:
        tensors: names to tensors, such as a state dict.

    Example:
        >>> one, two = torch.zeros(1), torch.ones(1)
        >>> tensors_sha256({"a": one, "b": two}) == tensors_sha256({"b": two, "a": one})
        True
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.contiguous().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def weights_sha256(network: nn.Module) -> str:
    """The hash of a network's state dict, which is that of a `Source` with the same tensors.

    Args:
        network: any module.

    Example:
        >>> weights_sha256(nn.Linear(1, 1)) == weights_sha256(nn.Linear(1, 1))
        False
    """
    return tensors_sha256(network.state_dict())
