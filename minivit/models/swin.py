"""Swin transformers, V1 and V2: attention inside windows that shift from block to block, at resolutions that halve from stage to stage."""
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from minivit.layers.block import MLP, DropPath
from minivit.layers.position import POSITIONS, ContinuousPositionBias, LogCPB, RelativePositionBias, Size, pair
from minivit.layers.stems import PatchifyStem
from minivit.layers.window import WindowAttention, in_turns, merge, partition, shift_mask
from minivit.models.vit import ViT


@dataclass(frozen=True)
class SwinConfig:
    """Everything that tells one Swin from another. V1 by default; `V2` has the other defaults."""

    image_size: int | tuple[int, int] = 224
    patch: int = 4
    dim: int = 96  # of the first stage; each further one doubles it
    depth: tuple[int, ...] = (2, 2, 6, 2)  # blocks of each stage
    heads: tuple[int, ...] = (3, 6, 12, 24)
    window: Size = 7  # shrinks to the map where that is smaller, as in the official code
    mlp_ratio: float = 4.0
    attention: str = "dot"  # "cosine": scaled cosine attention
    bias: str = "table"  # "log", "linear", "paper": see BIASES; "none"
    pretrained_window: int | tuple[Size, ...] | None = None  # whose offsets "log" and "linear" keep: one for all stages, or a window for each
    norm: str = "pre"  # "res_post": at the end of each branch, zero at the start; "post": after each sum, as in the first transformer
    merge_norm: str = "before"  # the norm of patch merging: "before" or "after" its Linear
    extra_norm: int = 0  # every so many blocks of a stage, a norm on the main branch
    shifted: bool = True  # every other block
    positions: str = "none"  # absolute ones, as in ViT: "learned", "sincos"
    drop_path: float = 0.0  # of the last block; earlier blocks get a linear share
    mask_token: bool = False  # masked image modelling swaps it in
    checkpoint: bool = False  # keep the inputs of blocks only and compute the rest again in the backward pass: less memory, more time
    sequential: int = 0  # in the first two stages, so many windows of an image at a time; 0: all at once


V2 = SwinConfig(image_size=256, window=8, attention="cosine", bias="log", norm="res_post", merge_norm="after")
POCKET = {"image_size": 32, "dim": 48, "depth": (4, 2), "heads": (3, 6), "window": 4}

CONFIGS = {
    "swin_t": SwinConfig(),
    "swin_s": SwinConfig(depth=(2, 2, 18, 2)),
    "swin_b": SwinConfig(dim=128, depth=(2, 2, 18, 2), heads=(4, 8, 16, 32)),
    "swin_l": SwinConfig(dim=192, depth=(2, 2, 18, 2), heads=(6, 12, 24, 48)),
    "swin_v2_t": V2,
    "swin_v2_s": replace(V2, depth=(2, 2, 18, 2)),
    "swin_v2_b": replace(V2, dim=128, depth=(2, 2, 18, 2), heads=(4, 8, 16, 32)),
    "swin_v2_l": replace(V2, dim=192, depth=(2, 2, 18, 2), heads=(6, 12, 24, 48)),
    # The paper names no heads for these two: 32 channels each, as elsewhere.
    "swin_v2_h": replace(V2, dim=352, depth=(2, 2, 18, 2), heads=(11, 22, 44, 88), extra_norm=6),
    "swin_v2_g": replace(V2, dim=512, depth=(2, 2, 42, 4), heads=(16, 32, 64, 128), extra_norm=6),
    # For 32×32: maps of 8×8 and 4×4 tokens, which windows of 4 divide; those of 6, 8, 12 and 16 do at 48, 64, 96 and 128 pixels.
    "swin_pocket": SwinConfig(**POCKET),
    "swin_v2_pocket": replace(V2, **POCKET),
}

BIASES = {  # heads, window, pretrained window -> module
    "table": lambda heads, window, _: RelativePositionBias(heads, window),
    "log": lambda heads, window, pretrained: LogCPB(heads, window, pretrained_window=pretrained),
    "linear": lambda heads, window, pretrained: ContinuousPositionBias(heads, window, pretrained_window=pretrained, coords="linear"),
    "paper": lambda heads, window, _: ContinuousPositionBias(heads, window, coords="paper", limit=None),  # its text, without the code's additions
    "none": lambda *_: None,
}


