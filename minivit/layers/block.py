"""The transformer block: attention and an MLP, each behind a norm and a residual."""
import torch
from jaxtyping import Float
from torch import Tensor, nn

from minivit.layers.attention import Attention
from minivit.layers.norm import TokenBatchNorm


class DropPath(nn.Module):
    """Stochastic depth: in training, drop the branch for a random ``rate`` of the images and scale up the rest.

    Any shape ``(B, ...)``. Source: Huang et al. 2016.
    """

    def __init__(self, rate: float = 0.0):
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"drop_path={rate}: the rate lies in [0, 1).")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        keep = torch.rand(x.shape[0], *[1] * (x.dim() - 1), device=x.device) >= self.rate
        return x * keep / (1 - self.rate)


class MLP(nn.Sequential):
    """Linear, GELU, Linear on each token alone: ``(B, N, D) -> (B, N, D)``."""

    def __init__(self, dim: int, hidden_dim: int):
        super().__init__(nn.Linear(dim, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, dim))


NORMS = {"ln": lambda dim: nn.LayerNorm(dim, eps=1e-6), "bn": TokenBatchNorm}


class Block(nn.Module):
    """Pre-norm transformer block: ``x + attn(norm(x))``, then ``x + mlp(norm(x))``. ``(B, N, D) -> (B, N, D)``.

    ``norms`` names the norm before attention and the one before the MLP: "ln", or "bn" (`TokenBatchNorm`).
    Source: Dosovitskiy et al. 2021, eqs. 2–3.
    """

    def __init__(self, dim: int, heads: int, *, mlp_ratio: float = 4.0, drop_path: float = 0.0, norms: tuple[str, str] = ("ln", "ln")):
        super().__init__()
        self.norm1 = NORMS[norms[0]](dim)
        self.attn = Attention(dim, heads)
        self.norm2 = NORMS[norms[1]](dim)
        self.mlp = MLP(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens dim"]:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))
