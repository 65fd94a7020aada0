"""Learning rates: scaling rules and the warm-up + cosine schedule; parameter groups."""
import math

from minivit.methods.base import param_groups

__all__ = ["param_groups", "scale_lr", "warmup_cosine"]


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
