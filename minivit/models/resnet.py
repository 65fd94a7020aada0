"""Residual networks with the ImageNet stem or the one for 32×32 images. Names of parameters are torchvision's."""
from dataclasses import dataclass

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from minivit.layers.norm import BatchNorm
from minivit.layers.stems import Stem


@dataclass(frozen=True)
class ResNetConfig:
    """Everything that tells one ResNet from another."""

    block: str = "basic"  # two 3×3 convolutions; "bottleneck": 1×1, 3×3, 1×1
    depths: tuple[int, ...] = (2, 2, 2, 2)
    stem: str = "imagenet"  # 7×7 stride 2 and max-pool; "cifar": 3×3 stride 1, no pool
    width: int = 64  # channels of the first stage; the official width multiplier w is 64 w
    first_shortcut: bool = False  # project the first shortcut, too, as the official SimCLR code does
    image_size: int = 224  # only tells recipes which size to make; any size is accepted


CONFIGS = {
    "resnet18": ResNetConfig(),
    "resnet50": ResNetConfig(block="bottleneck", depths=(3, 4, 6, 3)),
    "resnet_pocket": ResNetConfig(depths=(1, 1, 1, 1), stem="cifar", width=16, image_size=32),
}


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut; stride on the first. The last norm's scale starts at zero."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int, *, project: bool = False):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = BatchNorm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = BatchNorm(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(in_channels, channels, stride, project)
        nn.init.zeros_(self.bn2.weight)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch out_channels rows columns"]:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + (self.downsample(x) if self.downsample else x))


class Bottleneck(nn.Module):
    """1×1, 3×3 (with the stride), 1×1 to four times the channels, and a shortcut. The last norm's scale starts at zero."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int, *, project: bool = False):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = BatchNorm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn2 = BatchNorm(channels)
        self.conv3 = nn.Conv2d(channels, 4 * channels, 1, bias=False)
        self.bn3 = BatchNorm(4 * channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(in_channels, 4 * channels, stride, project)
        nn.init.zeros_(self.bn3.weight)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch out_channels rows columns"]:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + (self.downsample(x) if self.downsample else x))


def shortcut(in_channels: int, out_channels: int, stride: int, project: bool = False) -> nn.Sequential | None:
    """None (identity) where the shape stays, unless ``project``; else a 1×1 convolution and a norm."""
    if stride == 1 and in_channels == out_channels and not project:
        return None
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), BatchNorm(out_channels))


BLOCKS = {"basic": BasicBlock, "bottleneck": Bottleneck}


class ConvNet(nn.Module):
    """What convolutional backbones share: the last feature map as tokens, or averaged. They give ``forward_map``, ``dim`` and ``fc``."""

    prefix_tokens = 0

    def forward_map(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim rows columns"]:
        raise NotImplementedError

    def forward_tokens(
        self, x: Float[Tensor, "batch 3 height width"], *, mask: Tensor | None = None
    ) -> Float[Tensor, "batch tokens dim"]:
        """The last feature map as tokens, ``(B, N, D)``, row-major."""
        if mask is not None:
            raise ValueError(f"a {type(self).__name__} has no tokens to mask: use a vit_* or swin_* model.")
        return rearrange(self.forward_map(x), "b d h w -> b (h w) d")

    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch features"]:
        return self.fc(self.forward_map(x).mean(dim=(2, 3)))


class ResNet(ConvNet):
    """Residual network: ``(B, 3, H, W) -> (B, D)`` features after global average pooling, or logits with a head.

    Computes torchvision's function with torchvision's parameter names. SimCLR's official ResNet-18 has one more
    projection shortcut, in its first stage: ``first_shortcut=True`` (11,173,056 parameters with the CIFAR stem, else 11,168,832).
    Source: He et al. 2016; zero-initialised last norm: Goyal et al. 2017; CIFAR stem: Chen et al. 2020, appendix B.9.
    """

    def __init__(self, config: ResNetConfig, num_classes: int = 0):
        super().__init__()
        if config.block not in BLOCKS or config.stem not in ("imagenet", "cifar"):
            raise ValueError(f"block={config.block!r}, stem={config.stem!r}: blocks are {', '.join(BLOCKS)}; stems are imagenet, cifar.")
        if len(config.depths) != 4 or min(config.depths) < 0:
            raise ValueError(f"depths={config.depths}: a ResNet has four stages; a stage of 0 blocks is left out.")
        self.config, self.image_size = config, config.image_size
        width, block = config.width, BLOCKS[config.block]
        small = config.stem == "cifar"
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False) if small else nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = BatchNorm(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, 2, 1)
        channels = width
        for stage, depth in enumerate(config.depths):
            blocks = []
            for i in range(depth):
                stride = 2 if stage > 0 and i == 0 else 1
                project = config.first_shortcut and stage == i == 0
                blocks.append(block(channels, width * 2**stage, stride, project=project))
                channels = width * 2**stage * block.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.dim = channels
        self.fc = nn.Linear(channels, num_classes) if num_classes else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward_map(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim rows columns"]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class ResNetStem(Stem):
    """A hybrid ViT's stem: a ResNet's last feature map, one 1×1 convolution to the transformer's width. ``(B, 3, H, W) -> (B, N, D)``.

    Stages of depth 0 at the end are left out. ``depths=(3, 4, 6, 0)``: ResNet-50 up to its third stage, 40 convolutions
    without the shortcuts' and a total stride of 16. BatchNorm, where the paper has GroupNorm and standardised weights.
    Source: Dosovitskiy et al. 2021, §3.1; Xiao et al. 2021 name it as what they do not do.
    """

    def __init__(self, dim: int, config: ResNetConfig):
        super().__init__()
        self.body = ResNet(config)
        self.patch = (4 if config.stem == "imagenet" else 1) * 2 ** sum(depth > 0 for depth in config.depths[1:])
        self.proj = nn.Conv2d(self.body.dim, dim, 1)

    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch tokens dim"]:
        self.grid(*x.shape[-2:])
        return rearrange(self.proj(self.body.forward_map(x)), "b d h w -> b (h w) d")


def build(config: ResNetConfig, num_classes: int = 0) -> ResNet:
    return ResNet(config, num_classes)
