"""A training step of our ViT against torchvision's ViT of the same sizes, side by side: ``python -m bench.vit_step``."""
import time
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.vision_transformer import VisionTransformer

from minivit.models import create_model

IMAGES, CLASSES = 64, 10


def ours() -> nn.Module:
    return create_model("vit_tiny_patch16_224", image_size=32, patch=4, dim=192, depth=4, heads=3, num_classes=CLASSES)


def torchvisions() -> nn.Module:
    return VisionTransformer(
        image_size=32, patch_size=4, num_layers=4, num_heads=3, hidden_dim=192, mlp_dim=768, num_classes=CLASSES
    )


def stepper(model: nn.Module) -> Callable[[], None]:
    """One training step on fixed random images: forward, cross-entropy, backward, AdamW."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(IMAGES, 3, 32, 32, generator=generator)
    labels = torch.randint(CLASSES, (IMAGES,), generator=generator)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), labels).backward()
        optimizer.step()

    return step


def seconds(step: Callable[[], None], steps: int) -> float:
    start = time.perf_counter()
    for _ in range(steps):
        step()
    return (time.perf_counter() - start) / steps


def main(*, pairs: int = 9, steps: int = 6, threads: int = 2) -> dict:
    """Medians over interleaved pairs in alternating order; ``speed`` is torchvision's time over ours: 1.1 is 10 % faster."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    sides = {"minivit": stepper(ours()), "torchvision": stepper(torchvisions())}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for step in sides.values():
        seconds(step, 3)  # warm up
    for pair in range(pairs):
        for name in sorted(sides, reverse=pair % 2 == 1):
            times[name].append(seconds(sides[name], steps))
    torch.set_num_threads(before)
    speeds = sorted(theirs / mine for mine, theirs in zip(times["minivit"], times["torchvision"], strict=True))
    return {
        "what": f"ViT training step, {IMAGES} images 32×32, patch 4, 4 × 192, {threads} threads, {pairs} pairs of {steps} steps",
        "minivit_ms": round(1000 * median(times["minivit"]), 1),
        "torchvision_ms": round(1000 * median(times["torchvision"]), 1),
        "speed": round(median(speeds), 3),
        "speed_lowest": round(speeds[0], 3),
        "speed_highest": round(speeds[-1], 3),
    }


if __name__ == "__main__":
    for name, value in main().items():
        print(f"{name:16} {value}")
