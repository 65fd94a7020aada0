"""A training step of our Swin V2-T and V1-T against torchvision's of the same weights: ``python -m bench.swin_step``."""
import torch
from torch import nn
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformer, SwinTransformerBlockV2

from bench.pairs import OURS, Row, agree, compare, show
from bench.vit_step import CLASSES, stepper
from minivit import create_model, load_weights


def models(version: int, *, image: int, dim: int, depth: tuple[int, ...], heads: tuple[int, ...]) -> tuple[nn.Module, nn.Module]:
    """Ours and torchvision's, of the same weights: patch 4, window 7 (V1) or 8 (V2), no drop path."""
    window = 7 if version == 1 else 8
    kinds = {"block": SwinTransformerBlockV2, "downsample_layer": PatchMergingV2} if version == 2 else {}
    sizes = {"patch_size": [4, 4], "embed_dim": dim, "depths": list(depth), "num_heads": list(heads), "window_size": [window, window]}
    theirs = SwinTransformer(**sizes, stochastic_depth_prob=0.0, num_classes=CLASSES, **kinds)
    name = "swin_t" if version == 1 else "swin_v2_t"
    ours = create_model(name, image_size=image, dim=dim, depth=depth, heads=heads, window=window, num_classes=CLASSES)
    load_weights(ours, theirs.state_dict(), "torchvision")
    return ours, theirs


def main(
    *,
    images: int = 4,
    image: dict[int, int] | None = None,
    dim: int = 96,
    depth: tuple[int, ...] = (2, 2, 6, 2),
    heads: tuple[int, ...] = (3, 6, 12, 24),
    rounds: int = 9,
) -> list[Row]:
    rows = []
    for version, size in (image or {2: 256, 1: 224}).items():
        torch.manual_seed(0)
        x, labels = torch.randn(images, 3, size, size), torch.randint(CLASSES, (images,))
        ours, theirs = models(version, image=size, dim=dim, depth=depth, heads=heads)
        with torch.no_grad():
            agree("logits", (ours(x) - theirs(x)).abs().max().item(), 1e-5)
        sides = {OURS: stepper(ours, x, labels), "torchvision": stepper(theirs, x, labels)}
        rows += compare(f"Swin V{version} {size}², width {dim}, training step, {images} images", sides, rounds=rounds)
    return rows


if __name__ == "__main__":
    show(main())
