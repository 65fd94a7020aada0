"""Multi-head self-attention, once spelled out and once fused."""
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head self-attention: ``softmax(Q Kᵀ / √d) V`` in each head, d = dim / heads.

    Shapes: ``(B, N, D) -> (B, N, D)``. Two paths compute the same function: ``fused=True`` calls PyTorch's
    kernel and never stores the N × N maps; ``fused=False`` spells the formula out. A test holds them equal.

    Raises ValueError where ``heads`` does not divide ``dim``.
    Source: Vaswani et al. 2017, eq. 1 and §3.2.2; Q, K and V come from one Linear, as in timm's ViT.
    """

    def __init__(self, dim: int, heads: int, *, qkv_bias: bool = True, fused: bool = True):
        super().__init__()
        if heads < 1 or dim % heads:
            raise ValueError(f"heads={heads} does not divide dim={dim}: each head gets dim / heads channels.")
        self.heads, self.fused = heads, fused
        self.to_qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.to_out = nn.Linear(dim, dim)

    def split_heads(self, x: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "three batch heads tokens head_dim"]:
        return rearrange(self.to_qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.heads)

    def maps(self, x: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch heads tokens tokens"]:
        """Who looks at whom: entry (b, h, i, j) is the weight with which query i reads value j; rows sum to 1."""
        q, k, _ = self.split_heads(x)
        return attention_maps(q, k)

    def forward(self, x: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens dim"]:
        q, k, v = self.split_heads(x)
        if self.fused:
            out = F.scaled_dot_product_attention(q, k, v)
        else:
            out = torch.einsum("bhij, bhjd -> bhid", attention_maps(q, k), v)
        return self.to_out(rearrange(out, "b h n d -> b n (h d)"))


def attention_maps(
    q: Float[Tensor, "batch heads tokens head_dim"], k: Float[Tensor, "batch heads tokens head_dim"]
) -> Float[Tensor, "batch heads tokens tokens"]:
    """``softmax(Q Kᵀ / √d)`` over the keys (the last axis), d the width of one head."""
    scores = torch.einsum("bhid, bhjd -> bhij", q, k) / q.shape[-1] ** 0.5
    return scores.softmax(dim=-1)
