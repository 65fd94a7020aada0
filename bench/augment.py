"""Two SimCLR views of a batch: ours, torchvision v2 image by image, and kornia's batched ones: ``python -m bench.augment``.

kornia is no dependency of ours; where it is not installed its line is left out (README.md says how to try it).
"""
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor
from torchvision.transforms import v2

from bench import pairs
from bench.pairs import OURS, Row, agree, compare, installed, show, stopwatch, threads
from minivit.augment import ColorJitter, Grayscale, HorizontalFlip, RandomResizedCrop, View, generator_of

Side = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Settings:
    """SimCLR's for CIFAR-10, strength 0.5."""

    size: int = 32
    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    colour: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
    jitter: float = 0.8
    gray: float = 0.2


FIXED = Settings(size=19, area=(1.0, 1.0), ratio=(1.0, 1.0), flip=1.0, jitter=0.0, gray=1.0)  # nothing random: all sides must give the same


def ours(s: Settings) -> Side:
    crop = RandomResizedCrop(s.size, area=s.area, ratio=s.ratio)
    view, generator = View(crop, HorizontalFlip(s.flip), ColorJitter(*s.colour, p=s.jitter), Grayscale(s.gray)), generator_of("bench")
    return lambda x: view(x, generator)


def torchvisions(s: Settings) -> v2.Transform:
    return v2.Compose([
        v2.RandomResizedCrop(s.size, scale=s.area, ratio=s.ratio, antialias=True),
        v2.RandomHorizontalFlip(s.flip),
        v2.RandomApply([v2.ColorJitter(*s.colour)], p=s.jitter),
        v2.RandomGrayscale(s.gray),
    ])  # fmt: skip


def one_by_one(s: Settings) -> Side:
    one = torchvisions(s)
    return lambda x: torch.stack([one(image) for image in x])


def one_by_one_in_bytes(s: Settings) -> Side:
    """Pictures stay uint8 to the end: torchvision's advice for CPUs, at the price of rounding after every operation."""
    one = torchvisions(s)
    return lambda x: torch.stack([one(image) for image in (x * 255).round().to(torch.uint8)]).float() / 255


def kornias(s: Settings) -> Side:
    import kornia.augmentation as K

    return K.AugmentationSequential(
        K.RandomResizedCrop((s.size, s.size), scale=s.area, ratio=s.ratio),
        K.RandomHorizontalFlip(p=s.flip),
        K.ColorJitter(*s.colour, p=s.jitter),
        K.RandomGrayscale(p=s.gray),
    )


PEERS: dict[str, tuple[Callable[[Settings], Side], float]] = {  # and how far it may be from ours where nothing is random
    "torchvision v2, image by image": (one_by_one, 1e-5),
    "torchvision v2, image by image, uint8": (one_by_one_in_bytes, 2 / 255),
    "kornia, batched, one jitter order a batch": (kornias, 0.1),  # its resize has no antialias: compared on smooth pictures
}


def smooth(images: int) -> Tensor:
    """Pictures of slow colour gradients, each another one."""
    row, column = torch.linspace(0, 1, 32)[:, None].expand(32, 32), torch.linspace(0, 1, 32).expand(32, 32)
    share = torch.rand(images, 3, 1, 1)
    return share * row + (1 - share) * column


def main(*, images: int = 512, rounds: int = 9) -> list[Row]:
    torch.manual_seed(0)
    x, pictures = torch.rand(images, 3, 32, 32), smooth(min(images, 16))
    sides = {OURS: ours(Settings())}
    present = {peer: made for peer, made in PEERS.items() if not peer.startswith("kornia") or installed("kornia")}
    for peer, (make, tolerance) in present.items():
        agree(peer, (make(FIXED)(pictures) - ours(FIXED)(pictures)).abs().max().item(), tolerance)
        sides[peer] = make(Settings())
    steps = {name: lambda side=side: (side(x), side(x)) for name, side in sides.items()}
    return compare(f"two SimCLR views of {images} images", steps, rounds=rounds, absent=tuple(PEERS.keys() - present.keys()))


def where_time_goes(*, images: int = 512, rounds: int = 9) -> dict[str, float]:
    """Milliseconds of each operation of one of our views, its draw included."""
    x, generator, s = torch.rand(images, 3, 32, 32), generator_of("bench"), Settings()
    operations = (RandomResizedCrop(s.size, area=s.area), HorizontalFlip(s.flip), ColorJitter(*s.colour, p=s.jitter), Grayscale(s.gray))
    found = {}
    with threads(pairs.CORES):
        for operation in operations:
            seconds = stopwatch(lambda operation=operation: operation(x, **operation.draw(images, 32, 32, generator)))
            found[type(operation).__name__] = 1000 * median(seconds() for _ in range(rounds))
    return found


if __name__ == "__main__":
    show(main())
    print("of one view of ours, ms:", ", ".join(f"{name} {value:.1f}" for name, value in where_time_goes().items()))
