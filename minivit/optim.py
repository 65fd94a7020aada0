"""LARS; learning rates: scaling rules and the warm-up + cosine schedule; parameter groups."""
import math
from collections.abc import Callable, Iterable

import torch

from minivit.methods.base import param_groups

__all__ = ["LARS", "param_groups", "scale_lr", "warmup_cosine"]


class LARS(torch.optim.Optimizer):
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
        for name, value in (("lr", lr), ("momentum", momentum), ("weight_decay", weight_decay), ("eta", eta)):
            if not value >= 0:
                raise ValueError(f"{name}={value} must not be negative.")
        settings = {"momentum": momentum, "weight_decay": weight_decay, "eta": eta, "lr_in_buffer": lr_in_buffer}
        super().__init__(params, {"lr": lr, **settings})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for w in group["params"]:
                if w.grad is not None:
                    self._move(w, group)
        return loss

    def _move(self, w: torch.Tensor, group: dict) -> None:
        g = w.grad
        if w.ndim > 1:
            g = g + group["weight_decay"] * w
            norms = w.norm(), g.norm()
            g = g * torch.where((norms[0] > 0) & (norms[1] > 0), group["eta"] * norms[0] / norms[1], 1.0)
        state = self.state[w]
        v = state.setdefault("momentum_buffer", torch.zeros_like(w)).mul_(group["momentum"])
        if group["lr_in_buffer"]:
            w -= v.add_(g, alpha=group["lr"])
        else:
            w.sub_(v.add_(g), alpha=group["lr"])


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
