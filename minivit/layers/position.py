"""How a token knows where it is: fixed sin-cos, learned, or not at all."""
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


def sincos_2d(dim: int, height: int, width: int, cls_token: bool = False) -> Float[Tensor, "tokens dim"]:
    """Fixed 2-D position code: one half of the channels codes the row, the other half the column.

    With d = dim / 4 and ω_i = 10000^(−i/d), the token at (row, col) gets
    ``[sin(row·ω), cos(row·ω), sin(col·ω), cos(col·ω)]``, each block d wide.

    Returns ``(height·width, dim)`` in row-major order, in float32; with ``cls_token`` a row of zeros comes first.
    Raises ValueError where 4 does not divide ``dim``.
    Source: Chen et al. 2021 (MoCo v3), official code. That code swaps the axes on grids that are not square; this one does not.
    """
    if dim % 4:
        raise ValueError(f"dim={dim}: a 2-D sin-cos code needs a multiple of 4 channels.")
    omega = 10000 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    row = torch.arange(height, dtype=torch.float64).repeat_interleave(width)[:, None] * omega
    col = torch.arange(width, dtype=torch.float64).repeat(height)[:, None] * omega
    code = torch.cat([row.sin(), row.cos(), col.sin(), col.cos()], dim=1).float()
    return torch.cat([code.new_zeros(1, dim), code]) if cls_token else code


class SinCosPositions(nn.Module):
    """Adds `sincos_2d` to the tokens: ``(B, P+N, D) -> (B, P+N, D)``; computed anew for another grid."""

    def __init__(self, dim: int, grid: tuple[int, int], prefix: int):
        super().__init__()
        self.dim, self.grid, self.prefix = dim, grid, prefix
        self.register_buffer("code", sincos_2d(dim, *grid, cls_token=prefix == 1), persistent=False)

    def forward(self, x: Float[Tensor, "batch tokens dim"], grid: tuple[int, int]) -> Float[Tensor, "batch tokens dim"]:
        code = self.code if grid == self.grid else sincos_2d(self.dim, *grid, cls_token=self.prefix == 1).to(self.code)
        return x + code


class LearnedPositions(nn.Module):
    """Adds one trained vector per token: ``(B, P+N, D) -> (B, P+N, D)``. Another grid gets them resampled (bicubic)."""

    def __init__(self, dim: int, grid: tuple[int, int], prefix: int):
        super().__init__()
        self.grid, self.prefix = grid, prefix
        self.table = nn.Parameter(torch.randn(prefix + grid[0] * grid[1], dim) * 0.02)

    def forward(self, x: Float[Tensor, "batch tokens dim"], grid: tuple[int, int]) -> Float[Tensor, "batch tokens dim"]:
        return x + (self.table if grid == self.grid else self.resampled(grid))

    def resampled(self, grid: tuple[int, int]) -> Float[Tensor, "tokens dim"]:
        first, rest = self.table[: self.prefix], self.table[self.prefix :]
        picture = rearrange(rest, "(h w) d -> 1 d h w", h=self.grid[0])
        picture = F.interpolate(picture.float(), size=grid, mode="bicubic", antialias=True, align_corners=False)
        return torch.cat([first, rearrange(picture, "1 d h w -> (h w) d").to(rest.dtype)])


class NoPositions(nn.Module):
    """Adds nothing: the transformer then sees a bag of patches."""

    def __init__(self, dim: int, grid: tuple[int, int], prefix: int):
        super().__init__()

    def forward(self, x: Float[Tensor, "batch tokens dim"], grid: tuple[int, int]) -> Float[Tensor, "batch tokens dim"]:
        return x


POSITIONS = {"learned": LearnedPositions, "sincos": SinCosPositions, "none": NoPositions}
