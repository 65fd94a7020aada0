"""Two SimCLR views of a batch: ours, torchvision v2 image by image, and kornia's batched ones: ``python -m bench.augment``.

kornia is no dependency of ours; where it is not installed its line is left out. For a throw-away copy:
``pip install --target /tmp/kornia --no-deps kornia kornia_rs packaging`` and ``PYTHONPATH=/tmp/kornia``.
"""
import importlib.util
import time
from collections.abc import Callable
from statistics import median

import torch
from torchvision.transforms import v2

from minivit import augment
from minivit.augment import Operation, generator_of

IMAGES, SIZE, STRENGTH = 512, 32, 0.5
JITTER = (0.8 * STRENGTH, 0.8 * STRENGTH, 0.8 * STRENGTH, 0.2 * STRENGTH)


def ours() -> Callable[[torch.Tensor], object]:
    view, generator = augment.simclr(SIZE, strength=STRENGTH), generator_of("bench")
    return lambda x: (view(x, generator), view(x, generator))


def torchvisions() -> Callable[[torch.Tensor], object]:
    one = v2.Compose([
        v2.RandomResizedCrop(SIZE, antialias=True),
        v2.RandomHorizontalFlip(),
        v2.RandomApply([v2.ColorJitter(*JITTER)], p=0.8),
        v2.RandomGrayscale(0.2),
    ])  # fmt: skip
    return lambda x: [torch.stack([one(image) for image in x]) for _ in range(2)]


def kornias() -> Callable[[torch.Tensor], object]:
    import kornia.augmentation as K

    view = K.AugmentationSequential(
        K.RandomResizedCrop((SIZE, SIZE), scale=(0.08, 1.0)), K.RandomHorizontalFlip(), K.ColorJitter(*JITTER, p=0.8), K.RandomGrayscale(p=0.2)
    )
    return lambda x: (view(x), view(x))


def seconds(make: Callable[[torch.Tensor], object], x: torch.Tensor) -> float:
    start = time.perf_counter()
    make(x)
    return time.perf_counter() - start


def where_time_goes(x: torch.Tensor, repeats: int = 9) -> dict[str, float]:
    """Milliseconds of each operation of one view, its draw included."""
    found: dict[str, float] = {}
    for operation in augment.simclr(SIZE, strength=STRENGTH).operations:
        found[type(operation).__name__] = round(1000 * median(_timed(operation, x) for _ in range(repeats)), 2)
    return found


def _timed(operation: Operation, x: torch.Tensor) -> float:
    start = time.perf_counter()
    operation(x, **operation.draw(len(x), *x.shape[-2:], generator_of("bench")))
    return time.perf_counter() - start


def main(*, rounds: int = 9, threads: int = 2) -> dict:
    """Medians over interleaved rounds; a ``speed`` is the peer's time over ours in the same round."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    x = torch.rand(IMAGES, 3, SIZE, SIZE)
    sides = {"minivit": ours(), "torchvision": torchvisions()}
    if importlib.util.find_spec("kornia"):
        sides["kornia"] = kornias()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for make in sides.values():
        make(x)  # warm up
    for turn in range(rounds):
        for name in sorted(sides, reverse=turn % 2 == 1):
            times[name].append(seconds(sides[name], x))
    found = {"what": f"two views of {IMAGES} images {SIZE}×{SIZE}, {threads} threads, {rounds} rounds"}
    for name, taken in times.items():
        found[f"{name}_ms"] = round(1000 * median(taken), 1)
    for name in sides.keys() - {"minivit"}:
        ratios = sorted(theirs / mine for mine, theirs in zip(times["minivit"], times[name], strict=True))
        found[f"speed_{name}"] = f"{median(ratios):.2f} ({ratios[0]:.2f} … {ratios[-1]:.2f})"
    found |= {f"{name}_of_ours_ms": value for name, value in where_time_goes(x).items()}
    torch.set_num_threads(before)
    return found


if __name__ == "__main__":
    for name, value in main().items():
        print(f"{name:28} {value}")
