"""Instruments: is the representation collapsing, and where did a number stop being finite?"""
from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from minivit.augment import Batch
from minivit.layers.block import Block
from minivit.methods.base import Method, spread
from minivit.models.swin import SwinBlock


@torch.no_grad()
def collapse_report(z: Float[Tensor, "images dim"]) -> dict[str, float]:
    """Four figures of a set of vectors ``(N, D)``; a collapse shows in at least one of them.

    ``spread``: mean deviation of the unit vectors · √D (1: fills the sphere, 0: all alike). ``mean_cosine``: average
    similarity of two different vectors (0 for random ones, 1 when all are alike). ``effective_rank``: exp of the entropy of
    the normalised singular values of the centred unit vectors (1 … D; Roy & Vetterli 2007); it sees vectors that lie on a
    line, which spread does not. ``uniformity``: ln of the mean of exp(−2‖u−v‖²) over pairs (Wang & Isola 2020; lower is more spread).
    """
    if z.dim() != 2 or len(z) < 2:
        raise ValueError(f"collapse_report takes (N, D) with N ≥ 2, not {tuple(z.shape)}.")
    unit = F.normalize(z.double(), dim=1)
    n = len(unit)
    singular = torch.linalg.svdvals(unit - unit.mean(0))
    share = singular / singular.sum().clamp(min=1e-12)
    rank = torch.special.entr(share).sum().exp() if singular.sum() > 1e-9 else torch.ones(())
    mean_cosine = (unit.sum(0).square().sum() - n) / (n * (n - 1))
    uniformity = torch.pdist(unit[:2000]).square().mul(-2).exp().mean().log()
    figures = {"spread": spread(z), "mean_cosine": mean_cosine, "effective_rank": rank, "uniformity": uniformity}
    return {name: float(value) for name, value in figures.items()}


@torch.no_grad()
def first_nonfinite(method: Method, batch: Batch, progress: float) -> str:
    """The first place where a number is not finite: a weight, else an input view, else a module's output, in forward order."""
    for name, parameter in method.named_parameters():
        if not parameter.isfinite().all():
            return f"weight {name}"
    if not all(view.isfinite().all() for view in batch.views):
        return "the images"
    found: list[str] = []

    def watch(name: str):
        def hook(module: nn.Module, inputs: tuple, output: object) -> None:
            if isinstance(output, Tensor) and not output.isfinite().all():
                found.append(name)

        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in method.named_modules() if name]
    try:
        method(batch, progress)
    finally:
        for handle in handles:
            handle.remove()
    return f"output of {found[0]}" if found else "the loss itself"


class ActivationMonitor:
    """Amplitude and variance of the main branch after every transformer block, in forward order, by the block's name.

    ``amplitude``: root of the mean square. ``variance``: mean over channels of the variance over images and positions, what signal
    propagation plots show by depth. Both are of the last forward pass inside the ``with``::

        with ActivationMonitor(model) as monitor:
            model(x)
        monitor.amplitude  # {"stages.0.blocks.0": 1.3, ...}

    Raises ValueError where ``model`` has no such block. Source: Liu et al. 2022 (Swin V2), figure 2; Brock et al. 2021 for the variance.
    """

    def __init__(self, model: nn.Module):
        self.blocks = {name: module for name, module in model.named_modules() if isinstance(module, Block | SwinBlock)}
        if not self.blocks:
            raise ValueError(f"{type(model).__name__} has no transformer block to watch.")
        self.amplitude: dict[str, float] = {}
        self.variance: dict[str, float] = {}

    def __enter__(self) -> ActivationMonitor:
        self.handles = [block.register_forward_hook(partial(self._look, name)) for name, block in self.blocks.items()]
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self.handles:
            handle.remove()

    @torch.no_grad()
    def _look(self, name: str, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        x = rearrange(output.double(), "... d -> d (...)")
        self.amplitude[name] = x.square().mean().sqrt().item()
        self.variance[name] = x.var(dim=1, correction=0).mean().item()
