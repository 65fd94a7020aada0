"""Vision transformers: a stem makes tokens, blocks mix them, one vector comes out."""
from dataclasses import dataclass

import torch
from einops import repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn

from minivit.layers.attention import Attention
from minivit.layers.block import NORMS, Block
from minivit.layers.position import POSITIONS
from minivit.layers.stems import ConvLayer, ConvStem, PatchifyBatchNormStem, PatchifyStem, Stem, conv_layers
from minivit.models.resnet import ResNetConfig, ResNetStem


@dataclass(frozen=True)
class ViTConfig:
    """Everything that tells one ViT from another."""

    image_size: int | tuple[int, int] = 224
    patch: int = 16
    dim: int = 384
    depth: int = 12
    heads: int = 6
    mlp_ratio: float = 4.0
    # "patchify"; "patchify_bn_relu"; "conv", or the records of a conv stem; a ResNet's config, for a hybrid
    stem: str | tuple[ConvLayer, ...] | ResNetConfig = "patchify"
    stem_norm: str = "bn"  # of a conv stem: "bn", "ln", "none"
    positions: str = "learned"  # "learned", "sincos", "none"
    pool: str = "cls"  # "cls": a class token; "avg": the mean of the patch tokens; "avg_no_norm": that mean, without a final norm
    norm: str = "ln"  # "ln"; "bn_mlp": BatchNorm before the MLPs (MoCo v3's ViT-BN); "bn": BatchNorm everywhere
    freeze_patch: bool = False  # the patch projection stays as it was drawn (MoCo v3); for the "patchify" stem
    patch_norm: str = "none"  # of the "patchify" stem: "bn", "weight" (`PatchifyStem`)
    drop_path: float = 0.0  # of the last block; earlier blocks get a linear share
    mask_token: bool = False  # masked image modelling swaps it in


CONFIGS = {
    "vit_tiny_patch16_224": ViTConfig(dim=192, heads=3),
    "vit_small_patch16_224": ViTConfig(dim=384, heads=6),
    "vit_base_patch16_224": ViTConfig(dim=768, heads=12),
    "vit_large_patch16_224": ViTConfig(dim=1024, depth=24, heads=16),
    "vit_huge_patch14_224": ViTConfig(patch=14, dim=1280, depth=32, heads=16),
    # MoCo v3's, official code: twelve heads in the small one, too, and one block less with a conv stem.
    "moco_v3_vit_small": ViTConfig(dim=384, heads=12, positions="sincos"),
    "moco_v3_vit_base": ViTConfig(dim=768, heads=12, positions="sincos"),
    "moco_v3_vit_conv_small": ViTConfig(dim=384, heads=12, positions="sincos", stem="conv", depth=11),
    "moco_v3_vit_conv_base": ViTConfig(dim=768, heads=12, positions="sincos", stem="conv", depth=11),
    # For 32×32. pocket-c of the chapters, pocket-p, and the finer one whose attention maps have something to show.
    "vit_pocket_conv8": ViTConfig(image_size=32, patch=8, dim=64, depth=3, heads=2, stem="conv", pool="avg"),
    "vit_pocket_patch8": ViTConfig(image_size=32, patch=8, dim=64, depth=3, heads=2, pool="avg"),
    "vit_pocket_patch4": ViTConfig(image_size=32, patch=4, dim=48, depth=2, heads=2, pool="avg"),
}


BLOCK_NORMS = {"ln": ("ln", "ln"), "bn_mlp": ("ln", "bn"), "bn": ("bn", "bn")}  # before attention, before the MLP


