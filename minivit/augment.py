"""Augmentations in batches, on the device of the images, with a random draw of its own for every image.

An operation has two halves: ``draw`` samples its parameters for a batch on the CPU, so that they are the same on every
machine, and ``__call__`` applies given parameters. A `View` is a list of operations; a `Recipe` says which views a method trains on.
"""
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Generator, Tensor

Images = Float[Tensor, "batch 3 height width"]
Resized = Float[Tensor, "batch 3 out_height out_width"]
Draws = dict[str, Tensor]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GRAY = (0.2989, 0.5870, 0.1140)


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


def uniform(low: float, high: float, shape: Sequence[int] | int, generator: Generator) -> Tensor:
    shape = (shape,) if isinstance(shape, int) else shape
    return torch.rand(*shape, generator=generator, dtype=torch.float64) * (high - low) + low


# ---------------------------------------------------------------------------------------------------- geometry


class RandomResizedCrop(Operation):
    """Cut a random box and resize it to ``size`` × ``size``, bilinear with antialias.

    The box is sampled as torchvision does it: area uniform in ``area`` (a share of the image), ratio width/height
    log-uniform in ``ratio``, ten tries until the box fits, else the largest central box. SimCLR's official TF code
    resizes bicubically and samples smaller boxes (mean area 0.42 against 0.48 here, at area 0.08–1).
    """

    def __init__(self, size: int, *, area: tuple[float, float] = (0.08, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3)):
        if not 0 < area[0] <= area[1] <= 1:
            raise ValueError(f"area={area}: shares of the image, 0 < low ≤ high ≤ 1.")
        self.size, self.area, self.ratio = size, area, ratio

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
        rows = resize_weights(x.shape[-2], top, height, self.size)
        columns = resize_weights(x.shape[-1], left, width, self.size)
        return separable(x, rows, columns)


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


def resize_weights(pixels: int, start: Tensor, length: Tensor, size: int) -> Float[Tensor, "batch size pixels"]:
    """Row (b, i): how much each source pixel gives to output i when [start, start + length) is resized to ``size``.

    A triangle filter, widened by the scale where the image shrinks (antialias), cut off at the ends of the box and
    normalised: torchvision's and Pillow's bilinear resize.
    """
    scale = length / size
    support = scale.clamp(min=1)
    centre = (torch.arange(size, dtype=torch.float64) + 0.5) * scale[:, None] + start[:, None]
    source = torch.arange(pixels, dtype=torch.float64) + 0.5
    weight = (1 - (source - centre[:, :, None]).abs() / support[:, None, None]).clamp(min=0)
    in_box = (source > start[:, None]) & (source < (start + length)[:, None])
    weight = weight * in_box[:, None, :]
    return (weight / weight.sum(-1, keepdim=True)).float()


def separable(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Mix rows by one matrix for each image and columns by another: ``(B, 3, H, W) -> (B, 3, H', W')``."""
    rows, columns = rows.to(x, non_blocking=True), columns.to(x, non_blocking=True)
    return torch.matmul(torch.matmul(rows[:, None], x), columns[:, None].mT)


class HorizontalFlip(Operation):
    """Mirror left and right with probability ``p``."""

    def __init__(self, p: float = 0.5):
        self.p = p

    def draw(self, batch: int, height: int, width: int, generator: Generator) -> Draws:
        return {"apply": uniform(0, 1, batch, generator) < self.p}

    def __call__(self, x: Tensor, *, apply: Tensor) -> Tensor:
        return torch.where(apply.to(x.device)[:, None, None, None], x.flip(-1), x)


# ---------------------------------------------------------------------------------------------------- colour


class ColorJitter(Operation):
    """Brightness, contrast, saturation and hue, in an order drawn for each image, with probability ``p``.

    A strength v > 0 draws the factor from U(max(0, 1−v), 1+v), for hue the shift from U(−v, v) of the colour circle.
    Formulas are torchvision's (multiplicative brightness, as in SimCLR v2); SimCLR v1's TF code adds a brightness,
    takes contrast about each channel's own mean and changes S of HSV.
    """

    def __init__(self, brightness: float, contrast: float, saturation: float, hue: float, *, p: float = 0.8):
        if not 0 <= hue <= 0.5:
            raise ValueError(f"hue={hue}: a share of the colour circle, 0 to 0.5.")
        self.brightness, self.contrast, self.saturation, self.hue, self.p = brightness, contrast, saturation, hue, p

    def draw(self, batch: int, height: int, width: int, generator: Generator) -> Draws:
        strength = torch.tensor([self.brightness, self.contrast, self.saturation], dtype=torch.float64)
        low, high = (1 - strength).clamp(min=0), 1 + strength
        factors = torch.rand(batch, 3, generator=generator, dtype=torch.float64) * (high - low) + low
        shift = uniform(-self.hue, self.hue, (batch, 1), generator)
        order = torch.rand(batch, 4, generator=generator).argsort(1)
        apply = uniform(0, 1, batch, generator) < self.p
        return {"factors": torch.cat([factors, shift], 1).float(), "order": order, "apply": apply}

    def __call__(self, x: Tensor, *, factors: Tensor, order: Tensor, apply: Tensor) -> Tensor:
        x = x.clone()
        values = factors.to(x)
        for slot in range(4):
            for kind, change in enumerate((adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)):
                chosen = (apply & (order[:, slot] == kind)).nonzero()[:, 0].to(x.device, non_blocking=True)
                x[chosen] = change(x[chosen], values[chosen, kind])
        return x


def blend(x: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """``factor·x + (1 − factor)·other``, clipped to [0, 1]."""
    return torch.lerp(other, x, factor[:, None, None, None]).clamp(0, 1)


def grayscale(x: Images) -> Float[Tensor, "batch 1 height width"]:
    """0.2989 R + 0.5870 G + 0.1140 B, the ITU-R 601 luma."""
    return GRAY[0] * x[:, 0:1] + GRAY[1] * x[:, 1:2] + GRAY[2] * x[:, 2:3]


def adjust_brightness(x: Images, factor: Tensor) -> Images:
    return (x * factor[:, None, None, None]).clamp(0, 1)


def adjust_contrast(x: Images, factor: Tensor) -> Images:
    """Blend with the mean of the image's grayscale."""
    return blend(x, grayscale(x).mean(dim=(1, 2, 3), keepdim=True), factor)


def adjust_saturation(x: Images, factor: Tensor) -> Images:
    """Blend with the image's grayscale."""
    return blend(x, grayscale(x), factor)


def adjust_hue(x: Images, shift: Tensor) -> Images:
    """Turn the hue of HSV by ``shift`` of the circle, saturation and value unchanged."""
    value, low = x.amax(1, keepdim=True), x.amin(1, keepdim=True)
    chroma = value - low
    r, g, b = x.unbind(1)
    top = value[:, 0]
    span = torch.where(chroma == 0, 1, chroma)[:, 0]
    sector = torch.where(top == r, (g - b) / span, torch.where(top == g, 2 + (b - r) / span, 4 + (r - g) / span))
    sector = sector + 6 * shift[:, None, None]
    k = (torch.tensor([5.0, 3.0, 1.0], device=x.device)[:, None, None] + sector[:, None]) % 6  # red, green, blue
    return value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)


