"""The few lines that torchrun needs. In a single process every function is the identity."""
import os

import torch
import torch.distributed as dist
from einops import rearrange
from torch import Tensor

from minivit.layers.norm import sum_over_processes


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def start() -> None:
    """Join the group that ``torchrun`` has set up, if it has: NCCL with a GPU for each process, else gloo on CPUs."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def gather(local: Tensor) -> tuple[Tensor, int]:
    """Join ``(V, B, ...)`` of all processes to ``(V, R·B, ...)``, with gradient; and where the local images start.

    The gradient matters: a plain ``all_gather`` cuts it, and SimCLR then trains on half of the true one.
    """
    if world_size() == 1:
        return local, 0
    parts = local.new_zeros(world_size(), *local.shape)  # each fills its own place, the sum fills all: SimCLR's way
    parts[rank()] = local
    parts = sum_over_processes(parts)
    return rearrange(parts, "r v b ... -> v (r b) ..."), rank() * local.shape[1]


@torch.no_grad()
def mean(value: Tensor) -> Tensor:
    """The mean over processes, without gradient: for figures that are logged."""
    if world_size() > 1:
        value = value.clone()
        dist.all_reduce(value)
        value = value / world_size()
    return value
