"""A training step of our ViT against torchvision's ViT of the same sizes and weights: ``python -m bench.vit_step``."""
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer

from bench.pairs import OURS, Row, agree, compare, show
from minivit import ADAMW, create_model, load_weights

CLASSES = 10


def models(*, dim: int = 192, depth: int = 4, heads: int = 3, num_classes: int = CLASSES) -> tuple[nn.Module, nn.Module]:
    """Ours and torchvision's, of the same weights: 32×32, patch 4, class token, learned positions."""
    sizes = {"num_layers": depth, "num_heads": heads, "hidden_dim": dim, "mlp_dim": 4 * dim}
    theirs = VisionTransformer(image_size=32, patch_size=4, **sizes, num_classes=max(num_classes, 1))
    nn.init.normal_(theirs.heads.head.weight, std=0.02)  # torchvision starts it at zero: two models would agree whatever they do
    ours = create_model("vit_tiny_patch16_224", image_size=32, patch=4, dim=dim, depth=depth, heads=heads, num_classes=num_classes)
    load_weights(ours, theirs.state_dict(), "torchvision")
    if not num_classes:
        theirs.heads = nn.Identity()
    return ours, theirs


def stepper(model: nn.Module, x: Tensor, labels: Tensor) -> Callable[[], None]:
    """One training step on fixed images: forward, cross-entropy, backward, AdamW."""
    optimizer = ADAMW(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), labels).backward()
        optimizer.step()

    return step


def main(*, images: int = 64, dim: int = 192, depth: int = 4, heads: int = 3, rounds: int = 9, repeats: int = 3) -> list[Row]:
    torch.manual_seed(0)
    x, labels = torch.randn(images, 3, 32, 32), torch.randint(CLASSES, (images,))
    ours, theirs = models(dim=dim, depth=depth, heads=heads)
    with torch.no_grad():
        agree("logits", (ours(x) - theirs(x)).abs().max().item(), 1e-5)
    sides = {OURS: stepper(ours, x, labels), "torchvision": stepper(theirs, x, labels)}
    return compare(f"ViT {depth} × {dim}, training step, {images} images", sides, rounds=rounds, repeats=repeats)


if __name__ == "__main__":
    show(main())
