"""Exercises of chapter 01: counting, positions, and an attention with a swapped axis."""
import math

import numpy as np
import torch

from minivit.course.exercises import Exercise


def _parameters(dim, depth, patch, image):
    """Class token, learned positions, no classifier."""
    tokens = (image // patch) ** 2 + 1
    block = 12 * dim**2 + 13 * dim
    return (3 * patch**2 * dim + dim) + dim + tokens * dim + depth * block + 2 * dim


def _sincos(dim, height, width, *, swapped=False, period=4, columns_first=False, interleaved=False):
    omega = 10000.0 ** (-np.arange(dim // 4) / (dim // period))
    places = [(row, col) for row in range(height) for col in range(width)]
    if columns_first:
        places = [(row, col) for col in range(width) for row in range(height)]
    lines = []
    for row, col in places:
        first, second = (col, row) if swapped else (row, col)
        parts = [np.sin(first * omega), np.cos(first * omega), np.sin(second * omega), np.cos(second * omega)]
        if interleaved:
            parts = [np.stack(parts[:2], 1).ravel(), np.stack(parts[2:], 1).ravel()]
        lines.append(np.concatenate(parts))
    return np.array(lines)


def _attention(q, k, v, *, over=-1, scale=None, transposed=False):
    scores = torch.einsum("bhid, bhjd -> bhij", q, k) / (math.sqrt(q.shape[-1]) if scale is None else scale(q))
    weights = scores.softmax(dim=over)
    return torch.einsum("bhji, bhjd -> bhid" if transposed else "bhij, bhjd -> bhid", weights, v)


def _case(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(*shape, generator=generator, dtype=torch.float64) for _ in range(3))


def _total(dim, depth, patch, image, *, block=0, rest=0):
    """The right count, plus mistakes of so many widths in each block and outside the blocks."""
    return _parameters(dim, depth, patch, image) + depth * block * dim + rest * dim


EXERCISES_01 = {
    "01.1": Exercise(
        cases=((384, 12, 16, 224), (64, 3, 8, 32), (1024, 24, 16, 224)),
        reference=_parameters,
        mistakes=(
            (lambda *a: _total(*a, block=-9), "the biases of a block are missing: Linears have 3D, D, 4D and D of them."),
            (lambda *a: _total(*a, block=-13), "a block also has biases and two LayerNorms: 13D numbers more."),
            (lambda *a: _total(*a, block=-4), "the two LayerNorms of each block are missing: each has a scale and a shift, 2D."),
            (lambda *a: _total(*a, rest=-1), "D numbers are missing outside the blocks: class token, its position, or the stem's bias."),
            (lambda *a: _total(*a, rest=-2), "2D numbers are missing outside the blocks: final LayerNorm, or class token with its position."),
            (lambda *a: _total(*a) - 2 * a[2] ** 2 * a[0], "a patch has three colours: it is 3P² numbers long."),
        ),
        hints=(
            "Five parts: stem, class token, positions (one for each token, the class token included), blocks, final LayerNorm.",
            "Stem 3P²D + D. Block: QKV 3D² + 3D, output D² + D, MLP 8D² + 5D, two LayerNorms 4D.",
        ),
    ),
    "01.2": Exercise(
        cases=((8, 3, 5), (4, 2, 2), (12, 5, 2)),
        reference=_sincos,
        mistakes=(
            (lambda *a: _sincos(*a, swapped=True), "rows and columns are exchanged: the first half of the channels belongs to the row."),
            (lambda *a: _sincos(*a, columns_first=True), "the tokens run down the columns; they have to run along the rows."),
            (lambda *a: _sincos(*a, period=1), "the exponent is −i/(D/4), not −i/D: each of the four blocks has D/4 channels."),
            (lambda *a: _sincos(*a, period=2), "the exponent is −i/(D/4), not −i/(D/2): rows and columns have a sine and a cosine each."),
            (lambda *a: _sincos(*a, interleaved=True), "sines and cosines take turns; here all sines come first, then all cosines."),
        ),
        hints=("Token number n sits in row n // width and column n % width.", "[sin(row·ω), cos(row·ω), sin(col·ω), cos(col·ω)], each D/4 wide."),
    ),
    "01.3": Exercise(
        cases=(_case(0, 2, 3, 5, 7), _case(1, 1, 2, 4, 3)),
        reference=_attention,
        mistakes=(
            (lambda *a: _attention(*a, over=-2), "that is still the broken one: its softmax runs over the queries, the axis i."),
            (lambda *a: _attention(*a, over=1), "the softmax now runs over the heads."),
            (lambda *a: _attention(*a, transposed=True), "the weights are right, but the last einsum reads them transposed."),
            (lambda *a: _attention(*a, over=-2, transposed=True), "transposing the maps as well does not undo it: then Q and K have changed roles."),
            (lambda *a: _attention(*a, scale=lambda q: math.sqrt(q.shape[1] * q.shape[-1])), "divide by the root of one head's width d, not of D."),
        ),
        hints=(
            "Print the sums of the weights over j: what must they be?",
            "The weights of one query i have to sum to 1 over the keys j, the last axis.",
        ),
    ),
}  # fmt: skip
