"""What a network costs: parameters, multiply-adds, activations."""
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from minivit.evaluate import evaluating

aten = torch.ops.aten
PRODUCTS = (aten.mm, aten.addmm, aten.bmm, aten.baddbmm, aten.convolution)


class Complexity(NamedTuple):
    """For one image: ``flops`` are multiply-adds of products and convolutions, ``activations`` the numbers that these give out."""

    parameters: int
    flops: int
    activations: int


def complexity(model: nn.Module, image_size: int | tuple[int, int] | None = None) -> Complexity:
    """Count a model, or a stem alone, on one image of ``image_size`` (default: the model's own).

    Norms, biases and element-wise functions cost nothing; the maps of an attention are heads · N² activations.
    Only shapes are passed through, so a model on the ``meta`` device will do, and one of billions of parameters.

    Raises ValueError where the image's size is not known. Source: the counts of Xiao et al. 2021, tables 1–3, whose
    "flops" are multiply-adds, too; by PyTorch's `FlopCounterMode`, which counts two for each.
    """
    image_size = image_size or getattr(model, "image_size", None)
    if image_size is None:
        raise ValueError(f"image_size=None: a {type(model).__name__} does not know its images' size.")
    height, width = (image_size,) * 2 if isinstance(image_size, int) else image_size
    state = {name: value.to("meta") for name, value in [*model.named_parameters(), *model.named_buffers()]}
    image = torch.empty(1, 3, height, width, device="meta", dtype=next((p.dtype for p in model.parameters()), None))
    outputs: list[int] = []
    counter = FlopCounterMode(display=False, custom_mapping={product: _noting(product, outputs) for product in PRODUCTS})
    with counter, evaluating(model), sdpa_kernel(SDPBackend.MATH):
        functional_call(model, state, (image,))
    return Complexity(sum(p.numel() for p in model.parameters()), counter.get_total_flops() // 2, sum(outputs))


def _noting(product: Callable, outputs: list[int]) -> Callable:
    """PyTorch's own count of a product, which also notes how many numbers it gives out."""

    def count(*shapes, out_shape: tuple[int, ...], **options) -> int:
        outputs.append(math.prod(out_shape))
        return flop_registry[product](*shapes, out_val=out_shape, **options)

    return count
