"""From pixels to tokens: one big convolution, or a few small ones."""
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from minivit.layers.norm import BatchNorm, PixelLayerNorm


class ConvLayer(NamedTuple):
    """One convolution of a stem, as a record."""

    kernel: int
    stride: int
    width: int
    padding: int


def conv_layers(dim: int, patch: int) -> tuple[ConvLayer, ...]:
    """Halve the image log2(patch) times, doubling the width up to ``dim``: the rule of the conv-stem paper's small models.

    ``conv_layers(384, 16)`` is the ViT_C-4GF stem (widths 48, 96, 192, 384), which is MoCo v3's conv stem for width 384, too.
    """
    halvings = int(math.log2(patch)) if patch > 0 else 0
    if halvings < 1 or 2**halvings != patch or dim % 2 ** (halvings - 1):
        raise ValueError(f"a conv stem needs a patch of 2, 4, 8, 16, … and dim divisible by patch/2: got patch={patch}, dim={dim}.")
    return tuple(ConvLayer(3, 2, dim // 2 ** (halvings - 1 - i), 1) for i in range(halvings))


def checked_layers(layers: Iterable[Sequence[int]]) -> list[ConvLayer]:
    """Records, or plain tuples of four; ValueError for a layer that does not divide a side by exactly its stride: it would break the grid."""
    found = [ConvLayer(*layer) for layer in layers]
    for layer in found:
        if min(layer[:3]) < 1 or not layer.kernel - layer.stride <= 2 * layer.padding < layer.kernel:
            raise ValueError(f"{layer}: kernel, stride and width are at least 1, and 2·padding is at least kernel − stride and less than kernel.")
    return found


class Stem(nn.Module):
    """What all stems share: the total stride (= patch) and the size of the token grid."""

    patch: int

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of tokens for an image of this size; ValueError where the patch does not divide it."""
        if height % self.patch or width % self.patch:
            raise ValueError(f"image {height}×{width} is not divisible by patch={self.patch}.")
        return height // self.patch, width // self.patch


class PatchifyStem(Stem):
    """ViT's stem: a P×P convolution of stride P, which is one linear map for each patch. ``(B, 3, H, W) -> (B, N, D)``.

    Initialised as MoCo v3 does: Xavier-uniform of the flattened 3P² → D matrix, zero bias. ``norm`` is "none"; "bn", a BatchNorm of
    the tokens; or "weight": each channel's kernel is g·v/‖v‖, its length g and its direction v trained apart.
    Source: Dosovitskiy et al. 2021, eq. 1; the norms: Chen, Xie & He 2021 (MoCo v3), §4, where neither brought stability.
    """

    def __init__(self, dim: int, patch: int, *, norm: str = "none"):
        super().__init__()
        if norm not in ("none", "bn", "weight"):
            raise ValueError(f"norm={norm!r}: a patch projection knows 'none', 'bn' and 'weight'.")
        if patch < 1:
            raise ValueError(f"patch={patch}: a patch has a side of at least one pixel.")
        self.patch = patch
        self.proj = nn.Conv2d(3, dim, patch, stride=patch)
        bound = math.sqrt(6 / (3 * patch**2 + dim))
        nn.init.uniform_(self.proj.weight, -bound, bound)
        nn.init.zeros_(self.proj.bias)
        self.norm = BatchNorm(dim) if norm == "bn" else nn.Identity()
        if norm == "weight":
            weight_norm(self.proj)

    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch tokens dim"]:
        self.grid(*x.shape[-2:])
        return rearrange(self.norm(self.proj(x)), "b d h w -> b (h w) d")


class PatchifyBatchNormStem(PatchifyStem):
    """Patches, then BatchNorm and ReLU. ``(B, 3, H, W) -> (B, N, D)``.

    A control: were a conv stem's gain only its norms and ReLUs, it would show here. Source: Xiao et al. 2021, appendix A.
    """

    def __init__(self, dim: int, patch: int):
        super().__init__(dim, patch, norm="bn")

    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch tokens dim"]:
        return super().forward(x).relu()


STEM_NORMS = {"bn": BatchNorm, "ln": PixelLayerNorm, "none": None}


class ConvStem(Stem):
    """A few convolutions, each with norm and ReLU, then one 1×1 with a bias and neither. ``(B, 3, H, W) -> (B, N, D)``.

    ``layers`` is a list of `ConvLayer` records; the product of their strides is the patch. ``norm`` is "bn", "ln" or "none".
    Convolutions keep PyTorch's default initialisation, as in MoCo v3's code (the paper's own code draws other variances).
    Source: Xiao et al. 2021, "Early Convolutions Help Transformers See Better", §4.
    """

    def __init__(self, dim: int, layers: list[ConvLayer] | tuple[ConvLayer, ...], *, norm: str = "bn"):
        super().__init__()
        if norm not in STEM_NORMS:
            raise ValueError(f"norm={norm!r}: a conv stem knows {', '.join(map(repr, STEM_NORMS))}.")
        layers = checked_layers(layers)
        self.patch = math.prod(layer.stride for layer in layers)
        modules, channels = [], 3
        for kernel, stride, width, padding in layers:
            modules.append(nn.Conv2d(channels, width, kernel, stride, padding, bias=norm == "none"))
            modules.extend([STEM_NORMS[norm](width)] if norm != "none" else [])
            modules.append(nn.ReLU(inplace=True))
            channels = width
        self.layers = nn.Sequential(*modules, nn.Conv2d(channels, dim, 1))

    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch tokens dim"]:
        self.grid(*x.shape[-2:])
        return rearrange(self.layers(x), "b d h w -> b (h w) d")