class ViT(nn.Module):
    """Vision transformer: ``(B, 3, H, W) -> (B, D)`` features, or ``(B, num_classes)`` logits where there is a head.

    Parameter counts are timm's. Linears start Xavier-uniform with zero bias, Q, K and V as three matrices, as in
    MoCo v3's code; the classifier starts at zero. Images of another size than ``image_size`` are taken wherever
    the patch divides them: sin-cos positions are recomputed, learned ones resampled.

    Raises ValueError for an image that the patch does not divide, and for a mask without ``mask_token=True``.
    Source: Dosovitskiy et al. 2021; average pooling, ViT-BN and the frozen patch projection: Chen, Xie & He 2021 (MoCo v3).
    """

    def __init__(self, config: ViTConfig, num_classes: int = 0):
        super().__init__()
        for name, known in (("positions", POSITIONS), ("pool", ("cls", "avg", "avg_no_norm")), ("norm", BLOCK_NORMS)):
            if getattr(config, name) not in known:
                raise ValueError(f"{name}={getattr(config, name)!r}: there are {', '.join(map(repr, known))}.")
        self.config, self.dim, self.image_size = config, config.dim, config.image_size
        self.stem = build_stem(config)
        height, width = (config.image_size,) * 2 if isinstance(config.image_size, int) else config.image_size
        self.prefix_tokens = 1 if config.pool == "cls" else 0
        self.cls_token = nn.Parameter(torch.randn(1, 1, config.dim) * 1e-6) if self.prefix_tokens else None
        self.mask_token = nn.Parameter(torch.randn(config.dim) * 0.02) if config.mask_token else None
        self.positions = POSITIONS[config.positions](config.dim, self.stem.grid(height, width), self.prefix_tokens)
        rates = [config.drop_path * i / max(config.depth - 1, 1) for i in range(config.depth)]
        self.blocks = nn.ModuleList(
            Block(config.dim, config.heads, mlp_ratio=config.mlp_ratio, drop_path=rate, norms=BLOCK_NORMS[config.norm]) for rate in rates
        )
        self.norm = nn.Identity() if config.pool == "avg_no_norm" else NORMS["bn" if config.norm == "bn" else "ln"](config.dim)
        self.blocks.apply(xavier_init)
        self.head = nn.Linear(config.dim, num_classes) if num_classes else nn.Identity()
        if num_classes:
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)

    def forward_tokens(
        self, x: Float[Tensor, "batch 3 height width"], *, mask: Bool[Tensor, "batch rows columns"] | None = None
    ) -> Float[Tensor, "batch tokens dim"]:
        """All tokens after the final norm, ``(B, P+N, D)``, patches in row-major order; where ``mask`` is True the mask token stands in."""
        grid = self.stem.grid(*x.shape[-2:])
        x = self.stem(x)
        if mask is not None:
            x = self.swap_in_mask_token(x, mask)
        if self.cls_token is not None:
            x = torch.cat([repeat(self.cls_token, "1 1 d -> b 1 d", b=len(x)), x], dim=1)
        x = self.positions(x, grid)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def swap_in_mask_token(
        self, x: Float[Tensor, "batch tokens dim"], mask: Bool[Tensor, "batch rows columns"]
    ) -> Float[Tensor, "batch tokens dim"]:
        if self.mask_token is None:
            raise ValueError("this model has no mask token: build it with mask_token=True.")
        return torch.where(mask.flatten(1)[:, :, None], self.mask_token.to(x.dtype), x)

    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch features"]:
        tokens = self.forward_tokens(x)
        pooled = tokens[:, 0] if self.prefix_tokens else tokens.mean(dim=1)
        return self.head(pooled)


def build_stem(config: ViTConfig) -> Stem:
    if config.stem_norm != "bn" and (isinstance(config.stem, ResNetConfig) or str(config.stem).startswith("patchify")):
        raise ValueError(f"stem_norm={config.stem_norm!r} is of conv stems, and this stem is none.")
    if config.stem == "patchify":
        return PatchifyStem(config.dim, config.patch, norm=config.patch_norm).requires_grad_(not config.freeze_patch)
    if config.freeze_patch or config.patch_norm != "none":
        raise ValueError("freeze_patch and patch_norm are of the 'patchify' stem's projection; other stems are trained and have norms of their own.")
    if config.stem == "patchify_bn_relu":
        return PatchifyBatchNormStem(config.dim, config.patch)
    layers = conv_layers(config.dim, config.patch) if config.stem == "conv" else config.stem
    if not isinstance(layers, tuple | list | ResNetConfig):
        raise ValueError(f"stem={layers!r}: 'patchify', 'patchify_bn_relu', 'conv', a tuple of ConvLayer records or a ResNetConfig.")
    hybrid = isinstance(layers, ResNetConfig)
    stem = ResNetStem(config.dim, layers) if hybrid else ConvStem(config.dim, layers, norm=config.stem_norm)
    if stem.patch != config.patch:
        raise ValueError(f"the stem's strides multiply to {stem.patch}, not to patch={config.patch}.")
    return stem


def xavier_init(module: nn.Module) -> None:
    """Xavier-uniform Linears with zero bias; the fused Q, K, V map counts as three square matrices."""
    if isinstance(module, Attention):
        for part in module.to_qkv.weight.chunk(3):
            nn.init.xavier_uniform_(part)
    for child in module.children():
        if isinstance(child, nn.Linear):
            if not isinstance(module, Attention) or child is not module.to_qkv:
                nn.init.xavier_uniform_(child.weight)
            if child.bias is not None:
                nn.init.zeros_(child.bias)


def build(config: ViTConfig, num_classes: int = 0) -> ViT:
    return ViT(config, num_classes)
