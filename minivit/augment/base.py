"""What augmentations are made of: an operation draws and applies, a view chains operations, a recipe names the views."""
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Generator, Tensor

Images = Float[Tensor, "batch 3 height width"]
Resized = Float[Tensor, "batch 3 out_height out_width"]
Draws = dict[str, Tensor]


def seed_of(*key: int | str) -> int:
    """A 63-bit seed from any key, such as (seed, step): randomness is a function of it, so nothing has to be saved or replayed."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "little") >> 1


def generator_of(*key: int | str) -> Generator:
    """A CPU generator that starts at ``seed_of(*key)``."""
    return Generator().manual_seed(seed_of(*key))


class Operation:
    """One augmentation. Images are float ``(B, 3, H, W)`` in [0, 1] on both sides; every draw is a tensor of length B."""

    def draw(self, batch: int, height: int, width: int, generator: Generator) -> Draws:
        return {}

    def __call__(self, x: Tensor, **draws: Tensor) -> Tensor:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v}' for k, v in vars(self).items())})"


class Sometimes(Operation):
    """An operation that `change`s an image with probability ``p`` and else leaves it as it is."""

    def __init__(self, p: float):
        self.p = p

    def draw(self, batch: int, height: int, width: int, generator: Generator) -> Draws:
        return {"apply": uniform(0, 1, batch, generator) < self.p}

    def __call__(self, x: Tensor, *, apply: Tensor) -> Tensor:
        return torch.where(apply.to(x.device)[:, None, None, None], self.change(x), x)

    def change(self, x: Tensor) -> Tensor:
        raise NotImplementedError


def uniform(low: float, high: float, shape: Sequence[int] | int, generator: Generator) -> Tensor:
    shape = (shape,) if isinstance(shape, int) else shape
    return torch.rand(*shape, generator=generator, dtype=torch.float64) * (high - low) + low


class View:
    """A chain of operations that ends with the recipe's normalisation, or none: ``(B, 3, H, W) -> (B, 3, h, w)``.

    ``view(x, generator=g)`` draws and applies. ``view.draw(...)`` then ``view.apply(x, draws)`` are the two halves:
    whoever draws for the joined batch and slices gets the same images however the batch is split.
    """

    def __init__(self, *operations: Operation, mean: Sequence[float] | None = None, std: Sequence[float] | None = None):
        self.operations, self.mean, self.std = operations, mean, std

    def draw(self, batch: int, height: int, width: int, generator: Generator) -> list[Draws]:
        draws = []
        for operation in self.operations:
            draws.append(operation.draw(batch, height, width, generator))
            if size := getattr(operation, "size", None):
                height = width = size
        return draws

    def apply(self, x: Images, draws: list[Draws]) -> Resized:
        for operation, drawn in zip(self.operations, draws, strict=True):
            x = operation(x, **drawn)
        if self.mean is None:
            return x
        mean, std = (torch.tensor(v, device=x.device, dtype=x.dtype)[:, None, None] for v in (self.mean, self.std))
        return (x - mean) / std

    def __call__(self, x: Images, generator: Generator | None = None) -> Resized:
        generator = generator or torch.default_generator
        return self.apply(x, self.draw(len(x), *x.shape[-2:], generator))

    def unnormalise(self, x: Images) -> Images:
        """Back to [0, 1], for showing."""
        if self.mean is None:
            return x
        mean, std = (torch.tensor(v, device=x.device, dtype=x.dtype)[:, None, None] for v in (self.mean, self.std))
        return (x * std + mean).clamp(0, 1)

    def __repr__(self) -> str:
        return f"View({', '.join(map(repr, self.operations))}, mean={self.mean}, std={self.std})"


@dataclass(frozen=True)
class Recipe:
    """Which views a method trains on, of any number and size, and the view it is evaluated on."""

    views: tuple[View, ...]
    eval: View = field(kw_only=True)


@dataclass(frozen=True)
class Batch:
    """What a method's ``forward`` gets: views ``(B, 3, h, w)`` each, labels ``(B,)``, and the images' ids ``(B,)``."""

    views: tuple[Tensor, ...]
    labels: Tensor
    index: Tensor
