"""LARS, LAMB and StableAdamW; learning rates: scaling rules, and what follows the warm-up; parameter groups."""
import math
from collections.abc import Callable, Iterable
from functools import partial

import torch

from minivit.methods.base import param_groups

__all__ = ["ADAMW", "LAMB", "LARS", "StableAdamW", "param_groups", "scale_lr", "warmup_constant", "warmup_cosine"]

ADAMW = partial(torch.optim.AdamW, fused=True)  # PyTorch's AdamW in one pass over the weights: a quarter of its loop's time


class LayerWise(torch.optim.Optimizer):
    """What our optimizers share: every tensor with a gradient is moved by itself, by `move`."""

    def __init__(self, params: Iterable, **settings: float | bool | tuple[float, float]):
        for name, value in settings.items():
            if name != "betas" and not value >= 0:
                raise ValueError(f"{name}={value} must not be negative.")
        super().__init__(params, settings)

    def move(self, w: torch.Tensor, group: dict) -> None:
        raise NotImplementedError

    def moments(self, w: torch.Tensor, betas: tuple[float, float]) -> tuple[torch.Tensor, torch.Tensor]:
        """Adam's running means of g and of g², this step's g included, each with its bias correction: m̂ and v̂."""
        state, (beta1, beta2) = self.state[w], betas
        state.setdefault("step", torch.zeros(())).add_(1)
        m = state.setdefault("exp_avg", torch.zeros_like(w)).lerp_(w.grad, 1 - beta1)
        v = state.setdefault("exp_avg_sq", torch.zeros_like(w)).mul_(beta2).addcmul_(w.grad, w.grad, value=1 - beta2)
        steps = state["step"].item()
        return m / (1 - beta1**steps), v / (1 - beta2**steps)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for w in group["params"]:
                if w.grad is not None:
                    self.move(w, group)
        return loss


def trust_ratio(w: torch.Tensor, update: torch.Tensor, *, eta: float = 1.0) -> torch.Tensor:
    """η‖w‖ / ‖update‖, and 1 where either norm is 0."""
    norms = w.norm(), update.norm()
    return torch.where((norms[0] > 0) & (norms[1] > 0), eta * norms[0] / norms[1], 1.0)


class LARS(LayerWise):
    """SGD with momentum, each layer's step brought to a fixed share of its weights' norm.

    Of a tensor w with two axes or more and gradient g: g ← g + wd·w, then g ← g · η‖w‖ / ‖g‖ (as it is if either norm is 0).
    Biases, norms and other vectors get neither. Then v ← m·v + g and w ← w − lr·v; with ``lr_in_buffer``
    v ← m·v + lr·g and w ← w − v, which differs while lr changes. No Nesterov.
    Source: You et al. 2017. Official SimCLR: ``lr_in_buffer=True``; official MoCo v3: False. LARS codes that clip the
    ratio, or take ‖g‖ + wd‖w‖ below the line, need other learning rates.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        eta: float = 1e-3,
        lr_in_buffer: bool = False,
    ):
        super().__init__(params, lr=lr, momentum=momentum, weight_decay=weight_decay, eta=eta, lr_in_buffer=lr_in_buffer)

    def move(self, w: torch.Tensor, group: dict) -> None:
        g = w.grad
        if w.ndim > 1:
            g = g + group["weight_decay"] * w
            g = g * trust_ratio(w, g, eta=group["eta"])
        state = self.state[w]
        v = state.setdefault("momentum_buffer", torch.zeros_like(w)).mul_(group["momentum"])
        if group["lr_in_buffer"]:
            w -= v.add_(g, alpha=group["lr"])
        else:
            w.sub_(v.add_(g), alpha=group["lr"])


class LAMB(LayerWise):
    """AdamW whose step, too, is brought to the norm of the weights it moves.

    Of a tensor w with two axes or more: m and v as in Adam, with bias correction; u = m̂ / (√v̂ + ε) + wd·w; w ← w − lr · (‖w‖/‖u‖) · u (ratio 1 if
    either norm is 0). Biases, norms and other vectors get Adam's step: no decay, no ratio. The ratio is not clipped.
    Source: You et al. 2020, algorithm 2, with φ(x) = x and the exclusions of its TensorFlow code.
    """

    def __init__(
        self, params: Iterable, lr: float, *, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-6, weight_decay: float = 0.0
    ):
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def move(self, w: torch.Tensor, group: dict) -> None:
        m, v = self.moments(w, group["betas"])
        update = m / (v.sqrt() + group["eps"])
        if w.ndim > 1:
            update += group["weight_decay"] * w
            update *= trust_ratio(w, update)
        w.sub_(update, alpha=group["lr"])


class StableAdamW(LayerWise):
    """AdamW that shortens a tensor's step when its second moment is out of date: update clipping.

    Of every tensor: m̂ and v̂ as in Adam; RMS = √mean(g² / max(v̂, ε²)), near 1 while v̂ knows how large g is and far above when g has
    suddenly grown; w ← w − lr / max(1, RMS) · (m̂ / (√v̂ + ε) + wd·w). While no RMS exceeds 1 it is AdamW.
    Source: Wortsman et al. 2023, "Stable and low-precision training", after Adafactor. A code in use divides by min(1, RMS): it
    lengthens the short steps and never shortens a long one.
    """

    def __init__(
        self, params: Iterable, lr: float, *, betas: tuple[float, float] = (0.9, 0.99), eps: float = 1e-6, weight_decay: float = 0.0
    ):
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def move(self, w: torch.Tensor, group: dict) -> None:
        m, v = self.moments(w, group["betas"])
        rms = (w.grad.square() / v.clamp(min=group["eps"] ** 2)).mean().sqrt()
        update = m / (v.sqrt() + group["eps"]) + group["weight_decay"] * w
        w.sub_(group["lr"] / rms.clamp(min=1) * update)


def scale_lr(base: float, batch_size: int, *, rule: str = "linear") -> float:
    """The peak learning rate for a batch of images (not views), summed over processes.

    "linear": base · B / 256 (Goyal et al. 2017); "sqrt": base · √B (SimCLR, appendix B.1, where base is 0.075).
    """
    rules = {"linear": base * batch_size / 256, "sqrt": base * math.sqrt(batch_size), "none": base}
    if rule not in rules:
        raise ValueError(f"rule={rule!r}: there are {', '.join(rules)}.")
    return rules[rule]


def warmup_cosine(step: int, *, steps: int, warmup: int = 0) -> float:
    """The factor on the peak learning rate at ``step`` = 0 … steps−1: linear up to 1 over ``warmup`` steps, then half a cosine to 0.

    Step s of the warm-up gets (s+1) / warmup, so that no step is lost at zero.
    """
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


def warmup_constant(step: int, *, steps: int, warmup: int = 0) -> float:
    """As `warmup_cosine`, but the peak stays to the end: where steps are to be compared with each other, as in the study of instability."""
    return min(1.0, (step + 1) / max(warmup, 1))
