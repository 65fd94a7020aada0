"""The ViTs of "Early Convolutions Help Transformers See Better": one transformer, many stems. Names in ``CONFIGS``.

P has a patchify stem; C has a few 3×3 convolutions in its place and one transformer block less, which costs about the same.
Where we differ from the paper's code: weights start as in `ViT` (it has other variances), LayerNorm's ε is 1e-6 (1e-5).
Source: Xiao, Singh, Mintun, Darrell, Dollár & Girshick 2021, tables 1 and 3, appendix A.
"""
from dataclasses import replace

from minivit.layers.stems import ConvLayer
from minivit.models import resnet
from minivit.models.vit import ViTConfig, build

__all__ = ["CONFIGS", "STEMS", "build"]


def stem(*records: tuple[int, int, int]) -> tuple[ConvLayer, ...]:
    """(kernel, stride, width) of each convolution but the last, a 1×1 that `ConvStem` adds. Patches (kernel = stride) have no padding."""
    return tuple(ConvLayer(kernel, stride, width, 0 if kernel == stride else 1) for kernel, stride, width in records)


LARGE = stem((3, 2, 64), (3, 2, 128), (3, 1, 128), (3, 2, 256), (3, 1, 256), (3, 2, 512))
STEMS = {
    "c_1gf": stem((3, 2, 24), (3, 2, 48), (3, 2, 96), (3, 2, 192)),
    "c_4gf": stem((3, 2, 48), (3, 2, 96), (3, 2, 192), (3, 2, 384)),
    "c_18gf": LARGE,
    "c_36gf": LARGE,
    # S1–S4: a growing part of the halving by patches, at equal cost. A text copy of the paper gives S1 a first width of 42, but its row's
    # cost is that of 52.
    "s1_4gf": stem((3, 2, 52), (3, 2, 104), (3, 2, 208), (2, 2, 416)),
    "s2_4gf": stem((3, 2, 32), (3, 2, 64), (3, 1, 128), (4, 4, 256)),
    "s3_4gf": stem((3, 2, 17), (3, 1, 34), (3, 1, 68), (8, 8, 136)),
    "s4_4gf": stem((3, 1, 8), (3, 1, 16), (3, 1, 32), (16, 16, 64)),
    # The same for patches of 8, where the series ends with S3: its patches are the whole patch.
    "c_pocket": stem((3, 2, 16), (3, 2, 32), (3, 2, 64)),
    "s1_pocket": stem((3, 2, 19), (3, 2, 38), (2, 2, 76)),
    "s2_pocket": stem((3, 2, 10), (3, 1, 20), (4, 4, 40)),
    "s3_pocket": stem((3, 1, 5), (3, 1, 10), (8, 8, 20)),
}
SIZES = {  # of P; the small ones have MLPs of three times the width, not four
    "1gf": ViTConfig(dim=192, heads=3, mlp_ratio=3.0),
    "4gf": ViTConfig(dim=384, heads=6, mlp_ratio=3.0),
    "18gf": ViTConfig(dim=768, heads=12),
    "36gf": ViTConfig(dim=1024, depth=14, heads=16),
    "pocket": ViTConfig(image_size=32, patch=8, dim=64, depth=4, heads=2, mlp_ratio=3.0, pool="avg"),
}


def with_stem(name: str, **changes: str) -> ViTConfig:
    """The transformer of that size with the stem in place of its first block."""
    size = SIZES[name.rpartition("_")[2]]
    return replace(size, stem=STEMS[name], depth=size.depth - 1, **changes)


CONFIGS = {
    **{f"vit_p_{name}": size for name, size in SIZES.items()},
    **{f"vit_{name}": with_stem(name) for name in STEMS},
    **{f"vit_p_bn_relu_{name}": replace(SIZES[name], stem="patchify_bn_relu") for name in ("4gf", "pocket")},
    **{f"vit_c_ln_{name}": with_stem(f"c_{name}", stem_norm="ln") for name in ("4gf", "pocket")},
    # For contrast, a hybrid: ViT-B on 40 convolutions, a ResNet-50 without its last stage; no block pays for them.
    "vit_base_resnet50": replace(SIZES["18gf"], stem=replace(resnet.CONFIGS["resnet50"], depths=(3, 4, 6, 0))),
}
