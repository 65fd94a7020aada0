"""Random weights everywhere, in float64: a test on freshly initialised layers misses every zero bias and unit scale."""
import torch
from torch import nn


@torch.no_grad()
def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Redraw every parameter and buffer in float64: kernels by their fan-in, scales and variances in [½, 1½], the rest normal."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in module.double().state_dict().items():
        if not value.is_floating_point():  # the step counter of BatchNorm
            value.zero_()
            continue
        if value.dim() > 1:
            drawn = torch.randn(value.shape, generator=generator, dtype=value.dtype) / value[0].numel() ** 0.5
        elif name.endswith(("weight", "running_var")):
            drawn = torch.rand(value.shape, generator=generator, dtype=value.dtype) + 0.5
        else:
            drawn = torch.randn(value.shape, generator=generator, dtype=value.dtype)
        value.copy_(drawn)
    return module


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
