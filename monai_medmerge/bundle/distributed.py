"""Begin and end a distributed run, on GPUs (nccl) or on CPUs (gloo)."""

from __future__ import annotations

import gc

import torch
import torch.distributed as dist
from torch import nn

from monai_medmerge.files import weights_sha256


def start_distributed() -> torch.device:
    """Join the group that torchrun started.

    Returns:
        The device of this process.
    """
    cuda = torch.cuda.is_available()
    dist.init_process_group(backend="nccl" if cuda else "gloo")
    if not cuda:
        return torch.device("cpu")
    device = torch.device("cuda", dist.get_rank() % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def check_ranks_agree(network: nn.Module) -> str:
    """Make sure that all ranks hold the same weights, bit for bit.

    Args:
        network: any plain network.

    Returns:
        The SHA-256 that they share.

    Raises:
        RuntimeError: they differ; what was learned cannot be trusted.
    """
    mine = weights_sha256(network)
    everyone: list[str] = [""] * dist.get_world_size()
    dist.all_gather_object(everyone, mine)
    if len(set(everyone)) > 1:
        raise RuntimeError(f"ranks hold different weights: {', '.join(digest[:12] for digest in everyone)}")
    return mine


def stop_distributed() -> None:
    """Leave the group. Wrappers that are still alive are collected first: a process that exits with one may abort."""
    gc.collect()
    dist.barrier()
    dist.destroy_process_group()
