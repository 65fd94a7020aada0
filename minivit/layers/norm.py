"""BatchNorm with two switches: statistics per group of the batch, or over all processes."""
import torch
import torch.distributed as dist
from einops import rearrange, repeat
from torch import Tensor, nn


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation for ``(B, C)``, ``(B, C, L)`` or ``(B, C, H, W)``; parameters and buffers are PyTorch's.

    ``groups=g`` normalises each g-th of the batch by its own statistics, as g GPUs without synchronisation would
    ("split" or "ghost" BN; running statistics average the groups). ``sync=True`` uses the joint statistics of all
    processes, by an all-reduce that carries gradients: it works on any back end, which PyTorch's SyncBatchNorm
    does not. Both do nothing in eval mode.

    Raises ValueError in training where a channel has a single value, or where ``groups`` does not divide B.
    Source: Ioffe & Szegedy 2015; SimCLR §2.1 "global BN"; He et al. 2020 (MoCo) §3.3 for why groups matter.
    """

    def __init__(self, channels: int, *, groups: int = 1, sync: bool = False, affine: bool = True, eps: float = 1e-5):
        super().__init__(channels, eps=eps, affine=affine)
        self.groups, self.sync = groups, sync

    def _check_input_dim(self, x: Tensor) -> None:
        if x.dim() < 2:
            raise ValueError(f"BatchNorm takes (B, C, ...), not a tensor of shape {tuple(x.shape)}.")
        if self.training and x.shape[0] < 2 * self.groups and x[0, 0].numel() == 1:
            raise ValueError(f"BatchNorm needs two images in each group to train: got {x.shape[0]}, groups={self.groups}.")

    def forward(self, x: Tensor) -> Tensor:
        world = dist.get_world_size() if self.sync and dist.is_initialized() else 1
        self._check_input_dim(x)
        if not self.training or (self.groups == 1 and world == 1):
            return super().forward(x)
        if x.shape[0] % self.groups:
            raise ValueError(f"groups={self.groups} does not divide the batch of {x.shape[0]}.")
        full = x if x.dtype == torch.float64 else x.float()  # statistics of half-precision numbers are taken in float32
        grouped = rearrange(full, "(g b) c ... -> g b c (...)", g=self.groups)
        mean = _joint_mean(grouped.mean(dim=(1, 3)), world)
        centred = grouped - repeat(mean, "g c -> g 1 c 1")
        var = _joint_mean(centred.square().mean(dim=(1, 3)), world)
        self._update_running(mean, var, count=world * grouped[0, :, 0].numel())
        out = centred * repeat(torch.rsqrt(var + self.eps), "g c -> g 1 c 1")
        if self.affine:
            out = out * self.weight[:, None] + self.bias[:, None]
        return rearrange(out, "g b c n -> (g b) c n").reshape(x.shape).to(x.dtype)

    @torch.no_grad()
    def _update_running(self, mean: Tensor, var: Tensor, *, count: int) -> None:
        self.num_batches_tracked += 1
        unbiased = var.mean(0) * count / (count - 1)  # PyTorch stores the unbiased variance, normalises by the biased
        self.running_mean.lerp_(mean.mean(0).to(self.running_mean), self.momentum)
        self.running_var.lerp_(unbiased.to(self.running_var), self.momentum)


def _joint_mean(local: Tensor, world: int) -> Tensor:
    """The mean over processes; gradients flow through it. Local batches are equal, so it is the mean over all images."""
    return sum_over_processes(local) / world if world > 1 else local


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, local):
        total = local.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient):
        return sum_over_processes(gradient)


def sum_over_processes(local: Tensor) -> Tensor:
    """The sum over all processes, with its gradient: a sum, too, since the loss of every process depends on every term.

    On any back end. PyTorch's own (`torch.distributed.nn.functional.all_reduce`) is deprecated from 2.15 on.
    """
    return _Sum.apply(local)


def set_batch_norm(module: nn.Module, *, groups: int | None = None, sync: bool | None = None) -> nn.Module:
    """Switch every `BatchNorm` inside ``module``; None leaves a switch as it is. Returns ``module``."""
    for child in module.modules():
        if isinstance(child, BatchNorm):
            child.groups = child.groups if groups is None else groups
            child.sync = child.sync if sync is None else sync
    return module


class PixelLayerNorm(nn.LayerNorm):
    """LayerNorm of an image's channels, pixel by pixel: ``(B, C, H, W) -> (B, C, H, W)``. ε is 1e-6, as in our blocks."""

    def __init__(self, channels: int):
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return rearrange(super().forward(rearrange(x, "b c h w -> b h w c")), "b h w c -> b c h w")


class TokenBatchNorm(BatchNorm):
    """BatchNorm of tokens ``(B, N, D)``: each channel over all tokens of all images. What ViT-BN has in place of a LayerNorm.

    Source: Chen, Xie & He 2021 (MoCo v3), §6.
    """

    def forward(self, x: Tensor) -> Tensor:
        return rearrange(super().forward(rearrange(x, "b n d -> b d n")), "b d n -> b n d")
