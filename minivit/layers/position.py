"""How a token knows where it is: fixed sin-cos, learned, not at all; or how far the others are: biases of attention (Swin)."""
import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
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


# ---------------------------------------------------------------------------------------------------- biases of attention

Size = int | tuple[int, int]


def pair(size: Size) -> tuple[int, int]:
    """(rows, columns) of a window; one number means a square."""
    rows, cols = (size, size) if isinstance(size, int) else size
    if min(rows, cols) < 1:
        raise ValueError(f"window={size}: a window has one row and one column at least.")
    return rows, cols


@lru_cache(maxsize=64)
def relative_index(window: tuple[int, int], device: torch.device | None = None) -> Int[Tensor, "tokens tokens"]:
    """Where a table of all offsets, flattened, holds the one from key j to query i: ``(dy + Mh − 1)(2Mw − 1) + dx + Mw − 1``."""
    with torch.inference_mode(False):
        y, x = (t.flatten() for t in torch.meshgrid(*(torch.arange(m, device=device) for m in window), indexing="ij"))
        dy, dx = (t[:, None] - t[None, :] + m - 1 for t, m in zip((y, x), window))
        return dy * (2 * window[1] - 1) + dx


class RelativePositionBias(nn.Module):
    """Swin V1: one trained number for each head and each offset inside the window. ``forward() -> (heads, M², M²)``.

    The table is ``(heads, 2Mh−1, 2Mw−1)`` here, ``((2M−1)², heads)`` in the official code, and starts normal (std 0.02).
    Source: Liu et al. 2021 (Swin), eq. 4.
    """

    def __init__(self, heads: int, window: Size):
        super().__init__()
        self.window = pair(window)
        self.table = nn.Parameter(torch.empty(heads, *(2 * m - 1 for m in self.window)))
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self) -> Float[Tensor, "heads tokens tokens"]:
        return self.table.flatten(1)[:, relative_index(self.window, self.table.device)]


def spaced(offset: Float[Tensor, "offsets"], span: int, coords: str) -> Float[Tensor, "offsets"]:
    """Offsets Δ of −(M−1) … M−1 pixels as the meta network sees them; ``span`` is M_ref − 1, the largest offset of the training window.

    "log": ``sign(Δ) log₂(1 + 8|Δ|/span) / log₂ 8``, 1.0566 at the border, as the official code has it; "linear": ``Δ/span``;
    "paper": ``sign(Δ) ln(1 + |Δ|)``, the paper's formula, which knows no training window.
    """
    if coords == "linear":
        return offset / span
    if coords == "log":
        return offset.sign() * torch.log2(1 + 8 * offset.abs() / span) / math.log2(8)
    return offset.sign() * torch.log1p(offset.abs())


class ContinuousPositionBias(nn.Module):
    """Swin V2: a small network turns an offset (dy, dx) into a number for each head, so any window has a bias. ``forward() -> (heads, M², M²)``.

    ``16 · sigmoid(W₂ ReLU(W₁ c + b₁))`` of the coordinates c (`spaced`): near 8 everywhere at the start, which softmax does not see.
    ``limit=None`` leaves out 16 · sigmoid. With ``pretrained_window`` an offset of k pixels keeps the coordinate that it had in that window,
    else coordinates are stretched to this one. In eval mode without gradients the table is computed once and kept until a weight changes
    (a change through ``.data`` goes unnoticed).

    Raises ValueError for unknown ``coords``. Source: Liu et al. 2022 (Swin V2), §3.3. Official code only: normalised coordinates, 16 · sigmoid.
    """

    def __init__(
        self,
        heads: int,
        window: Size,
        *,
        pretrained_window: Size | None = None,
        coords: str = "log",
        limit: float | None = 16.0,
        hidden_dim: int = 512,
    ):
        super().__init__()
        if coords not in ("log", "linear", "paper"):
            raise ValueError(f"coords={coords!r}: there are 'log', 'linear' and 'paper'.")
        self.window, self.coords, self.limit = pair(window), coords, limit
        self.reference = pair(pretrained_window or window)
        self.mlp = nn.Sequential(nn.Linear(2, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, heads, bias=False))
        for layer in (self.mlp[0], self.mlp[2]):
            nn.init.trunc_normal_(layer.weight, std=0.02)
        nn.init.zeros_(self.mlp[0].bias)
        self.kept: tuple[list, Tensor] | None = None

    def coordinates(self, window: Size) -> Float[Tensor, "rows cols 2"]:
        like = self.mlp[0].weight
        offsets = [torch.arange(1 - m, m, device=like.device).to(like.dtype) for m in pair(window)]
        axes = [spaced(offset, max(m - 1, 1), self.coords) for offset, m in zip(offsets, self.reference)]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)

    def table(self) -> Float[Tensor, "heads rows cols"]:
        """The bias of every offset, ``(heads, 2Mh−1, 2Mw−1)``."""
        table = rearrange(self.mlp(self.coordinates(self.window)), "y x h -> h y x")
        return table if self.limit is None else self.limit * table.sigmoid()

    def kept_table(self) -> Float[Tensor, "heads rows cols"]:
        weights = list(self.mlp.parameters())
        if self.training or torch.is_grad_enabled() or weights[0].is_inference():
            return self.table()
        state = [(w.data_ptr(), w._version, w.device, w.dtype) for w in weights]
        if self.kept is None or self.kept[0] != state:
            self.kept = state, self.table()
        return self.kept[1]

    def forward(self) -> Float[Tensor, "heads tokens tokens"]:
        table = self.kept_table()
        return table.flatten(1)[:, relative_index(self.window, table.device)]


