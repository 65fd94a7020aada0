"""Where the pixels come from: crops, flips, quarter turns, holes."""
import math

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from minivit.augment.base import Draws, Operation, Sometimes, uniform


class RandomResizedCrop(Operation):
    """Cut a random box and resize it to ``size`` × ``size``, bilinear or bicubic, with antialias.

    The box is sampled as torchvision does it: area uniform in ``area`` (a share of the image), ratio width/height
    log-uniform in ``ratio``, ten tries until the box fits, else the largest central box. SimCLR's official TF code
    resizes bicubically and samples smaller boxes (mean area 0.42 against 0.48 here, at area 0.08–1).
    """

    def __init__(
        self,
        size: int,
        *,
        area: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        interpolation: str = "bilinear",
    ):
        if not 0 < area[0] <= area[1] <= 1:
            raise ValueError(f"area={area}: shares of the image, 0 < low ≤ high ≤ 1.")
        if interpolation not in KERNELS:
            raise ValueError(f"interpolation={interpolation!r}: there are {', '.join(map(repr, KERNELS))}.")
        self.size, self.area, self.ratio, self.interpolation = size, area, ratio, interpolation

    def draw(self, batch: int, height: int, width: int, generator: Generator) -> Draws:
        tries = 10
        area = uniform(*self.area, (batch, tries), generator) * height * width
        ratio = uniform(math.log(self.ratio[0]), math.log(self.ratio[1]), (batch, tries), generator).exp()
        corner = uniform(0, 1, (2, batch), generator)
        w, h = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
        fits = (w >= 1) & (w <= width) & (h >= 1) & (h <= height)
        first = fits.int().argmax(1, keepdim=True)
        w, h = w.gather(1, first)[:, 0], h.gather(1, first)[:, 0]
        none = ~fits.any(1)
        w[none] = min(width, round(height * self.ratio[1]))
        h[none] = min(height, round(width / self.ratio[0]))
        corner[:, none] = 0.5 - 1e-9  # the floor below is then (H − h) // 2, as in torchvision
        top, left = (corner[0] * (height - h + 1)).floor(), (corner[1] * (width - w + 1)).floor()
        return {"top": top, "left": left, "height": h, "width": w}

    def __call__(self, x: Tensor, *, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
        rows = resize_weights(x.shape[-2], top, height, self.size, self.interpolation)
        columns = resize_weights(x.shape[-1], left, width, self.size, self.interpolation)
        x = separable(x, rows, columns)
        return x.clamp(0, 1) if self.interpolation == "bicubic" else x  # its negative lobes overshoot at edges


class CenterResize(Operation):
    """The largest central square, resized to ``size`` × ``size``: the test-time view."""

    def __init__(self, size: int):
        self.size = size

    def __call__(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if height == width == self.size:
            return x
        side = min(height, width)
        box = torch.tensor([[(height - side) // 2], [(width - side) // 2], [side]], dtype=torch.float64)
        rows = resize_weights(height, box[0], box[2], self.size)
        columns = resize_weights(width, box[1], box[2], self.size)
        return separable(x, rows.expand(len(x), -1, -1), columns.expand(len(x), -1, -1))


def triangle(distance: Tensor) -> Tensor:
    """The bilinear kernel: 1 at its centre, 0 from one pixel on."""
    return (1 - distance).clamp(min=0)


def cubic(distance: Tensor) -> Tensor:
    """Keys' bicubic kernel with a = −1/2, as in Pillow: 0 from two pixels on, negative between one and two."""
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return torch.where(distance < 1, near, torch.where(distance < 2, far, 0))


KERNELS = {"bilinear": triangle, "bicubic": cubic}


def resize_weights(
    pixels: int, start: Tensor, length: Tensor, size: int, interpolation: str = "bilinear"
) -> Float[Tensor, "batch size pixels"]:
    """Row (b, i): how much each source pixel gives to output i when [start, start + length) is resized to ``size``.

    The kernel is widened by the scale where the image shrinks (antialias), cut off at the ends of the box and
    normalised: torchvision's and Pillow's resize.
    """
    scale = length / size
    support = scale.clamp(min=1)
    centre = (torch.arange(size, dtype=torch.float64) + 0.5) * scale[:, None] + start[:, None]
    source = torch.arange(pixels, dtype=torch.float64) + 0.5
    distance = (source - centre[:, :, None]).float().abs_()  # float64 up to here: positions are large, distances small
    weight = KERNELS[interpolation](distance / support[:, None, None].float())
    in_box = (source > start[:, None]) & (source < (start + length)[:, None])
    weight = weight * in_box[:, None, :]
    return weight / weight.sum(-1, keepdim=True)


def separable(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Mix rows by one matrix for each image and columns by another: ``(B, 3, H, W) -> (B, 3, H', W')``."""
    rows, columns = rows.to(x, non_blocking=True), columns.to(x, non_blocking=True)
    return torch.matmul(torch.matmul(rows[:, None], x), columns[:, None].mT)


class HorizontalFlip(Sometimes):
    """Mirror left and right with probability ``p``."""

    def __init__(self, p: float = 0.5):
        super().__init__(p)

    def change(self, x: Tensor) -> Tensor:
        return x.flip(-1)


class Rotation(Operation):
    """Turn a square image by 90°, 180° or 270° against the clock, each equally likely, with probability ``p``.

    Raises ValueError for images that are not square.
    """

    def __init__(self, p: float = 0.75):
        self.p = p

    def draw(self, batch: int, height: int, width: int, generator: Generator) -> Draws:
        turns = torch.randint(1, 4, (batch,), generator=generator)
        return {"turns": turns * (uniform(0, 1, batch, generator) < self.p)}

    def __call__(self, x: Tensor, *, turns: Tensor) -> Tensor:
        if x.shape[-2] != x.shape[-1]:
            raise ValueError(f"quarter turns need square images, not {x.shape[-2]}×{x.shape[-1]}.")
        turned = torch.stack([x.rot90(quarters, (-2, -1)) for quarters in range(4)])
        return turned[turns.to(x.device), torch.arange(len(x), device=x.device)]


class Cutout(Operation):
    """Cover a square of ``share`` × the shorter side with gray, with probability ``p``.

    Its centre is uniform over the image, and what lies outside is cut off. Source: DeVries & Taylor 2017.
    """

    def __init__(self, share: float = 0.5, *, p: float = 1.0):
        if not 0 < share <= 1:
            raise ValueError(f"share={share}: of the image's side, 0 < share ≤ 1.")
        self.share, self.p = share, p

    def draw(self, batch: int, height: int, width: int, generator: Generator) -> Draws:
        row, column = (torch.randint(0, side, (batch,), generator=generator) for side in (height, width))
        return {"row": row, "column": column, "apply": uniform(0, 1, batch, generator) < self.p}

    def __call__(self, x: Tensor, *, row: Tensor, column: Tensor, apply: Tensor) -> Tensor:
        side = round(self.share * min(x.shape[-2:]))
        inside = []
        for centre, pixels in ((row, x.shape[-2]), (column, x.shape[-1])):
            distance = torch.arange(pixels) - (centre[:, None] - side // 2)
            inside.append((distance >= 0) & (distance < side))
        hole = apply[:, None, None] & inside[0][:, :, None] & inside[1][:, None, :]
        return x.masked_fill(hole[:, None].to(x.device), 0.5)
