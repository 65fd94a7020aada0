"""The few lines that torchrun needs. In a single process every function is the identity."""
import os

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_nn
from einops import rearrange
from torch import Tensor


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def start(device: torch.device) -> None:
    """Join the group that ``torchrun`` has set up, if it has: NCCL on GPUs, gloo on CPUs."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


def gather(local: Tensor) -> tuple[Tensor, int]:
    """Join ``(V, B, D)`` of all processes to ``(V, R·B, D)``, with gradient; and where the local images start.

    The gradient matters: a plain ``all_gather`` cuts it, and SimCLR then trains on half of the true one.
    """
    if world_size() == 1:
        return local, 0
    parts = torch.stack(dist_nn.all_gather(local))
    return rearrange(parts, "r v b d -> v (r b) d"), rank() * local.shape[1]


@torch.no_grad()
def mean(value: Tensor) -> Tensor:
    """The mean over processes, without gradient: for figures that are logged."""
    if world_size() > 1:
        value = value.clone()
        dist.all_reduce(value)
        value = value / world_size()
    return value