class LogCPB(ContinuousPositionBias):
    """`ContinuousPositionBias` in log-spaced coordinates, Swin V2's own: a window twice as large asks for little beyond what was trained."""

    def __init__(self, heads: int, window: Size, *, pretrained_window: Size | None = None):
        super().__init__(heads, window, pretrained_window=pretrained_window, coords="log")


def resize_table(table: Float[Tensor, "heads rows cols"], window: Size, rule: str = "bicubic") -> Float[Tensor, "heads new_rows new_cols"]:
    """A table of `RelativePositionBias` for another window: ``(heads, 2Mh−1, 2Mw−1)`` of the old to that of the new one.

    "bicubic" resamples it like a picture, as the official fine-tuning of supervised models does. "geometric" keeps near offsets almost
    where they are and stretches far ones by powers of q, as the official SimMIM code does, whose q stays within 1.01 … 1.5.
    Raises ValueError for another ``rule``.
    """
    size = tuple(2 * m - 1 for m in pair(window))
    if rule == "bicubic":
        return F.interpolate(table[None], size=size, mode="bicubic", align_corners=False)[0]
    if rule != "geometric":
        raise ValueError(f"resize={rule!r}: a table of position biases is resized 'bicubic' or 'geometric'.")
    rows, cols = (geometric(old, new).to(table) for old, new in zip(table.shape[1:], size))
    return torch.einsum("yr, hrc, xc -> hyx", rows, table, cols)


def geometric(old: int, new: int) -> Float[Tensor, "new old"]:
    """The matrix that takes ``old`` values, at 0, ±1, ±(1+q), ±(1+q+q²), …, to ``new`` whole offsets, by a cubic (not-a-knot) spline.

    q is such that the outermost old value lands on the outermost new offset; the identity where nothing grows.
    """
    reach = old // 2
    if new <= old:
        return torch.eye(old, dtype=torch.float64)[(old - new) // 2 : (old + new) // 2]
    low, high = 1.0, float(new)
    while high - low > 1e-12:
        q = (low + high) / 2
        low, high = (q, high) if sum(q**k for k in range(reach)) <= new // 2 else (low, q)
    far = torch.tensor([low**k for k in range(reach)], dtype=torch.float64).cumsum(0) / max(new // 2, 1)  # in units of the new reach
    at = torch.cat([-far.flip(0), far.new_zeros(1), far])
    wanted = torch.linspace(-1, 1, new, dtype=torch.float64).clamp(at[0], at[-1])

    def spline(x: Tensor) -> Tensor:  # cubics, and a kink in the third derivative at every old value but the outer two on each side
        powers = torch.stack([x**k for k in range(min(4, old))], dim=1)
        return torch.cat([powers, (x[:, None] - at[2:-2]).abs() ** 3], dim=1)

    return torch.linalg.solve(spline(at), spline(wanted), left=False)