class SwinBlock(nn.Module):
    """Window attention and an MLP, each with a residual and a norm: ``(B, H, W, D) -> (B, H, W, D)``.

    ``norm``: "pre" ``x + f(LN(x))`` (V1); "res_post" ``x + LN(f(x))`` (V2), whose norms start at zero, so that the block starts as the
    identity; "post" ``LN(x + f(x))``. ``shifted`` rolls the map by half a window first, and back afterwards, but along an axis that one
    window covers. A map that the window does not divide gets zeros below and to the right, which take part in attention, as in torchvision
    and the official detection code (the official classifier takes no such map). ``sequential``: see `in_turns`.
    Source: Liu et al. 2021, §3.2; Liu et al. 2022, §3.2, zero start: official code.
    """

    def __init__(
        self,
        dim: int,
        attention: WindowAttention,
        *,
        shifted: bool = False,
        norm: str = "pre",
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        sequential: int = 0,
    ):
        super().__init__()
        if norm not in ("pre", "res_post", "post"):
            raise ValueError(f"norm={norm!r}: there are 'pre', 'res_post' and 'post'.")
        self.attn, self.mlp, self.drop_path = attention, MLP(dim, int(dim * mlp_ratio)), DropPath(drop_path)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.shifted, self.norm, self.sequential = shifted, norm, sequential
        if norm == "res_post":
            for parameter in (*self.norm1.parameters(), *self.norm2.parameters()):
                nn.init.zeros_(parameter)

    def attend(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch height width dim"]:
        """Pad, roll, cut into windows, attend; then all of it back."""
        window, (rows, cols) = self.attn.window, x.shape[1:3]
        height, width = (size + -size % m for size, m in zip((rows, cols), window))
        shift = tuple(m // 2 if self.shifted and size > m else 0 for size, m in zip((height, width), window))
        mask = shift_mask(height, width, window, shift, x.device) if any(shift) else None
        if (height, width) != (rows, cols):
            x = F.pad(x, (0, 0, 0, width - cols, 0, height - rows))
        if any(shift):
            x = x.roll((-shift[0], -shift[1]), dims=(1, 2))
        windows = partition(x, window)
        windows = in_turns(self.attn, windows, mask, images=len(x), at_once=self.sequential) if self.sequential else self.attn(windows, mask)
        x = merge(windows, window, height, width)
        if any(shift):
            x = x.roll(shift, dims=(1, 2))
        return x[:, :rows, :cols]

    def add(self, x: Tensor, branch: Callable[[Tensor], Tensor], norm: nn.LayerNorm) -> Tensor:
        if self.norm == "pre":
            return x + self.drop_path(branch(norm(x)))
        if self.norm == "res_post":
            return x + self.drop_path(norm(branch(x)))
        return norm(x + self.drop_path(branch(x)))

    def forward(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch height width dim"]:
        return self.add(self.add(x, self.attend, self.norm1), self.mlp, self.norm2)


class PatchMerging(nn.Module):
    """Four neighbours become one token of twice the width: ``(B, H, W, D) -> (B, H/2, W/2, 2D)``; odd maps get a row or column of zeros.

    ``norm="before"`` is ``W LN(x)`` (V1), "after" is ``LN(W x)`` (V2), with x the 4D channels of (0,0), (1,0), (0,1), (1,1) as (row, column).
    """

    def __init__(self, dim: int, *, norm: str = "before"):
        super().__init__()
        if norm not in ("before", "after"):
            raise ValueError(f"merge_norm={norm!r}: the norm comes 'before' or 'after' the Linear.")
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm_first = norm == "before"
        self.norm = nn.LayerNorm(4 * dim if self.norm_first else 2 * dim)

    def forward(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch rows cols double"]:
        height, width = x.shape[1:3]
        if height % 2 or width % 2:
            x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        x = rearrange(x, "b (h dy) (w dx) d -> b h w (dx dy d)", dy=2, dx=2)
        return self.reduction(self.norm(x)) if self.norm_first else self.norm(self.reduction(x))


class Stage(nn.Module):
    """The blocks of one resolution, then patch merging, or nothing after the last stage. ``(B, H, W, D) -> (B, H/2, W/2, 2D)``."""

    def __init__(self, layers: list[nn.Module], merge: nn.Module, *, checkpointed: bool = False):
        super().__init__()
        self.blocks, self.merge, self.checkpointed = nn.ModuleList(layers), merge, checkpointed

    def forward(self, x: Float[Tensor, "batch height width dim"]) -> Float[Tensor, "batch rows cols out_dim"]:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.checkpointed else block(x)
        return self.merge(x)


class Swin(nn.Module):
    """Swin transformer: ``(B, 3, H, W) -> (B, D)`` features, the mean of the last tokens, or ``(B, num_classes)`` logits. D = dim · 2^(stages−1).

    Parameter counts are the official code's. Every image that the patch divides is taken, at run time, too: `SwinBlock` and `PatchMerging`
    pad maps that do not fit. Windows and biases stay those of ``image_size``, where `windows` says each stage's. For larger
    windows build another model and load the weights into it: ``create_model(…, image_size=512, window=16, pretrained_window=old.windows)``.

    Raises ValueError for settings that do not fit together, and for a mask without ``mask_token=True``.
    Source: Liu et al. 2021 (V1) and 2022 (V2). The norm every six blocks of H and G is in the paper only; it is counted within a stage here.
    """

    prefix_tokens = 0
    swap_in_mask_token = ViT.swap_in_mask_token

    def __init__(self, config: SwinConfig, num_classes: int = 0):
        super().__init__()
        for name, known in (("bias", BIASES), ("positions", POSITIONS)):
            if getattr(config, name) not in known:
                raise ValueError(f"{name}={getattr(config, name)!r}: there are {', '.join(map(repr, known))}.")
        if len(config.depth) != len(config.heads):
            raise ValueError(f"depth={config.depth} and heads={config.heads}: one number for each stage, in both.")
        self.config, self.image_size, self.dim = config, config.image_size, config.dim * 2 ** (len(config.depth) - 1)
        self.stem = PatchifyStem(config.dim, config.patch)
        self.stem.proj.reset_parameters()  # the official code keeps PyTorch's start of a convolution
        self.stem_norm, self.norm = nn.LayerNorm(config.dim), nn.LayerNorm(self.dim)
        self.mask_token = nn.Parameter(torch.randn(config.dim) * 0.02) if config.mask_token else None
        height, width = (config.image_size,) * 2 if isinstance(config.image_size, int) else config.image_size
        grid = self.stem.grid(height, width)
        self.positions = POSITIONS[config.positions](config.dim, grid, 0)
        self.windows = tuple(
            tuple(min(m, -(-size // 2**stage)) for m, size in zip(pair(config.window), grid)) for stage in range(len(config.depth))
        )
        self.stages = nn.ModuleList(build_stage(config, stage, window) for stage, window in enumerate(self.windows))
        self.head = nn.Linear(self.dim, num_classes) if num_classes else nn.Identity()
        self.apply(init_linear)

    def forward_tokens(
        self, x: Float[Tensor, "batch 3 height width"], *, mask: Bool[Tensor, "batch rows columns"] | None = None
    ) -> Float[Tensor, "batch tokens dim"]:
        """The last map's tokens after the final norm, ``(B, N, D)``, row-major. ``mask`` is one of patches, ``(B, H/patch, W/patch)``:
        where it is True the mask token stands in, after the stem's norm and before any position."""
        grid = self.stem.grid(*x.shape[-2:])
        x = self.stem_norm(self.stem(x))
        if mask is not None:
            x = self.swap_in_mask_token(x, mask)
        x = rearrange(self.positions(x, grid), "b (h w) d -> b h w d", h=grid[0])
        for stage in self.stages:
            x = stage(x)
        return self.norm(rearrange(x, "b h w d -> b (h w) d"))

    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch features"]:
        return self.head(self.forward_tokens(x).mean(dim=1))


def build_stage(config: SwinConfig, stage: int, window: tuple[int, int]) -> Stage:
    dim, heads, depth, last = config.dim * 2**stage, config.heads[stage], config.depth[stage], stage + 1 == len(config.depth)
    pretrained = config.pretrained_window
    if pretrained is not None and not isinstance(pretrained, int):
        if len(pretrained) != len(config.depth):
            raise ValueError(f"pretrained_window={pretrained}: one number, or one window for each of the {len(config.depth)} stages.")
        pretrained = pretrained[stage]
    first = sum(config.depth[:stage])  # blocks of earlier stages
    layers: list[nn.Module] = []
    for i in range(depth):
        attention = WindowAttention(dim, heads, window, kind=config.attention, position_bias=BIASES[config.bias](heads, window, pretrained))
        layers.append(SwinBlock(
            dim,
            attention,
            shifted=config.shifted and i % 2 == 1,
            norm=config.norm,
            mlp_ratio=config.mlp_ratio,
            drop_path=config.drop_path * (first + i) / max(sum(config.depth) - 1, 1),
            sequential=config.sequential if stage < 2 else 0,
        ))  # fmt: skip
        if config.extra_norm and (i + 1) % config.extra_norm == 0:
            layers.append(nn.LayerNorm(dim))
    return Stage(layers, nn.Identity() if last else PatchMerging(dim, norm=config.merge_norm), checkpointed=config.checkpoint)


def init_linear(module: nn.Module) -> None:
    """Swin's start of a Linear: weights normal (std 0.02, cut off at ±2), bias zero."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def build(config: SwinConfig, num_classes: int = 0) -> Swin:
    return Swin(config, num_classes)
