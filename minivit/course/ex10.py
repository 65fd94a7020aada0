"""Exercises of chapter 10: the index table, masked windows, a roll the wrong way, rectangular windows, a bias on the keys."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from minivit.course.exercises import Exercise
from minivit.layers.position import relative_index
from minivit.layers.window import merge, partition, shift_mask

# ---------------------------------------------------------------------------------------------------- 10.1, 10.4: the index table


def _index(rows: int, cols: int, *, factor: Callable = lambda rows, cols: 2 * cols - 1, sign: int = 1, start: int = 1) -> list[list[int]]:
    places = [(y, x) for y in range(rows) for x in range(cols)]
    return [
        [(sign * (yi - yj) + rows - start) * factor(rows, cols) + sign * (xi - xj) + cols - start for yj, xj in places] for yi, xi in places
    ]


# ---------------------------------------------------------------------------------------------------- 10.2: which windows are masked


def _masked(side: int, window: int, shift: int) -> list[bool]:
    """Of each window, row by row: is some pair forbidden in it?"""
    if not shift:
        return [False] * (side // window) ** 2
    return [not mask.all() for mask in shift_mask(side, side, window, (shift, shift))]


# ---------------------------------------------------------------------------------------------------- 10.3: rolled the wrong way


def mean_in_windows(x: Tensor, *, window: int = 4, shift: int = 2, way: int = -1, back: bool = True, masked: bool = True) -> Tensor:
    """Attention with equal weights: each token of the map ``(H, W, D)`` gets the mean of those it may look at, in shifted windows."""
    height, width, _ = x.shape
    rolled = x[None].roll((way * shift, way * shift), dims=(1, 2))
    allowed = shift_mask(height, width, window, (shift, shift)).to(x.dtype) if masked else x.new_ones(1, window**2, window**2)
    out = merge((allowed / allowed.sum(-1, keepdim=True)) @ partition(rolled, window), window, height, width)
    return out.roll((-way * shift, -way * shift), dims=(1, 2))[0] if back else out[0]


ATTENTIONS = {
    "right": mean_in_windows,
    "rolled the other way": partial(mean_in_windows, way=1),
    "no mask": partial(mean_in_windows, masked=False),
    "not rolled back": partial(mean_in_windows, back=False),
    "not shifted": partial(mean_in_windows, shift=0, masked=False),
}


def changed(attend: Callable[[Tensor], Tensor], at: tuple[int, int] = (0, 0), side: int = 8) -> Tensor:
    """Which outputs change, ``(H, W)`` of bool, when the token at one place does."""
    x = torch.randn(side, side, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    other = x.clone()
    other[at] += 1
    return (attend(x) - attend(other)).abs().amax(-1) > 1e-9


def _is_right(attend: Callable[[Tensor], Tensor]) -> bool:
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[:2, :2] = True
    return torch.equal(changed(attend), expected)


# ---------------------------------------------------------------------------------------------------- 10.5: a bias on the keys


def _change(q: Tensor, k: Tensor, b: Tensor, *, scale: float = 10.0) -> tuple[float, float]:
    """The largest change of any attention weight when b is added to every key: by dot products, by cosines."""
    norm = torch.nn.functional.normalize

    def dot(k: Tensor) -> Tensor:
        return (q @ k.T / q.shape[1] ** 0.5).softmax(1)

    def cosine(k: Tensor) -> Tensor:
        return (scale * norm(q, dim=1) @ norm(k, dim=1).T).softmax(1)

    return tuple(float((weights(k) - weights(k + b)).abs().max()) for weights in (dot, cosine))


def _vectors(seed: int, tokens: int, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    q, k = torch.randn(2, tokens, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return q, k, q.mean(0) + k[0]


EXERCISES_10 = {
    "10.1": Exercise(
        cases=((2,), (3,)),
        reference=lambda window: relative_index((window, window)).tolist(),
        mistakes=(
            (lambda m: _index(m, m, sign=-1), "the sign is turned round: a row is a query; the offset is its place minus the key's."),
            (lambda m: _index(m, m, factor=lambda rows, cols: 2 * cols), "rows of the table are 2M − 1 long, not 2M."),
            (lambda m: _index(m, m, factor=lambda rows, cols: cols), "that is the row length of the window; the table's is 2M − 1."),
            (lambda m: _index(m, m, start=0), "add M − 1, so that the smallest offset becomes 0."),
        ),
        hints=("The places, row by row: (0, 0), (0, 1), (1, 0), (1, 1).", "(yi − yj + M − 1) · (2M − 1) + xi − xj + M − 1"),
    ),
    "10.2": Exercise(
        cases=((8, 4, 2), (12, 4, 2), (56, 7, 3), (4, 4, 0)),
        reference=_masked,
        mistakes=(
            (lambda side, m, s: [s > 0] * (side // m) ** 2, "only windows that hold rows or columns of the other border are masked."),
            (
                lambda side, m, s: [s > 0 and i + 1 == (side // m) ** 2 for i in range((side // m) ** 2)],
                "not the corner alone: the whole last row and column.",
            ),
            (lambda side, m, s: [not flag and s > 0 for flag in _masked(side, m, s)], "turned round: True where some pair is forbidden."),
            (lambda side, m, s: _masked(side, m, s)[::-1], "rolled by −s, the strangers are in the last row and column, not in the first."),
            (lambda side, m, s: _masked(side, m, s or 1), "without a shift nothing is masked."),
        ),
        hints=("Rolled by −s, the last s rows come from the top.", "Windows of the last row, and of the last column: how many together?"),
    ),
    "10.3": Exercise(
        cases=tuple((attend,) for attend in ATTENTIONS.values()),
        reference=_is_right,
        mistakes=(
            (lambda attend: True, "your test lets everything pass."),
            (lambda attend: not changed(attend)[-1, -1].item(), "the far corner alone is not enough: where must the change be, and where not?"),
            (lambda attend: bool(changed(attend)[0, 0]), "the token itself is not enough: who else may change?"),
        ),
        hints=("`changed(attend)` says which of 8 × 8 outputs notice token (0, 0).", "Shifted by 2: which tokens share its window and border?"),
    ),
    "10.4": Exercise(
        cases=((2, 3), (3, 2), (1, 4)),
        reference=lambda rows, cols: relative_index((rows, cols)).tolist(),
        mistakes=(
            (lambda r, c: _index(r, c, factor=lambda rows, _: 2 * rows - 1), "a row of the table has 2·cols − 1 entries."),
            (lambda r, c: _index(r, c, factor=lambda rows, cols: 2 * max(r, c) - 1), "the table is (2·rows − 1) × (2·cols − 1), no square."),
            (lambda r, c: _index(r, c, sign=-1), "the sign is turned round: query minus key."),
            (lambda r, c: _index(c, r), "rows and columns of the window are exchanged."),
        ),
        hints=("The table is (2·rows − 1) × (2·cols − 1).", "The row offset is multiplied by the length of a table's row."),
    ),
    "10.5": Exercise(
        cases=(_vectors(0, 5, 4), _vectors(1, 7, 8)),
        reference=_change,
        mistakes=(
            (lambda q, k, b: _change(q, k, b)[::-1], "exchanged: dot product first, then cosine."),
            (lambda q, k, b: _change(q, k, b, scale=1.0), "the cosines are divided by τ = 0.1."),
            (lambda q, k, b: _change(q + b, k, 0 * b), "add b to the keys."),
            (lambda q, k, b: _change(q, k, b, scale=math.sqrt(q.shape[1])), "cosines are divided by τ = 0.1, not multiplied by √d."),
        ),
        hints=("Dot product: (k + b)·q = k·q + b·q. What does softmax over the keys make of b·q?", "`F.normalize(k + b, dim=1)` turns the key."),
    ),
}
