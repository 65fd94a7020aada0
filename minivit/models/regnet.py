"""RegNetY: the convolutional networks that the conv-stem paper lays beside its ViTs. Built from torchvision's parts."""
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from minivit.layers.norm import BatchNorm
from minivit.models.resnet import ConvNet


@dataclass(frozen=True)
class RegNetConfig:
    """Block j is w_0 + w_a · j wide, rounded to the nearest w_0 · w_mᵏ, then to multiples of 8 and of the group: a RegNet is these numbers."""

    depth: int
    w_0: int
    w_a: float
    w_m: float
    group_width: int
    image_size: int = 224  # only tells recipes which size to make; any size is accepted


# torchvision's four nearest to the paper's RegNetY-1GF, 4GF, 16GF and 32GF, which are networks of the paper's own.
CONFIGS = {
    "regnet_y_800mf": RegNetConfig(14, 56, 38.84, 2.4, 16),
    "regnet_y_3_2gf": RegNetConfig(21, 80, 42.63, 2.66, 24),
    "regnet_y_16gf": RegNetConfig(18, 200, 106.23, 2.48, 112),
    "regnet_y_32gf": RegNetConfig(20, 232, 115.89, 2.53, 232),
}


class RegNet(ConvNet):
    """RegNetY: ``(B, 3, H, W) -> (B, D)`` features after global average pooling, or logits with a head; total stride 32.

    Stem and stages are torchvision's, names of parameters included, with our `BatchNorm`.
    Source: Radosavovic et al. 2020, "Designing Network Design Spaces".
    """

    def __init__(self, config: RegNetConfig, num_classes: int = 0):
        from torchvision.models import regnet  # slow to import, and nobody else needs it

        super().__init__()
        self.config, self.image_size = config, config.image_size
        with torch.device("cpu"):  # torchvision computes with the widths, which the meta device cannot
            widths = {name: getattr(config, name) for name in ("depth", "w_0", "w_a", "w_m", "group_width")}
            blocks = regnet.BlockParams.from_init_params(**widths, se_ratio=0.25)
        net = regnet.RegNet(blocks, norm_layer=BatchNorm)
        self.stem, self.trunk_output, self.dim = net.stem, net.trunk_output, net.fc.in_features
        self.fc = nn.Linear(self.dim, num_classes) if num_classes else nn.Identity()

    def forward_map(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim rows columns"]:
        return self.trunk_output(self.stem(x))


def build(config: RegNetConfig, num_classes: int = 0) -> RegNet:
    return RegNet(config, num_classes)
