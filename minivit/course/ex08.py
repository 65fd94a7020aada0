"""Exercises of chapter 08: a judge once per epoch, clipping under Adam, zero gradients, the rate that breaks, a monitor."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from minivit.course.exercises import Exercise


def _once(accuracy: Sequence[float], every: int, epoch: int) -> list[float]:
    """The last measurement at or before the end of each epoch; measurement i was taken after (i + 1)·every steps."""
    epochs = range(1, len(accuracy) * every // epoch + 1)
    return [accuracy[number * epoch // every - 1] for number in epochs]


def _clipped(threshold: float, count: int, eps: float) -> float:
    g = threshold / math.sqrt(count)
    return g / (g + eps)


def _left(weight: float, lr: float, decay: float, steps: int, gradient: str) -> float:
    return weight if gradient == "none" else weight * (1 - lr * decay) ** steps


def _breaks(ratios: Mapping[float, Sequence[float]], limit: float) -> float:
    return min((rate for rate, seeds in ratios.items() if min(seeds) > limit), default=math.inf)


def _lengths(gradients: Sequence[tuple[str, Tensor]], *, power: float = 2.0) -> list[float]:
    names = list(dict.fromkeys(layer for layer, _ in gradients))
    tensors = [[g for layer, g in gradients if layer == name] for name in names]
    return torch.stack([torch.stack([g.norm(power) for g in found]).norm(power) for found in tensors]).tolist()


def _case(seed: int) -> list[tuple[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"stem": ((5, 3), (5,)), "block0": ((7, 5), (2,), (3, 3))}
    return [(layer, torch.randn(shape, generator=generator)) for layer, found in shapes.items() for shape in found]


_dense = [round(0.4 + 0.01 * i - 0.1 * (i in (4, 9)), 2) for i in range(13)]
_grid = {0.04: [3.4, 5.0, 6.1], 0.0025: [1.7, 2.0, 1.9], 0.02: [2.8, 4.9, 6.0], 0.01: [1.9, 3.1, 2.0]}

EXERCISES_08 = {
    "08.1": Exercise(
        cases=((_dense, 20, 62), (_dense, 10, 30), (_dense, 25, 40)),
        reference=_once,
        mistakes=(
            (
                lambda a, every, epoch: list(a[:: round(epoch / every)]),
                "every third measurement is no epoch: 62 steps are not 60, and you began with the first one.",
            ),
            (
                lambda a, every, epoch: list(a[round(epoch / every) - 1 :: round(epoch / every)]),
                "every third measurement drifts away from the epochs: the tenth epoch ends after 620 steps, not 600.",
            ),
            (
                lambda a, every, epoch: [a[min(n * epoch // every, len(a) - 1)] for n in range(1, len(a) * every // epoch + 1)],
                "that is the first measurement after the epoch: measurement i was taken after (i + 1)·every steps.",
            ),
        ),
        hints=("After how many steps was measurement i taken?", "The last one with (i + 1)·every ≤ number·epoch is i = number·epoch // every − 1."),
    ),
    "08.2": Exercise(
        cases=((0.3, 1568, 1e-8), (1e-8, 1568, 1e-8), (2e-6, 400, 1e-8)),
        reference=_clipped,
        mistakes=(
            (lambda c, n, eps: c / (c + eps), "the threshold bounds the length of the whole tensor; one of its n weights gets c/√n."),
            (lambda c, n, eps: (c / n) / (c / n + eps), "a length of c over n equal weights is c/√n each, not c/n."),
            (lambda c, n, eps: 1.0, "almost: while the gradient is far above ε; think of the other end."),
            (lambda c, n, eps: c / math.sqrt(n), "that is the gradient, and SGD's step; Adam divides it by √v̂ + ε."),
        ),
        hints=("All weights alike, always clipped: g = c/√n at each step. What are m̂ and √v̂ then?", "Both are g. Adam's step is lr · m̂ / (√v̂ + ε)."),
    ),
    "08.3": Exercise(
        cases=((2.0, 0.01, 0.1, 100, "none"), (2.0, 0.01, 0.1, 100, "zero"), (1.0, 0.5, 0.2, 3, "zero")),
        reference=_left,
        mistakes=(
            (lambda w, lr, decay, steps, g: w, "AdamW also visits a weight whose gradient is zero, and shrinks it."),
            (lambda w, lr, decay, steps, g: w * (1 - lr * decay) ** steps, "a weight without a gradient (None) is skipped altogether."),
            (
                lambda w, lr, decay, steps, g: w if g == "none" else w * (1 - decay) ** steps,
                "PyTorch's decay is lr · decay a step (TensorFlow's old AdamW left out the lr).",
            ),
            (lambda w, lr, decay, steps, g: w if g == "none" else w * (1 - lr * decay * steps), "each step shrinks what the one before has left."),
        ),
        hints=("What does AdamW do with a weight whose `.grad` is None?", "With zero: w ← w − lr · decay · w, once a step."),
    ),
    "08.4": Exercise(
        cases=((_grid, 3.0), (_grid, 1.8), (_grid, 9.0)),
        reference=_breaks,
        mistakes=(
            (
                lambda r, limit: min((rate for rate, seeds in r.items() if max(seeds) > limit), default=math.inf),
                "one seed above the limit may be bad luck: ask for all of them.",
            ),
            (
                lambda r, limit: min((rate for rate, seeds in r.items() if sum(seeds) / len(seeds) > limit), default=math.inf),
                "the mean can be above the limit with a seed below it: ask for all of them.",
            ),
            (
                lambda r, limit: next((rate for rate, seeds in r.items() if min(seeds) > limit), math.inf),
                "the rates are not sorted: you gave the first in the table, not the smallest.",
            ),
            (
                lambda r, limit: min((rate for rate, seeds in r.items() if min(seeds) > limit), default=max(r)),
                "where no rate breaks it, the answer is `math.inf`, not the largest rate.",
            ),
        ),
        hints=("`min(seeds) > limit`: all of them above.", "`min(…, default=math.inf)` is right for a table in which nothing breaks."),
    ),
    "08.5": Exercise(
        cases=((_case(0),), (_case(1)[::-1],)),
        reference=_lengths,
        mistakes=(
            (
                lambda gs: [sum(g.norm().item() for layer, g in gs if layer == n) for n in dict.fromkeys(x for x, _ in gs)],
                "lengths of a layer's tensors do not add; their squares do.",
            ),
            (lambda gs: [v**2 for v in _lengths(gs)], "you left out the square root."),
            (lambda gs: _lengths(gs, power=math.inf), "that is the largest single number, not the length."),
            (lambda gs: [g.norm().item() for _, g in gs], "one number for each layer, not for each tensor."),
        ),
        hints=(
            "Length of a layer: √ of the sum of the squared lengths of its tensors.",
            "`torch._foreach_norm(list)`, then one `torch.stack(…).tolist()`.",
        ),
    ),
}
