"""Exercises of chapter 09: a stem for any patch, receptive fields, a distribution with ties and a NaN, stems of equal cost, a random draw."""

import math

import numpy as np

from minivit.course.exercises import Exercise

Layers = list[tuple[int, ...]]


def _stem(patch: int, dim: int, *, first: float | None = None, padding: int = 1) -> Layers:
    """(kernel, stride, padding, width) of the 3×3 convolutions of a conv stem."""
    halvings = int(math.log2(patch))
    first = dim // 2 ** (halvings - 1) if first is None else first
    return [(3, 2, padding, int(first * 2**i)) for i in range(halvings)]


def _fields(layers: Layers) -> list[int]:
    side, apart, found = 1, 1, []
    for kernel, stride in layers:
        side, apart = side + (kernel - 1) * apart, apart * stride
        found.append(side)
    return found


def _fields_stride_first(layers: Layers) -> list[int]:
    side, apart, found = 1, 1, []
    for kernel, stride in layers:
        apart *= stride
        side += (kernel - 1) * apart
        found.append(side)
    return found


def _fields_product(layers: Layers) -> list[int]:
    return [math.prod(kernel for kernel, _ in layers[: i + 1]) for i in range(len(layers))]


def _share(scores: list[float], behind: float) -> float:
    best = np.nanmax(scores)
    return float(np.mean([best - score <= behind + 1e-12 for score in scores]))


def _share_of_finite(scores: list[float], behind: float) -> float:
    return _share([score for score in scores if not math.isnan(score)], behind)


def _share_strict(scores: list[float], behind: float) -> float:
    return float(np.mean([np.nanmax(scores) - score < behind - 1e-12 for score in scores]))


def _cost(kernels: tuple[int, ...], strides: tuple[int, ...], first: int, *, size: int = 32, dim: int = 64) -> int:
    """Multiply-adds of a stem whose widths double, with its last 1×1."""
    channels, width, total = 3, first, 0
    for kernel, stride in zip(kernels, strides, strict=True):
        size //= stride
        total += size**2 * kernel**2 * channels * width
        channels, width = width, 2 * width
    return total + size**2 * channels * dim


def _first_width(kernels: tuple[int, ...], strides: tuple[int, ...], target: int, **options: int) -> int:
    return min(range(1, 65), key=lambda first: abs(_cost(kernels, strides, first, **options) - target))


def _draw(low: float, high: float, place: float) -> float:
    return low * (high / low) ** place


_series = tuple((kernels, strides, 765_952) for kernels, strides in (((3, 3, 2), (2, 2, 2)), ((3, 3, 4), (2, 1, 4)), ((3, 3, 8), (1, 1, 8))))
_scores = ([0.5, 0.5, 0.45, math.nan, 0.2], 0.05), ([math.nan, 0.61, 0.4, 0.6], 0.1), ([0.3, 0.1, 0.3, 0.3], 0.0), ([0.61, 0.6, 0.2], 0.01)

EXERCISES_09 = {
    "09.1": Exercise(
        cases=((8, 64), (16, 384), (4, 48)),
        reference=_stem,
        mistakes=(
            (lambda patch, dim: _stem(patch, dim, first=dim / patch), "your last width is dim/2: the first is dim divided by patch/2."),
            (lambda patch, dim: _stem(patch, dim, first=dim // patch * 4), "your widths end at 2·dim: the first is dim divided by patch/2."),
            (lambda patch, dim: _stem(patch, dim, padding=0), "without padding a 3×3 of stride 2 makes 15 of 32 pixels, not 16."),
            (lambda patch, dim: [*_stem(patch, dim), (1, 1, 0, dim)], "right, and the last 1×1 as well; only the 3×3 layers are asked for."),
            (lambda patch, dim: [(3, patch, 1, dim)], "one convolution of stride patch skips most pixels; halve several times."),
            (lambda patch, dim: [(3, 2, 1, dim)] * int(math.log2(patch)), "the widths double with every halving; only the last is dim."),
        ),
        hints=("How often must the side be halved for a patch of 8?", "Each halving doubles the width; the last one is dim."),
    ),
    "09.2": Exercise(
        cases=(([(3, 2)] * 3,), ([(3, 2), (3, 1), (4, 4)],), ([(7, 2), (3, 2), (3, 1), (3, 2)],)),
        reference=_fields,
        mistakes=(
            (_fields_product, "fields grow by sums: a layer adds (kernel − 1) times the distance between its inputs."),
            (_fields_stride_first, "a layer's own stride does not widen its own field, only those of the layers after it."),
            (lambda layers: [1 + sum(k - 1 for k, _ in layers[: i + 1]) for i in range(len(layers))], "you left out the strides."),
            (lambda layers: [side - 1 for side in _fields(layers)], "start from one pixel, not from none."),
            (lambda layers: _fields(layers)[-1:], "right, but give one number for each layer."),
        ),
        hints=("Keep two numbers: the side so far, and how far apart neighbouring inputs are.", "First the side, then the distance."),
    ),
    "09.3": Exercise(
        cases=_scores,
        reference=_share,
        mistakes=(
            (_share_of_finite, "you dropped the diverged run; it stays one of the n."),
            (_share_strict, "use ≤: a run exactly so far behind counts, and the best one, too."),
            (lambda s, b: float(np.mean([1 - v <= b for v in s])), "the distance is to this model's best run, not to 1."),
            (lambda s, b: float(np.mean(np.nanmax(s) - np.array(s) <= b)), "0.61 − 0.6 is a little more than 0.01 in a computer: allow 1e-12."),
            (lambda s, b: _share(s, b) * len(s), "divide by the number of runs."),
            (lambda s, b: float(np.mean(np.nanmax(s) - np.nan_to_num(s, nan=np.inf) <= b + 1e-12)), "a diverged run has not come near the best."),
        ),
        hints=("A comparison with NaN is False: that is what we want here.", "Allow a little: `<= behind + 1e-12`."),
    ),
    "09.4": Exercise(
        cases=_series,
        reference=_first_width,
        mistakes=(
            (lambda k, s, t: _first_width(k, s, t, dim=0), "add the last 1×1, from the last width to D = 64."),
            (lambda k, s, t: _first_width(k, (1,) * len(s), t), "each convolution's outputs are on a grid that its stride has made smaller."),
            (lambda k, s, t: _first_width((3,) * len(k), s, t), "the last kernel is as large as its stride."),
        ),
        hints=("rows · columns · kernel² · channels in · channels out, for each layer, then the 1×1.", "Try every first width from 1 to 64."),
    ),
    "09.5": Exercise(
        cases=((0.01, 0.32, 0.5), (1e-4, 1e-2, 0.25), (0.02, 0.02, 0.9)),
        reference=_draw,
        mistakes=(
            (lambda low, high, place: low + (high - low) * place, "that is uniform: nearly all draws lie in the upper octave. Go by factors."),
            (lambda low, high, place: _draw(high, low, place), "place 0 is the low end."),
            (lambda low, high, place: math.log(low) + (math.log(high) - math.log(low)) * place, "that is the logarithm; take its exponential."),
        ),
        hints=("Half way between 0.01 and 0.32 by factors is their geometric mean.", "low · (high / low) ** place"),
    ),
}
