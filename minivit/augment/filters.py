"""What looks at a pixel's neighbourhood, and noise."""
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

from minivit.augment.base import Draws, Operation, Sometimes, uniform
from minivit.augment.colour import grayscale
from minivit.augment.geometry import separable


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


class GaussianNoise(Operation):
    """Add normal noise of σ ~ U(``sigma``) with probability ``p``, and clip to [0, 1]."""

    def __init__(self, sigma: tuple[float, float] = (0.0, 0.2), *, p: float = 1.0):
        self.sigma, self.p = sigma, p

    def draw(self, batch: int, height: int, width: int, generator: Generator) -> Draws:
        sigma = uniform(*self.sigma, batch, generator) * (uniform(0, 1, batch, generator) < self.p)
        return {"noise": torch.randn(batch, 3, height, width, generator=generator), "sigma": sigma.float()}

    def __call__(self, x: Tensor, *, noise: Tensor, sigma: Tensor) -> Tensor:
        return (x + noise.to(x) * sigma.to(x)[:, None, None, None]).clamp(0, 1)


class Sobel(Sometimes):
    """The size of the brightness gradient in place of all three channels, with probability ``p``.

    √(gx² + gy²) / 4 of the 3×3 Sobel filters on the grayscale, clipped to [0, 1]: a black-white edge gives 1. Border pixels are repeated.
    """

    def __init__(self, p: float = 1.0):
        super().__init__(p)

    def change(self, x: Tensor) -> Tensor:
        gray = F.pad(grayscale(x), (1, 1, 1, 1), mode="replicate")
        rows = gray[..., :-2, :] + 2 * gray[..., 1:-1, :] + gray[..., 2:, :]
        columns = gray[..., :-2] + 2 * gray[..., 1:-1] + gray[..., 2:]
        across, down = rows[..., 2:] - rows[..., :-2], columns[..., 2:, :] - columns[..., :-2, :]
        return (torch.hypot(across, down) / 4).clamp(max=1)