class Grayscale(Operation):
    """Replace all three channels by the luma with probability ``p``."""

    def __init__(self, p: float = 0.2):
        self.p = p

    def draw(self, batch: int, height: int, width: int, generator: Generator) -> Draws:
        return {"apply": uniform(0, 1, batch, generator) < self.p}

    def __call__(self, x: Tensor, *, apply: Tensor) -> Tensor:
        return torch.where(apply.to(x.device)[:, None, None, None], grayscale(x), x)


class GaussianBlur(Operation):
    """Blur with probability ``p`` by a Gaussian of σ ~ U(``sigma``) pixels, drawn for each image; edges are mirrored.

    The kernel has 2·radius+1 taps; SimCLR takes a tenth of the image (radius 11 at 224), and no blur at 32.
    """

    def __init__(self, *, radius: int, sigma: tuple[float, float] = (0.1, 2.0), p: float = 0.5):
        self.radius, self.sigma, self.p = radius, sigma, p

    def draw(self, batch: int, height: int, width: int, generator: Generator) -> Draws:
        return {"sigma": uniform(*self.sigma, batch, generator), "apply": uniform(0, 1, batch, generator) < self.p}

    def __call__(self, x: Tensor, *, sigma: Tensor, apply: Tensor) -> Tensor:
        chosen = apply.nonzero()[:, 0]
        x, at = x.clone(), chosen.to(x.device, non_blocking=True)
        rows, columns = (blur_weights(n, sigma[chosen], self.radius) for n in x.shape[-2:])
        x[at] = separable(x[at], rows, columns)
        return x


def blur_weights(pixels: int, sigma: Tensor, radius: int) -> Float[Tensor, "batch pixels pixels"]:
    """Row (b, i): the Gaussian around pixel i as a matrix row, with what falls outside mirrored back in."""
    if radius >= pixels:
        raise ValueError(f"radius={radius}: the blur must be narrower than the image of {pixels} pixels.")
    taps = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = (-0.5 * (taps / sigma[:, None]) ** 2).exp()
    kernel = (kernel / kernel.sum(1, keepdim=True)).float()
    source = (torch.arange(pixels)[:, None] + taps.long()).abs()
    source = torch.where(source >= pixels, 2 * (pixels - 1) - source, source)
    weights = torch.zeros(len(sigma), pixels, pixels)
    return weights.scatter_add_(2, source.expand(len(sigma), -1, -1), kernel[:, None].expand(-1, pixels, -1))


# ---------------------------------------------------------------------------------------------------- views and recipes


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


def evaluation(size: int, *, mean: Sequence[float] | None = None, std: Sequence[float] | None = None) -> View:
    """The largest central square at ``size``, nothing random."""
    return View(CenterResize(size), mean=mean, std=std)


def simclr(
    size: int,
    *,
    strength: float = 1.0,
    min_area: float = 0.08,
    blur: bool | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> View:
    """SimCLR's view: crop, flip, colour jitter (0.8 s, 0.8 s, 0.8 s, 0.2 s; p 0.8), grayscale (p 0.2), blur (p 0.5).

    ``blur=None`` means: above 32 pixels only, with a kernel a tenth of the image wide. ``strength=0`` leaves out both
    colour operations (crop only). The paper uses s = 1 on ImageNet, 0.5 on CIFAR-10, and feeds [0, 1] without normalisation.
    Source: Chen et al. 2020, appendix A, with torchvision's forms of sampling and jitter (see the operations).
    """
    operations: list[Operation] = [RandomResizedCrop(size, area=(min_area, 1.0)), HorizontalFlip()]
    if strength > 0:
        operations += [ColorJitter(0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength), Grayscale()]
    if size > 32 if blur is None else blur:
        operations.append(GaussianBlur(radius=max(1, size // 20)))
    return View(*operations, mean=mean, std=std)


def supervised(
    size: int, *, min_area: float = 0.08, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> View:
    """Crop and flip, the plain recipe for training with labels."""
    return View(RandomResizedCrop(size, area=(min_area, 1.0)), HorizontalFlip(), mean=mean, std=std)
