"""Attention inside windows: cutting a map up, masking what a cyclic shift joined, attending, some windows at a time if need be."""
import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from minivit.layers.attention import Attention
from minivit.layers.position import Size, pair


def partition(x: Float[Tensor, "batch height width dim"], window: Size) -> Float[Tensor, "windows tokens dim"]:
    """Cut a map into its windows: ``(B, H, W, D) -> (B·nW, M·M, D)``, image by image, row-major. The window must divide the map."""
    rows, cols = pair(window)
    return rearrange(x, "b (y rows) (x cols) d -> (b y x) (rows cols) d", rows=rows, cols=cols)


def merge(x: Float[Tensor, "windows tokens dim"], window: Size, height: int, width: int) -> Float[Tensor, "batch height width dim"]:
    """`partition` undone: ``(B·nW, M·M, D) -> (B, H, W, D)``."""
    rows, cols = pair(window)
    return rearrange(x, "(b y x) (rows cols) d -> b (y rows) (x cols) d", y=height // rows, x=width // cols, rows=rows)


@lru_cache(maxsize=64)
def shift_mask(
    height: int, width: int, window: Size, shift: tuple[int, int], device: torch.device | None = None
) -> Bool[Tensor, "windows tokens tokens"]:
    """Who may look at whom, ``(nW, M·M, M·M)``, in the windows of a map rolled by −shift: True where both were neighbours before.

    The roll is cyclic: its last ``shift`` rows and columns come from the opposite border, and a window may hold both kinds.
    """
    with torch.inference_mode(False):  # the mask is kept, and training may be the next to use it
        below, right = (torch.arange(size, device=device) >= size - s for size, s in zip((height, width), shift))
        region = partition(rearrange(2.0 * below[:, None] + right, "h w -> 1 h w 1"), window)
        return region == rearrange(region, "w n 1 -> w 1 n")


class WindowAttention(Attention):
    """Self-attention among the tokens of each window: ``(B·nW, M·M, D) -> (B·nW, M·M, D)``.

    In each head ``softmax(s(Q, K) + R) V`` with R the ``position_bias`` and, by ``kind``,
    "dot" (V1): ``s = Q Kᵀ / √d``; Q, K and V have a bias;
    "cosine" (V2): ``s = cos(Q, K) / τ``; τ is trained for each head, starts at 0.1 and stops at 0.01; K has no bias, which cosines would see.
    ``mask (nW, M·M, M·M)``, see `shift_mask`, is True where a query may look at a key. Scores and softmax are computed in float32 under
    autocast, too.

    Raises ValueError for an unknown ``kind``, for ``heads`` that do not divide ``dim``, and for tokens that do not fill the window.
    Source: Liu et al. 2021, §3.2; Liu et al. 2022, §3.2 and official code (``logit_scale`` is ln(1/τ), 1/τ ≤ 100). Forbidden pairs
    get −∞ here and −100 there, which a saturated cosine head can outweigh.
    """

    def __init__(
        self, dim: int, heads: int, window: Size, *, kind: str = "dot", position_bias: nn.Module | None = None, fused: bool = True
    ):
        if kind not in ("dot", "cosine"):
            raise ValueError(f"kind={kind!r}: attention is 'dot' or 'cosine'.")
        super().__init__(dim, heads, qkv_bias=kind == "dot", fused=fused)
        self.window, self.kind, self.position_bias = pair(window), kind, position_bias
        if kind == "cosine":
            self.q_bias, self.v_bias = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(dim))
            self.logit_scale = nn.Parameter(torch.full((heads,), math.log(10)))

    def project(self, x: Float[Tensor, "windows tokens dim"]) -> Float[Tensor, "windows tokens three_dim"]:
        """Q, K and V side by side, at least in float32."""
        bias = self.to_qkv.bias if self.kind == "dot" else torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = F.linear(x, self.to_qkv.weight, bias)
        return qkv if qkv.dtype == torch.float64 else qkv.float()

    def split_heads(self, qkv: Float[Tensor, "windows tokens three_dim"], count: int = 1) -> tuple[Tensor, Tensor, Tensor]:
        """Q, K and V, each ``(B, nW·heads, M·M, d)`` with nW = ``count``. The scale is already in Q: Q Kᵀ is s."""
        q, k, v = rearrange(qkv, "(b w) n (three h d) -> three b (w h) n d", w=count, three=3, h=self.heads)
        if self.kind == "dot":
            return q / q.shape[-1] ** 0.5, k, v
        scale = self.logit_scale.clamp(max=math.log(100)).exp()
        return F.normalize(q, dim=-1) * repeat(scale, "h -> (w h) 1 1", w=count), F.normalize(k, dim=-1), v

    def bias_and_mask(self, x: Tensor, mask: Bool[Tensor, "some tokens tokens"] | None) -> Float[Tensor, "some heads tokens tokens"]:
        """What is added to s: ``(nW, heads, M·M, M·M)`` with a mask, else ``(1, heads, M·M, M·M)``."""
        tokens = x.shape[1]
        if tokens != math.prod(self.window) or (mask is not None and len(x) % len(mask)):
            masks = "no mask" if mask is None else f"{len(mask)} masks"
            raise ValueError(f"{len(x)} windows of {tokens} tokens do not fit window={self.window} with {masks}.")
        bias = x.new_zeros(self.heads, tokens, tokens) if self.position_bias is None else self.position_bias().to(x.dtype)
        return bias[None] if mask is None else torch.where(mask[:, None], bias, -torch.inf)

    def maps(
        self, x: Float[Tensor, "windows tokens dim"], mask: Bool[Tensor, "some tokens tokens"] | None = None
    ) -> Float[Tensor, "windows heads tokens tokens"]:
        """Who looks at whom in each window: rows sum to 1."""
        qkv = self.project(x)
        added = self.bias_and_mask(qkv, mask)
        q, k, _ = self.split_heads(qkv, len(added))
        return rearrange(biased_maps(q, k, added.flatten(0, 1)), "b (w h) i j -> (b w) h i j", h=self.heads)

    def forward(
        self, x: Float[Tensor, "windows tokens dim"], mask: Bool[Tensor, "some tokens tokens"] | None = None
    ) -> Float[Tensor, "windows tokens dim"]:
        qkv = self.project(x)
        with torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False):
            added = self.bias_and_mask(qkv, mask)
            q, k, v = self.split_heads(qkv, len(added))
            bias = added.flatten(0, 1)
            if self.fused and not (bias.requires_grad and x.device.type == "cpu"):  # on a CPU no fused kernel trains a bias
                out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None], scale=1.0)
            else:
                out = torch.einsum("bhij, bhjd -> bhid", biased_maps(q, k, bias), v)
        return self.to_out(rearrange(out, "b (w h) n d -> (b w) n (h d)", h=self.heads).to(x.dtype))


