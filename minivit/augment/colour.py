"""Colour: jitter in the forms of torchvision and of the official TensorFlow code, grayscale, solarize."""
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from minivit.augment.base import Draws, Images, Operation, Sometimes, uniform

GRAY = (0.2989, 0.5870, 0.1140)


class ColorJitter(Operation):
    """Brightness, contrast, saturation and hue, in an order drawn for each image, with probability ``p``.

    A strength v > 0 draws the factor from U(max(0, 1−v), 1+v), for hue the shift from U(−v, v) of the colour circle.
    ``form`` says whose formulas: "torchvision"; or the official SimCLR code's, which takes contrast about each channel's
    own mean and changes S of HSV: "tf_v2" multiplies the brightness, "tf_v1" adds a shift from U(−v, v) to it (BYOL, too).
    """

    def __init__(
        self, brightness: float, contrast: float, saturation: float, hue: float, *, p: float = 0.8, form: str = "torchvision"
    ):
        if not 0 <= hue <= 0.5:
            raise ValueError(f"hue={hue}: a share of the colour circle, 0 to 0.5.")
        if form not in FORMS:
            raise ValueError(f"form={form!r}: there are {', '.join(map(repr, FORMS))}.")
        self.brightness, self.contrast, self.saturation, self.hue, self.p, self.form = brightness, contrast, saturation, hue, p, form

    def draw(self, batch: int, height: int, width: int, generator: Generator) -> Draws:
        strength = torch.tensor([self.brightness, self.contrast, self.saturation], dtype=torch.float64)
        low, high = (1 - strength).clamp(min=0), 1 + strength
        if self.form == "tf_v1":
            low[0], high[0] = -self.brightness, self.brightness
        factors = torch.rand(batch, 3, generator=generator, dtype=torch.float64) * (high - low) + low
        shift = uniform(-self.hue, self.hue, (batch, 1), generator)
        order = torch.rand(batch, 4, generator=generator).argsort(1)
        apply = uniform(0, 1, batch, generator) < self.p
        return {"factors": torch.cat([factors, shift], 1).float(), "order": order, "apply": apply}

    def __call__(self, x: Tensor, *, factors: Tensor, order: Tensor, apply: Tensor) -> Tensor:
        x = x.clone()
        values = factors.to(x)
        for slot in range(4):
            for kind, change in enumerate((*FORMS[self.form], adjust_hue)):
                chosen = (apply & (order[:, slot] == kind)).nonzero()[:, 0].to(x.device, non_blocking=True)
                x[chosen] = change(x[chosen], values[chosen, kind])
        return x


def blend(x: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """``factor·x + (1 − factor)·other``, clipped to [0, 1]."""
    return torch.lerp(other, x, factor[:, None, None, None]).clamp_(0, 1)


def grayscale(x: Images) -> Float[Tensor, "batch 1 height width"]:
    """0.2989 R + 0.5870 G + 0.1140 B, the ITU-R 601 luma."""
    return GRAY[0] * x[:, 0:1] + GRAY[1] * x[:, 1:2] + GRAY[2] * x[:, 2:3]


def adjust_brightness(x: Images, factor: Tensor) -> Images:
    return (x * factor[:, None, None, None]).clamp_(0, 1)


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
    k = torch.tensor([5.0, 3.0, 1.0], device=x.device)[:, None, None] + sector[:, None]  # red, green, blue
    k -= (k / 6).floor_().mul_(6)  # k % 6, many times faster on a CPU; in place, as fresh memory is what costs most there
    return value - torch.minimum(k, 4 - k).clamp_(0, 1).mul_(chroma)


def add_brightness(x: Images, shift: Tensor) -> Images:
    return (x + shift[:, None, None, None]).clamp(0, 1)


def adjust_channel_contrast(x: Images, factor: Tensor) -> Images:
    """Blend each channel with its own mean."""
    return blend(x, x.mean(dim=(2, 3), keepdim=True), factor)


def adjust_hsv_saturation(x: Images, factor: Tensor) -> Images:
    """Scale S of HSV, at most to 1; hue and value unchanged. With S = (V − min) / V that scales every distance to V."""
    value = x.amax(1, keepdim=True)
    saturation = (value - x.amin(1, keepdim=True)) / value.clamp(min=1e-12)
    scaled = (saturation * factor[:, None, None, None]).clamp(0, 1)
    return value - (value - x) * torch.where(saturation > 0, scaled / saturation, 1)


FORMS = {
    "torchvision": (adjust_brightness, adjust_contrast, adjust_saturation),
    "tf_v1": (add_brightness, adjust_channel_contrast, adjust_hsv_saturation),
    "tf_v2": (adjust_brightness, adjust_channel_contrast, adjust_hsv_saturation),
}


class Grayscale(Sometimes):
    """Replace all three channels by the luma with probability ``p``."""

    def __init__(self, p: float = 0.2):
        super().__init__(p)

    def change(self, x: Tensor) -> Tensor:
        return grayscale(x)


class Solarize(Sometimes):
    """Invert every value at or above ``threshold`` with probability ``p``."""

    def __init__(self, p: float = 0.2, *, threshold: float = 128 / 255):
        super().__init__(p)
        self.threshold = threshold

    def change(self, x: Tensor) -> Tensor:
        return torch.where(x >= self.threshold, 1 - x, x)
