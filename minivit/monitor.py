"""Instruments: is the representation collapsing, where does training become unstable, and where did a number stop being finite?"""
from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from minivit import series
from minivit.augment import Batch
from minivit.callbacks import Callback
from minivit.layers.block import Block
from minivit.methods.base import Method, spread
from minivit.models.swin import SwinBlock
from minivit.runs import Run

if TYPE_CHECKING:
    from minivit.engine import Loop


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


class GradientMonitor(Callback):
    """Each layer's gradient, every step, as the loss gave it (before any clipping); and how well the optimizer knew its size.

    Logged for each layer: ``grad/LAYER``, ‖g‖₂; ``grad_max/LAYER``, max |g|; and, where the optimizer keeps Adam's second moment v,
    ``rms/LAYER`` = √mean(g² / max(v̂, ε²)), v̂ with this step's g in it and bias-corrected: about 1, and far above where g has outgrown
    v̂ and the update is too large. There g is what the optimizer was given. A layer is the stem, a block, another part of the
    backbone, or a head (`layer_of`); `logged` reads them back. Norms of all tensors are fused, and one transfer a step brings them from the device.
    Source: Chen, Xie & He 2021 (MoCo v3), §4 (which norm is not said); RMS: Wortsman et al. 2023, "Stable and low-precision training".
    """

    def on_start(self, loop: Loop) -> None:
        self.trained = [(layer_of(name), p) for name, p in loop.method.named_parameters() if p.requires_grad]
        self.group = {p: group for group in loop.optimizer.param_groups for p in group["params"]}

    def after_backward(self, loop: Loop) -> None:
        self.moved = [(layer, p) for layer, p in self.trained if p.grad is not None]
        gradients = [p.grad for _, p in self.moved]
        self.norms = [*torch._foreach_norm(gradients), *torch._foreach_norm(gradients, math.inf)]

    def after_step(self, loop: Loop) -> None:
        parameters = [p for _, p in self.moved]
        figures = torch.stack(self.norms + self.update_norms(parameters, loop.optimizer)).view(-1, len(parameters)).tolist()
        layers: dict[str, list[list[float]]] = {}
        for (layer, p), *values in zip(self.moved, *figures, strict=True):
            layers.setdefault(layer, []).append([p.numel(), *values])
        for layer, rows in layers.items():
            sizes, norms, largest, *updates = zip(*rows, strict=True)
            found = {"grad": math.hypot(*norms), "grad_max": max(largest)}
            if updates:
                found["rms"] = math.hypot(*updates[0]) / math.sqrt(sum(sizes))
            loop.run.log(loop.step, **{f"{name}/{layer}": float(f"{value:.5g}") for name, value in found.items()})

    def update_norms(self, parameters: list[Tensor], optimizer: torch.optim.Optimizer) -> list[Tensor]:
        """‖g / max(√v̂, ε)‖ of each tensor; nothing where the optimizer keeps no second moment."""
        states = [optimizer.state.get(p, {}) for p in parameters]
        if not all("exp_avg_sq" in state for state in states):
            return []
        groups = [self.group[p] for p in parameters]
        corrections = [1 - group["betas"][1] ** float(state["step"]) for group, state in zip(groups, states, strict=True)]
        roots = torch._foreach_sqrt(torch._foreach_div([state["exp_avg_sq"] for state in states], corrections))
        roots = torch._foreach_clamp_min(roots, [group["eps"] for group in groups])
        return list(torch._foreach_norm(torch._foreach_div([p.grad for p in parameters], roots)))


def layer_of(parameter: str) -> str:
    """The layer to which a parameter of a method belongs: "backbone.blocks.2.mlp.0.weight" → "block2", "projector.0.weight" → "projector"."""
    first, *inner = parameter.split(".")
    if first != "backbone":
        return first
    return inner[0].removesuffix("s") + inner[1] if inner[1:] and inner[1].isdigit() else inner[0]


def logged(run: Run, figure: str) -> dict[str, np.ndarray]:
    """What a `GradientMonitor` logged, "grad", "grad_max" or "rms", in forward order: layer → array over steps."""
    names = dict.fromkeys(name for line in run.metrics for name in line if name.startswith(f"{figure}/"))
    return {name.removeprefix(f"{figure}/"): np.array(run.history(name)[1]) for name in names}


def stability_report(run: Run, *, warmup: int = 0) -> dict[str, float | None]:
    """What a `GradientMonitor` saw in a run, in figures. The steps of the warm-up do not count, but for the last of all. None: cannot be told.

    Of each layer: ``ratio_L``, the largest ‖g‖₂ over its running median; ``ratio_max_L``, the same of max |g|; ``rms_L``, the largest RMS;
    ``spikes_L``, the number of `series.spikes` of ‖g‖₂. ``loss_spikes``; ``preceded``, the share of these with an RMS of the first layer of
    2.3 or more in the 8 steps before, and ``preceded_chance``, that of all steps. ``lead``, in 500 steps or more: how many steps ‖g‖₂ of the
    first layer is ahead of the last block's. Where `DenseKNN` looked on, ``knn_dips``; ``dips_preceded``, the share of these with a spike of
    the first layer since the measurement before the last one, and ``dips_chance``, that of all steps. The 2.3 and the 8 are Wortsman et al.'s (2023).
    """
    loss = np.array(run.history("loss")[1])
    warmup = min(warmup, len(loss) - 1)
    norms, rms = logged(run, "grad"), {layer: x[warmup:] for layer, x in logged(run, "rms").items()}
    if not norms:
        raise ValueError("this run's log has no gradients: train it with callbacks=[GradientMonitor()].")
    ratios = {layer: series.over_median(x)[warmup:] for layer, x in norms.items()}
    report: dict[str, float | None] = {f"ratio_{layer}": x.max() for layer, x in ratios.items()}
    report |= {f"ratio_max_{layer}": series.over_median(x)[warmup:].max() for layer, x in logged(run, "grad_max").items()}
    report |= {f"rms_{layer}": x.max() for layer, x in rms.items()}
    report |= {f"spikes_{layer}": (series.spikes(x) >= warmup).sum() for layer, x in norms.items()}
    jumps, steps = series.loss_spikes(loss), len(loss) - warmup
    report["loss_spikes"] = (jumps >= warmup).sum()
    depth = [layer for layer in ratios if layer == "stem" or layer[-1].isdigit()]
    if depth and depth[0] in rms:
        late = np.flatnonzero(rms[depth[0]] >= 2.3)
        report["preceded"], report["preceded_chance"] = series.preceded(jumps[jumps >= warmup] - warmup, late, steps=steps, within=8)
    if depth and steps >= 500:
        report["lead"] = series.lead(ratios[depth[0]], ratios[depth[-1]]).steps
    looks, knn = (np.array(values) for values in run.history("knn"))
    if depth and len(looks) > 1:
        dips, peaks = looks[series.dips(knn)], series.spikes(norms[depth[0]])
        report["knn_dips"] = len(dips)
        report["dips_preceded"], report["dips_chance"] = series.preceded(dips, peaks, steps=len(loss), within=2 * int(looks[1] - looks[0]))
    return {name: value if value is None else round(float(value), 4) for name, value in report.items()}


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