def biased_maps(
    q: Float[Tensor, "batch heads tokens head_dim"], k: Float[Tensor, "batch heads tokens head_dim"], bias: Float[Tensor, "heads tokens tokens"]
) -> Float[Tensor, "batch heads tokens tokens"]:
    """``softmax(Q Kᵀ + R)`` over the keys."""
    scores = torch.einsum("bhid, bhjd -> bhij", q, k)
    scores += bias  # in place: on a CPU fresh memory of this size costs more than the sum
    return scores.softmax(dim=-1)


def in_turns(
    attention: WindowAttention, x: Float[Tensor, "windows tokens dim"], mask: Bool[Tensor, "some tokens tokens"] | None, *, images: int, at_once: int
) -> Float[Tensor, "windows tokens dim"]:
    """``attention(x, mask)``, but ``at_once`` windows of every image at a time, each turn computed once more on the way back.

    The paper's sequential self-attention: what grows with M⁴ exists for few windows only. Without the second computation the maps of all
    turns would be kept for the backward pass, and nothing saved. Source: Liu et al. 2022, §3.4, which gives no details.
    """
    turns = rearrange(x, "(b w) n d -> b w n d", b=images).split(at_once, dim=1)
    masks = [None] * len(turns) if mask is None else mask.split(at_once)
    done = [checkpoint(attention, rearrange(turn, "b w n d -> (b w) n d"), some, use_reentrant=False) for turn, some in zip(turns, masks)]
    done = [rearrange(out, "(b w) n d -> b w n d", b=images) for out in done]
    return rearrange(torch.cat(done, dim=1), "b w n d -> (b w) n d")
